"""`shortlist bench findings`: test four claims about recommenders in a simulated world.

1. Satisfaction per page: popularity < ItemKNN < two-stage chain trained on value < oracle.
2. A ranker trained on clicks gets more clicks, but less satisfaction and retention, than a ranker
   trained on value.
3. A recommender that is repeatedly retrained on clicks shows fewer different items after 60 days,
   unless it explores and re-ranks for diversity. (The one trained on value is reported too.)
4. A content model shows new items on their first day; a collaborative one doesn't.

The value of an impression is a weighted sum of the user's reactions. The oracle knows the users'
tastes. Each recommender that is compared is an arm. All arms are simulated over the same two months
(`shortlist simulate --in-process`). An interrupted run resumes after its last finished day. Each
claim is a difference with a 95% bootstrap interval over users, paired by user. It holds if the
whole interval is on the claimed side of zero.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, report
from flows.closed_loop.arms import parse_arms
from flows.closed_loop.figures import (
    RATIOS,
    ArmSums,
    Bootstrap,
    difference,
    diversity,
    interval,
    summarise,
)
from flows.closed_loop.setting import Setting
from flows.simulate import about, open_setting, plot_days, simulate_in_process
from shortlist.config import Settings

ARMS = "popularity,item_knn,content,clicks,value,clicks+explore+mmr,value+explore+mmr,oracle"
LOOPS, CONTROL = ("clicks", "value"), "+explore+mmr"
"""Arms of claim 3: each name in LOOPS, without and with the suffix CONTROL."""
ORDER = ("popularity", "item_knn", "value", "oracle")
"""Arms of claim 1, in the claimed order."""
WEEKS = 2
"""Length in weeks of the first and the last period. They are compared to measure how much the set
of shown items narrows."""
Drawn = dict[str, tuple[float, np.ndarray]]
"""{metric: (its value, its values in the bootstrap samples)}."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="village")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=ARMS, help="simulate only these; claims need all arms")
    parser.add_argument("--plot", type=Path, help="write the figures by day to this file as SVG")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    arguments = parser.parse_args()
    settings = Settings()
    setting = open_setting(
        arguments.preset, days=arguments.days, seed=arguments.seed, cache=settings.cache
    )
    lived = simulate_in_process(
        setting, parse_arms(arguments.arms), folder=settings.home / "simulations", report=print
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
    report(content, arguments.out, shown=findings)


def judge(setting: Setting, lived: dict[str, Any]) -> dict[str, Any]:
    """Return each claim's differences with intervals, and whether the claim holds."""
    boot = Bootstrap(setting.world.num_users)
    drawn = {name: figures_of(setting, logs, boot) for name, logs in lived.items()}

    def minus(treatment: str, control: str, metric: str) -> dict[str, float]:
        return difference({metric: drawn[treatment][metric]}, {metric: drawn[control][metric]})[
            metric
        ]

    order = {
        f"{better} - {worse}": minus(better, worse, "satisfaction")
        for worse, better in pairwise(ORDER)
    }
    clicks = {
        "click_through: clicks - value": minus("clicks", "value", "click_through"),
        "satisfaction: value - clicks": minus("value", "clicks", "satisfaction"),
        "retention: value - clicks": minus("value", "clicks", "retention"),
    }
    narrow: dict[str, dict[str, float]] = {}
    for base in LOOPS:
        alone = change(setting, lived[base], boot)
        held = change(setting, lived[f"{base}{CONTROL}"], boot)
        for metric in alone:
            narrow[f"{metric}: {base}"] = interval(*alone[metric])
            narrow[f"{metric}: {base}{CONTROL}"] = interval(*held[metric])
            apart = (held[metric][0] - alone[metric][0], held[metric][1] - alone[metric][1])
            narrow[f"{metric}: {base}{CONTROL} - {base}"] = interval(*apart)
    narrowed = (
        narrow["effective_items: clicks"]["high"] < 0
        and narrow[f"effective_items: clicks{CONTROL}"]["high"] > 0
        and narrow[f"effective_items: clicks{CONTROL} - clicks"]["low"] > 0
    )
    fresh = {
        "content - item_knn": minus("content", "item_knn", "fresh_shown"),
        "item_knn": interval(*drawn["item_knn"]["fresh_shown"]),
        "content": interval(*drawn["content"]["fresh_shown"]),
        "if all items were shown alike": fair_share(setting),
    }
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


def change(setting: Setting, logs: list[Any], boot: Bootstrap) -> Drawn:
    """Return the relative change of the diversity of pages, from the first to the last two weeks.

    `effective_items` is the effective number of different items shown. `effective_share` is this
    number divided by the number of items in the catalogue, which grows by half in two months.
    """
    start, end, span = setting.schedule.start, setting.end, 7 * WEEKS
    before, after = (
        diversity(setting, logs[first : first + span], boot) for first in (start, end - span)
    )
    items = [setting.world.items_on(first + span - 1) for first in (start, end - span)]
    out = {
        metric: (after[metric][0] / value - 1, after[metric][1] / drawn - 1)
        for metric, (value, drawn) in before.items()
    }
    value, drawn = out["effective_items"]
    grown = items[1] / items[0]
    return out | {"effective_share": ((value + 1) / grown - 1, (drawn + 1) / grown - 1)}


def fair_share(setting: Setting) -> dict[str, float]:
    """Return the mean number of new items per page if every item were shown equally often."""
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
