"""`shortlist bench cold_start`: how well new items and new users are served.

    shortlist bench cold_start --dataset ml-1m --path DIR --out FILE.json

Hides 10% of the items from training: they are in no catalogue, history or count. Then they are
added as `POST /items` adds them, and all methods rank the full catalogue. `chain` is asked through
`Recommender.recommend`, as in the service. `chain_without_quota` is the same chain without
positions for new items. Users with few events are the same requests with histories cut to the last
0, 1, 3 or 5 events; the items that they had before stay excluded for every method.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._result import about_machine, command_line, peak_gb, report
from benchmarks.cold.figures import (
    RECALL,
    figures_of,
    first_values,
    over_seeds,
    paired,
    warm_values,
)
from benchmarks.cold.judge import CUTS, FULL, rank_all
from benchmarks.cold.log import DATASETS, Log, hidden_items, load_log
from benchmarks.cold.training import CHAIN, SOURCES, WITHOUT, fit_chain
from models.training import TrainingOptions
from shortlist.config import ConfigError, Settings
from shortlist.datasets import DatasetError
from shortlist.files.plain_json import write_json

MAX_USERS = 3000
SHARE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument("--path", type=Path, help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--users", type=int, default=MAX_USERS, help="maximum of tested users")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    try:
        result = run(arguments)
    except (ConfigError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    report(result, arguments.out)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and judge once per seed; return the content of the result file."""
    log = load_log(arguments.dataset, arguments.path)
    started = time.perf_counter()
    result: dict[str, Any] = {}
    seeds: list[Seed] = []
    for seed in range(arguments.seeds):
        seeds.append(run_seed(log, seed, users=arguments.users))
        result = summary(log, seeds, seconds=time.perf_counter() - started)
        if arguments.out is not None and seed + 1 < arguments.seeds:
            write_json(arguments.out, result)  # what is done so far, in case of an interruption
    return result


@dataclass
class Seed:
    """Figures of one seed, and the values of each user for paired comparisons."""

    figures: dict[str, Any]
    chosen: dict[str, Any]
    requests: int
    warm: dict[str, dict[str, float]]
    """{chain: {user: nDCG@10 on warm items}}."""
    no_history: dict[str, dict[str, float]]
    """{method: {user: nDCG@10 without a history}}."""


def run_seed(log: Log, seed: int, *, users: int) -> Seed:
    """Hide items, train, and rank the requests of the test window."""
    options = TrainingOptions(seed=seed, num_threads=1, cache=Settings().cache)
    hidden = hidden_items(log, share=SHARE, rng=options.rng("hidden items"))
    fitted = fit_chain(log, hidden, options)
    print(f"seed {seed}: trained", file=sys.stderr)
    lists = rank_all(log, fitted, options, most=users)
    print(f"seed {seed}: judged", file=sys.stderr)
    methods = [method for name, method in lists.of if name == FULL]
    return Seed(
        figures=figures_of(lists, hidden, methods),
        chosen=fitted.chosen,
        requests=len(lists.requests),
        warm={name: warm_values(lists, hidden, name) for name in (CHAIN, WITHOUT)},
        no_history={
            name: first_values(lists, name, str(CUTS[0]))
            for name in (CHAIN, "recent_popularity")
            if name in methods
        },
    )


def summary(log: Log, seeds: list[Seed], *, seconds: float) -> dict[str, Any]:
    """Return the content of the result file: means over seeds, ratios and paired intervals."""
    mean = over_seeds([seed.figures for seed in seeds])
    cold, new = mean["cold"][RECALL], mean["new_users"]
    return {
        "command": command_line("cold_start"),
        **about_machine(),
        "data": {
            "dataset": log.name,
            "events": len(log.events.user),
            "users": len(log.user_ids),
            "items": log.items.num_rows,
            "requests": [seed.requests for seed in seeds],
            "seeds": len(seeds),
            "sources": SOURCES[log.name],
        },
        "chosen_on_validation": [seed.chosen for seed in seeds],
        **{part: mean[part] for part in ("cold", "warm", "all", "new_users", "first_visits")},
        "impressions": mean["impressions"],
        "impression_share_over_relevance_share": {
            name: each["ratio"] for name, each in mean["impressions"].items()
        },
        "cold_recall_chain_over": {
            name: round(cold[CHAIN]["mean"] / max(cold[name]["mean"], 1e-9), 3)
            for name in ("random", "content_knn")
        },
        "three_events_over_full": round(new["3"][CHAIN]["mean"] / new[FULL][CHAIN]["mean"], 3),
        "warm_ndcg@10_chain_over_without_quota": paired(
            [seed.warm[CHAIN] for seed in seeds], [seed.warm[WITHOUT] for seed in seeds]
        ),
        "no_history_chain_over_recent_popularity": paired(
            [seed.no_history[CHAIN] for seed in seeds],
            [seed.no_history["recent_popularity"] for seed in seeds],
        )
        if log.has_time
        else None,
        "seconds": round(seconds, 1),
        "peak_gb": peak_gb(),
    }


if __name__ == "__main__":
    main()
