"""`shortlist bench rollout`: is a release that learns every day as good as one trained in full?

Policies: `stale` keeps the first release, `incremental` continues its last release every day, and
`full` trains everything every few days. All start from the same full training, and every release is
judged on the requests of the next day, as it would serve. Data sets: `shop`, the last 28 days of
the simulated shop; `latest-small`, the newest 20% of MovieLens latest-small in 8 slices.

It is resumable: a day of a policy that is finished in the folder --work is not repeated, so it can
be run in pieces (--until). Seconds are those of the step `train`, of a full training without the
baselines of its evaluation, which would make the share of increments smaller. Every increment
serves, whatever the gates say; --gates reports which would have been refused.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, report
from benchmarks.rolling.days import Days, LatestSmall, Shop
from benchmarks.rolling.policies import (
    FULL,
    INCREMENTAL,
    STALE,
    K,
    Policy,
    judge_release,
    prepare_day,
    train_policy,
)
from shortlist.config import Settings
from shortlist.files.plain_json import write_json
from shortlist.metrics import bootstrap_mean

FULL_EVERY = {"shop": 7, "latest-small": 2}
DATASETS = tuple(FULL_EVERY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", default="shop,latest-small")
    parser.add_argument("--work", type=Path, required=True, help="folder of homes and figures")
    parser.add_argument("--sources", default="", help="train only these source types")
    parser.add_argument("--rankers", default="", help="train only these ranker types")
    parser.add_argument("--full-every", type=int, help="days between two full trainings")
    parser.add_argument("--days", type=int, default=28, help="simulated days of the shop")
    parser.add_argument("--preset", default="shop", help="preset of the simulated shop")
    parser.add_argument("--until", type=int, help="stop after this many days; run again for more")
    parser.add_argument("--skip", type=int, default=0, help="leave first days out of the means")
    parser.add_argument("--gates", action="store_true", help="also judge increments by the gates")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        help="further incremental policy, such as epochs=1,learning_rate=0.3,replay=2",
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    settings = {
        "sources": [name for name in arguments.sources.split(",") if name],
        "rankers": [name for name in arguments.rankers.split(",") if name],
    }
    result: dict[str, Any] = {"command": command_line("rollout"), **about_machine()}
    for name in arguments.datasets.split(","):
        if name not in DATASETS:
            parser.error(f"unknown data set '{name}', want {' or '.join(DATASETS)}")
        folder = arguments.work.resolve() / name
        (folder / "home").mkdir(parents=True, exist_ok=True)
        os.environ |= {
            "SHORTLIST_HOME": str(folder / "home"),
            "PREFECT_HOME": str(folder / "home/prefect"),
        }
        data: Days = (
            Shop(settings, arguments.days, arguments.preset)
            if name == "shop"
            else LatestSmall(settings, folder / "data")
        )
        every = arguments.full_every or FULL_EVERY[name]
        policies = [
            Policy(STALE, None),
            Policy(FULL, every),
            Policy(INCREMENTAL, 1, {}),
            *(Policy(text, 1, as_changes(text)) for text in arguments.variant),
        ]
        roll_out(folder, data, policies, until=arguments.until, gated=arguments.gates)
        shown = arguments.preset if name == "shop" else name
        result[shown] = summary(folder, data, policies, skip=arguments.skip)
        report(result, arguments.out)


def as_changes(text: str) -> dict[str, Any]:
    """Parse "epochs=1,replay=2" into changes of `Increment`'s defaults."""
    pairs = (part.split("=") for part in text.split(","))
    return {name: int(value) if name == "epochs" else float(value) for name, value in pairs}


def roll_out(
    folder: Path, data: Days, policies: list[Policy], *, until: int | None, gated: bool
) -> None:
    """Train and judge all policies on all days that are not finished yet."""
    settings = Settings()
    releases = read_json(folder / "releases.json")
    days = list(data.days)
    for number, day in enumerate(days[:until]):
        prepare_day(settings, data.config(day), folder / "days" / str(day))
        for policy in policies:
            file = folder / "trained" / policy.name / f"{number}.json"
            if file.is_file():
                releases[policy.name] = read_json(file)["release_id"]
                continue
            config = data.config(day)
            if (folder / "days" / str(day + 1)).is_file():
                raise SystemExit(
                    f"{folder}: the lake is already beyond day {number}, so {policy.name} can't be"
                    " trained on it; want another --work"
                )
            if number == 0:
                first = folder / "trained" / "first.json"
                if not first.is_file():
                    content = vars(
                        train_policy(settings, Policy(FULL, 1), config, None, gated=False)
                    )
                    write_json_in(first, content)
                write_json_in(file, read_json(first))
            elif policy.trains_on(number):
                base = None if policy.increment is None else releases[policy.name]
                done = train_policy(settings, policy, config, base, gated=gated)
                write_json_in(file, vars(done))
            else:
                write_json_in(file, {"release_id": releases[policy.name]})
            releases[policy.name] = read_json(file)["release_id"]
        write_json(folder / "releases.json", releases)
        prepare_day(settings, data.config(day + 1), folder / "days" / str(day + 1))
        judged: dict[str, dict[str, float]] = {}  # release -> its figures of the day
        for policy in policies:
            file = folder / "judged" / policy.name / f"{number}.json"
            if not file.is_file():
                users = judged.get(releases[policy.name]) or judge_release(
                    settings, releases[policy.name], data.config(day + 1), data.window(day)
                )
                write_json_in(file, users)
            users = judged[releases[policy.name]] = read_json(file)
            print(f"day {number}: {policy.name} nDCG@{K} {mean(users.values()):.4f}", flush=True)


def summary(folder: Path, data: Days, policies: list[Policy], *, skip: int) -> dict[str, Any]:
    """Return the figures of a data set: means over the days with a full training, and by day.

    Args:
        skip: number of first days that are left out, because settings were chosen on them.
    """
    finished = [
        number
        for number in range(max(skip, 1), len(data.days))
        if all((folder / "judged" / p.name / f"{number}.json").is_file() for p in policies)
    ]
    trained = {
        policy.name: {
            number: read_json(folder / "trained" / policy.name / f"{number}.json")
            for number in finished
        }
        for policy in policies
    }
    judged = {
        policy.name: {
            number: read_json(folder / "judged" / policy.name / f"{number}.json")
            for number in finished
        }
        for policy in policies
    }
    full_days = [number for number in finished if "seconds" in trained[FULL][number]]
    out: dict[str, Any] = {"full_days": full_days, "days": finished}
    for name in judged:
        out[name] = {
            f"ndcg@{K}": mean([mean(judged[name][n].values()) for n in full_days]),
            "seconds": mean([trained[name][n].get("seconds", 0) for n in full_days]),
            "cpu_seconds": mean([trained[name][n].get("cpu_seconds", 0) for n in full_days]),
            f"ndcg@{K}_all_days": mean([mean(judged[name][n].values()) for n in finished]),
            "by_day": {n: round(mean(judged[name][n].values()), 4) for n in finished},
            "refused": {
                n: trained[name][n]["gates"] for n in finished if trained[name][n].get("gates")
            },
        }
    full = out[FULL]
    for name in judged:
        if name in (STALE, FULL):
            continue
        of = out[name]
        key = f"{INCREMENTAL}_over_full" if name == INCREMENTAL else f"{name} over full"
        out[key] = {
            "ndcg": ratio(of[f"ndcg@{K}"], full[f"ndcg@{K}"]),
            "seconds": ratio(of["seconds"], full["seconds"]),
            "cpu_seconds": ratio(of["cpu_seconds"], full["cpu_seconds"]),
            "difference": paired(judged[name], judged[FULL], full_days),
            "over_stale": paired(judged[name], judged[STALE], finished),
        }
    return out


def paired(
    one: dict[int, dict[str, float]], other: dict[int, dict[str, float]], days: list[int]
) -> dict[str, float] | None:
    """Return the mean difference of nDCG with a 95% interval over users; None without days."""
    users = [user for day in days for user in one[day]]
    values = np.array([one[day][user] - other[day][user] for day in days for user in one[day]])
    if not users:
        return None
    return bootstrap_mean(users, values, rng=np.random.default_rng(0), draws=2_000)


def mean(values: Any) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


def ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json_in(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


if __name__ == "__main__":
    main()
