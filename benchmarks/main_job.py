"""`shortlist bench main_job`: the whole pipeline on a fresh home, and what it reached.

Runs `shortlist run CONFIG` as a process of its own, measures it from outside, and keeps of its
summary what a result file should hold: quality with intervals, by how much the chain is ahead of
each method on the same requests, slices, gates, guardrails, seconds by step, peak memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._result import about_machine, report

KEPT = (
    "dataset",
    "n_requests",
    "n_users",
    "metrics",
    "chain_ahead",
    "slices",
    "gates",
    "seconds",
    "peak_memory_gb",
)

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "movielens-100k.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        summary, seconds = run(arguments.config, home=Path(home))
    config = arguments.config
    if config == DEFAULT_CONFIG:
        config = config.relative_to(DEFAULT_CONFIG.parents[1])  # a result names no one's folders
    result = {
        "command": f"shortlist bench main_job --config {config}",
        **about_machine(),
        "seconds_wall": round(seconds, 1),
        **figures(summary),
    }
    report(result, arguments.out)


def run(config: Path, *, home: Path) -> tuple[dict[str, Any], float]:
    """The run's summary, and its seconds from start to end, imports included."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(config), "--json"],
        env=os.environ | {"SHORTLIST_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):  # 1: not promoted, which is a result too
        raise SystemExit(done.returncode)
    return json.loads(done.stdout), seconds


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What a result file keeps of a run's summary."""
    kept: dict[str, Any] = {key: summary[key] for key in KEPT}
    if "replay" in summary:
        replay = summary["replay"]
        kept["replay"] = {key: replay[key] for key in replay if key != "latency_ms"}
        monitor = summary["monitor"]
        kept["monitor"] = {key: monitor[key] for key in ("verdict", "guardrails", "figures")}
    return kept


if __name__ == "__main__":
    main()
