"""`shortlist bench simulated_world`: speed and memory of generating a simulated world.

The measured time includes user states, slates with propensities, user actions, and Arrow tables
with all ids, texts and queries. Nothing is written to disk.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks._result import about_machine, peak_gb, report
from shortlist.columns import EVENT_TYPE
from simulation import SimulatedConfig, open_world, stream
from simulation.tables import Publisher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="large")
    parser.add_argument("--impressions", type=float, default=10e6, help="stop after this many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    result = about_machine() | {
        "command": f"shortlist bench simulated_world --preset {arguments.preset}"
        f" --impressions {arguments.impressions:.0f} --threads {arguments.threads}",
        **generate(arguments.preset, arguments.impressions, threads=arguments.threads),
    }
    report(result, arguments.out)


def generate(preset: str, impressions: float, *, threads: int) -> dict[str, Any]:
    """Generate a preset's log until it has `impressions` impressions or ends; return the speed."""
    started = time.perf_counter()
    world = open_world(SimulatedConfig(preset=preset))
    publisher = Publisher(world)
    ready = time.perf_counter()
    counts: Counter[str] = Counter()
    largest = 0
    for table in stream(world, ingested_at=0, threads=threads, publisher=publisher):
        largest = max(largest, table.nbytes)
        kinds = pc.value_counts(table.column(EVENT_TYPE).combine_chunks())
        counts.update({row["values"]: row["counts"] for row in kinds.to_pylist()})
        if counts["impression"] >= impressions:
            break
    seconds = time.perf_counter() - ready
    return {
        "users": world.num_users,
        "items": world.num_items,
        "world_seconds": round(ready - started, 2),
        "seconds": round(seconds, 2),
        "impressions": counts["impression"],
        "events": counts.total(),
        "impressions_per_second": round(counts["impression"] / seconds),
        "events_per_second": round(counts.total() / seconds),
        "largest_table_mb": round(largest / 1e6, 1),
        "arrow_peak_mb": round(pa.default_memory_pool().max_memory() / 1e6, 1),
        "peak_memory_gb": peak_gb(),
        "by_type": dict(counts.most_common()),
    }


if __name__ == "__main__":
    main()
