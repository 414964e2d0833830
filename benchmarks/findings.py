"""`shortlist bench findings`: four claims about recommenders, each tried in a simulated world.

1. popularity < ItemKNN < two-stage chain < oracle, in satisfaction a page.
2. A ranker trained on clicks wins clicks and loses satisfaction and retention against one trained
   on what a visit was worth.
3. Without exploration and diversity control a loop narrows over 60 days; with them it does not.
4. A content model reaches new items on their first day, a collaborative one does not.

All arms live the same two months (`shortlist simulate --in-process`); a run that was interrupted
goes on at its last finished day. Each claim is a difference with a 95% bootstrap interval over
users, paired by user; it holds if the whole interval lies on its side of zero.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._machine import about_machine
from flows.simulate import about, open_setting, plot_days, simulate_in_process
from flows.simulation.arms import parse_arms
from flows.simulation.figures import (
    RATIOS,
    ArmSums,
    Bootstrap,
    difference,
    diversity,
    interval,
    summarise,
)
from flows.simulation.setting import Setting
from shortlist.config import Settings

ARMS = "popularity,item_knn,content,clicks,value,clicks+explore+mmr,value+explore+mmr,oracle"
ORDER = ("popularity", "item_knn", "value", "oracle")
WEEKS = 2
"""Narrowing is measured between the first and the last fortnight."""
Drawn = dict[str, tuple[float, np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="village")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=ARMS, help="live these only; the claims want all")
    parser.add_argument("--plot", type=Path, help="write the days as SVG")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    settings = Settings()
    setting = open_setting(
        arguments.preset, days=arguments.days, seed=arguments.seed, cache=settings.cache
    )
    lived = simulate_in_process(
        setting, parse_arms(arguments.arms), folder=settings.home / "simulations", say=print
    )
    if set(ARMS.split(",")) - set(lived):
        return
    result = summarise(setting, lived)
    if arguments.plot:
        plot_days(arguments.plot, about(setting) | result)
    findings = judge(setting, lived)
    content = about_machine() | {
        "command": f"shortlist bench findings --preset {arguments.preset} --days {arguments.days}"
        f" --seed {arguments.seed}",
        **about(setting),
        "findings": findings,
        "arms": {name: rounded(arm["summary"]) for name, arm in result["arms"].items()},
    }
    print(json.dumps(findings, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def judge(setting: Setting, lived: dict[str, Any]) -> dict[str, Any]:
    """Each claim as named differences, and whether all of them lie on the claimed side."""
    boot = Bootstrap(setting.world.num_users)
    drawn = {name: figures_of(setting, logs, boot) for name, logs in lived.items()}

    def minus(one: str, other: str, metric: str) -> dict[str, float]:
        return difference({metric: drawn[one][metric]}, {metric: drawn[other][metric]})[metric]

    order = {
        f"{better} - {worse}": minus(better, worse, "satisfaction")
        for worse, better in pairwise(ORDER)
    }
    clicks = {
        "click_through: clicks - value": minus("clicks", "value", "click_through"),
        "satisfaction: value - clicks": minus("value", "clicks", "satisfaction"),
        "retention: value - clicks": minus("value", "clicks", "retention"),
    }
    narrow = {}
    for base in ("clicks", "value"):
        controlled = f"{base}+explore+mmr"
        for metric in ("coverage", "effective_items"):
            alone, held = (
                change(setting, lived[name], boot, metric) for name in (base, controlled)
            )
            narrow[f"{metric}: {base}, change without control"] = interval(*alone)
            narrow[f"{metric}: {base}, change with control"] = interval(*held)
            narrow[f"{metric}: {base}, with - without"] = interval(
                held[0] - alone[0], held[1] - alone[1]
            )
    fresh = {
        "content - item_knn": minus("content", "item_knn", "fresh_shown"),
        "item_knn": interval(*drawn["item_knn"]["fresh_shown"]),
        "content": interval(*drawn["content"]["fresh_shown"]),
        "if all items were shown alike": fair_share(setting),
    }
    narrowed = all(
        narrow[f"effective_items: {base}, change without control"]["high"] < 0
        and narrow[f"effective_items: {base}, change with control"]["high"] > 0
        for base in ("clicks", "value")
    )
    return {
        "1 satisfaction a page": {"holds": _above(order.values())} | rounded(order),
        "2 clicks against worth": {"holds": _above(clicks.values())} | rounded(clicks),
        "3 narrowing, relative change": {"holds": narrowed} | rounded(narrow),
        "4 new items a page on their first day": {
            "holds": _above([fresh["content - item_knn"]]) and fresh["item_knn"]["high"] < 0.005
        }
        | rounded(fresh),
    }


def figures_of(setting: Setting, logs: list[Any], boot: Bootstrap) -> Drawn:
    sums = ArmSums(setting, logs, first=setting.schedule.start, end=setting.end)
    return {metric: sums.ratio(boot, metric) for metric in RATIOS}


def change(
    setting: Setting, logs: list[Any], boot: Bootstrap, metric: str
) -> tuple[float, np.ndarray]:
    """Last fortnight over first fortnight, less one: relative to the number of items there are."""
    start, end, span = setting.schedule.start, setting.end, 7 * WEEKS
    parts = []
    for first in (start, end - span):
        value, drawn = diversity(setting, logs[first : first + span], boot)[metric]
        share = 1 if metric == "coverage" else setting.world.items_on(first + span - 1)
        parts.append((value / share, drawn / share))
    (before, drawn_before), (after, drawn_after) = parts
    return after / before - 1, drawn_after / drawn_before - 1


def fair_share(setting: Setting) -> dict[str, float]:
    """Mean number of places a page that a day's new items would get."""
    world, days = setting.world, range(setting.schedule.start, setting.end)
    slate = world.config.sessions.slate
    shares = [
        slate * (world.items_on(day) - world.items_on(day - 1)) / world.items_on(day)
        for day in days
    ]
    return {"mean": float(np.mean(shares))}


def rounded(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {key: round(value, 5) for key, value in figure.items()}
        for name, figure in figures.items()
    }


def _above(figures: Any) -> bool:
    return all(figure["low"] > 0 for figure in figures)


if __name__ == "__main__":
    main()
