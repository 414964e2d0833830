"""`shortlist bench main_job`: run the whole pipeline once per seed, and compare with baselines.

Runs `shortlist run` as a separate process in an empty home (folder of a deployment), and times it.
Compares nDCG@10 of the chain, the whole recommender, with that of the best baseline, user by user.
The values of a user are averaged over seeds before users are resampled. The interval therefore
covers the sample of users, not the variation between seeds.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._result import about_machine, report
from shortlist.metrics import bootstrap_mean

KEPT = (
    "dataset",
    "n_requests",
    "n_users",
    "metrics",
    "chain_ahead",
    "slices",
    "gates",
    "fitted",
    "seconds",
    "peak_memory_gb",
)
"""Parts of a run's summary that go into the result file."""
BASELINES = ("ease", "ials", "item_knn", "popularity", "recent_popularity")
DRAWS = 2000
"""Number of bootstrap samples."""

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "movielens-100k.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--seeds", type=int, default=1, help="number of runs, seeds 0, 1, ...")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    summaries, seconds, users = [], [], []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            # The copy is in the same folder, because paths in a config are relative to its file.
            config = arguments.config.with_name(f".{arguments.config.stem}-{seed}.toml")
            config.write_text(with_seed(arguments.config.read_text(), seed))
            try:
                summary, spent = run(config, home=Path(folder) / "home")
            finally:
                config.unlink()
            table = f"home/runs/{summary['run_id']}/evaluation_users.parquet"
            users.append(pq.read_table(Path(folder) / table))
        summaries.append(summary)
        seconds.append(round(spent, 1))
    config = arguments.config
    if config == DEFAULT_CONFIG:
        # Use a relative path, so that the result doesn't contain folder names of this machine.
        config = config.relative_to(DEFAULT_CONFIG.parents[1])
    result = {
        "command": f"shortlist bench main_job --config {config} --seeds {arguments.seeds}",
        **about_machine(),
        **compare(users),
        "seconds": seconds,
        "peak_gb": [summary["peak_memory_gb"] for summary in summaries],
        "runs": [figures(summary) for summary in summaries],
    }
    report(result, arguments.out)


def with_seed(text: str, seed: int) -> str:
    """Return the TOML text with another seed. `seed` is a key before the first table."""
    top_level, bracket, tables = text.partition("\n[")
    top_level = re.sub(r"(?m)^seed\s*=.*\n?", "", top_level)
    return f"seed = {seed}\n{top_level}{bracket}{tables}"


def run(config: Path, *, home: Path) -> tuple[dict[str, Any], float]:
    """Run `shortlist run`; return its summary, and its wall-clock seconds including imports."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "run", str(config), "--json"],
        env=os.environ | {"SHORTLIST_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):  # 1: not promoted, a valid result
        raise SystemExit(done.returncode)
    return json.loads(done.stdout), seconds


def compare(users: list[pa.Table]) -> dict[str, Any]:
    """Return nDCG@10 of the chain with and without refit, and its lead over the best baseline.

    The refit fits the candidate sources again, on all events before the test window.

    Args:
        users: the `evaluation_users.parquet` of each seed's run.
    """
    seeds = [by_method(table) for table in users]

    def mean(method: str) -> float:
        return float(np.mean([np.mean(list(seed[method].values())) for seed in seeds]))

    present = [name for name in BASELINES if all(name in seed for seed in seeds)]
    best = max(present, key=mean)
    return {
        "lead_ndcg@10": over_seeds([difference(seed["chain"], seed[best]) for seed in seeds]),
        "chain_ndcg@10": over_seeds([seed["chain"] for seed in seeds]),
        "best_baseline": best,
        "without_refit": {"chain_ndcg@10": over_seeds([seed["without_refit"] for seed in seeds])},
    }


def by_method(table: pa.Table) -> dict[str, dict[str, float]]:
    """Return {method: {user: nDCG@10}} from an `evaluation_users.parquet`."""
    found: dict[str, dict[str, float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["method"], {})[row["user_id"]] = row["ndcg"]
    return found


def difference(of: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Return {user: `of` minus `other`}; both are evaluated on the same requests."""
    return {user: value - other[user] for user, value in of.items()}


def over_seeds(seeds: list[dict[str, float]]) -> dict[str, Any]:
    """Return the mean over users, its 95% interval, and the mean of each seed.

    A user's values are averaged over seeds before users are resampled.

    Args:
        seeds: {user: value} of each seed.
    """
    users = sorted(set().union(*seeds))
    values = [np.mean([seed[user] for seed in seeds if user in seed]) for user in users]
    rng = np.random.default_rng(0)
    interval = bootstrap_mean(users, np.array(values), rng=rng, draws=DRAWS)
    kept = {name: interval[name] for name in ("mean", "low", "high")}
    return kept | {"per_seed": [float(np.mean(list(seed.values()))) for seed in seeds]}


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a run's summary that go into the result file."""
    kept: dict[str, Any] = {key: summary[key] for key in KEPT}
    if "replay" in summary:
        replay = summary["replay"]
        kept["replay"] = {key: replay[key] for key in replay if key != "latency_ms"}
        monitor = summary["monitor"]
        kept["monitor"] = {key: monitor[key] for key in ("verdict", "guardrails", "figures")}
    return kept


if __name__ == "__main__":
    main()
