"""`shortlist bench dataplane`: throughput of ingest, validation and featurize.

The log is that of a simulated world (preset `large`) with all event types, ids, texts and queries.
First it is written as Parquet files, which isn't measured. Then `ingest`, `validate` (with Great
Expectations) and `featurize` (which computes features) run in one process, whose peak memory is
reported. CPU seconds and the machine's load before the run are reported too, because other work on
the machine affects the times. `over_bare_copy` is the total time divided by that of a plain copy of
the same events by DuckDB alone: read, sort, write by day.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._result import about_machine, peak_gb, report
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS
from shortlist.datasets import DataConfig, stage_source

FILE_ROWS = 5_000_000
"""Number of events after which the log continues in a new file."""
STEPS = ("ingest", "validate", "featurize")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=float, required=True)
    parser.add_argument("--steps", default=",".join(STEPS), help="steps to run, in this order")
    parser.add_argument("--target", default="click", help="target event types, comma-separated")
    parser.add_argument("--own-ids", action="store_true", help="derive event ids from the content")
    parser.add_argument("--preset", default="large")
    parser.add_argument(
        "--bad", type=float, default=0.0, help="share of events with an unknown type (bad rows)"
    )
    parser.add_argument("--work", type=Path, help="folder for the files; default: a temporary one")
    parser.add_argument("--log", type=Path, help="existing log to read, written by --only-write")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    parser.add_argument("--only-write", type=Path, help="only write the log, to this folder")
    arguments = parser.parse_args()
    if arguments.only_write is not None:
        events, preset = int(arguments.events), arguments.preset
        write_log(arguments.only_write, events, preset=preset, bad=arguments.bad)
        return
    work = Path(tempfile.mkdtemp(dir=arguments.work, prefix="dataplane-"))
    try:
        result = measure(work, arguments)
    finally:
        shutil.rmtree(work)
    report(result, arguments.out)


def measure(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the log in a separate process, then time the steps in this process."""
    options = ["--events", str(int(arguments.events)), "--preset", arguments.preset]
    options += ["--bad", str(arguments.bad)]
    log = arguments.log or work / "log"
    if arguments.log is None:
        command = [sys.executable, "-m", "benchmarks.dataplane", *options, "--only-write", str(log)]
        subprocess.run(command, check=True)
    steps = arguments.steps.split(",")
    settings = Settings(home=work / "home")
    target = tuple(arguments.target.split(","))
    seconds, processor, result = {}, {}, {}
    load = round(os.getloadavg()[0], 1)
    for name, step in (("ingest", _ingest), ("validate", _validate), ("featurize", _featurize)):
        if name in steps:
            started, spent = time.perf_counter(), time.process_time()
            result |= step(settings, log, target, given=not arguments.own_ids, so_far=result)
            seconds[name] = round(time.perf_counter() - started, 2)
            processor[name] = round(time.process_time() - spent, 2)
            print(f"{name}: {seconds[name]} s, {peak_gb()} GB", file=sys.stderr)
    total = sum(seconds.values())
    extra = " --own-ids" if arguments.own_ids else ""
    extra += f" --bad {arguments.bad:g}" if arguments.bad else ""
    peak = peak_gb()
    bare = _bare_copy(log, work)
    return (
        about_machine()
        | {
            "command": f"shortlist bench dataplane --events {int(arguments.events)}"
            f" --steps {arguments.steps} --target {arguments.target}"
            f" --preset {arguments.preset}{extra}",
            "events": result["read"],
            "events_per_s": round(result["read"] / total),
            "peak_gb": peak,
            "bare_copy_seconds": round(bare, 2),
            "over_bare_copy": round(total / bare, 2),
            "seconds": seconds | {"together": round(total, 2)},
            "events_per_s_by_step": {
                name: round(result["read"] / each) for name, each in seconds.items()
            },
            "processor_seconds": processor | {"together": round(sum(processor.values()), 2)},
            "load_before": load,
            "source_gb": round(sum(f.stat().st_size for f in log.rglob("*.parquet")) / 1e9, 2),
            "lake_gb": round(
                sum(f.stat().st_size for f in (settings.lake / "current").rglob("*.parquet")) / 1e9,
                2,
            ),
        }
        | result
    )


def _bare_copy(log: Path, work: Path) -> float:
    """Return the seconds that DuckDB alone needs to read, sort and write the events by day."""
    import duckdb

    started = time.perf_counter()
    events = (log / "events" / "*.parquet").as_posix()
    with duckdb.connect() as con:
        con.execute("SET threads = 2")
        con.execute("SET memory_limit = '4GB'")
        con.execute(f"SET temp_directory = '{work / 'spill'}'")
        con.execute(
            f"COPY (SELECT *, CAST({c.EVENT_TIMESTAMP} AS DATE) AS day"
            f" FROM read_parquet('{events}')"
            f" ORDER BY {c.EVENT_TIMESTAMP}, {c.EVENT_ORDER}) TO '{work / 'bare'}'"
            " (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day))"
        )
    return time.perf_counter() - started


def write_log(folder: Path, events: int, *, preset: str, bad: float) -> None:
    """Write the first `events` events of the world as Parquet files, with its items and users.

    Args:
        bad: share of events that get an unknown event type. It is rounded, so that every n-th event
            gets one.
    """
    from simulation import SimulatedConfig, open_world, stream
    from simulation.tables import Publisher

    (folder / "events").mkdir(parents=True)
    world = open_world(SimulatedConfig(preset=preset))
    publisher = Publisher(world)
    pq.write_table(publisher.items(0, world.num_items), folder / "items.parquet")
    pq.write_table(publisher.users(0, world.num_users), folder / "users.parquet")
    tables = stream(world, ingested_at=0, publisher=publisher)
    left, number, writer, rows = events, 0, None, 0
    for table in tables:
        part = table.slice(0, left)
        if bad:
            part = _with_bad(part, every=round(1 / bad))
        if writer is None:
            path = folder / "events" / f"{number:04d}.parquet"
            writer = pq.ParquetWriter(path, INTERACTIONS, compression="zstd")
        writer.write_table(part)
        rows += part.num_rows
        left -= part.num_rows
        if rows >= FILE_ROWS or left == 0:
            writer.close()
            writer, rows, number = None, 0, number + 1
        if left == 0:
            return
    raise SystemExit(f"the world '{preset}' has only {events - left:,} events")


def _with_bad(table: pa.Table, *, every: int) -> pa.Table:
    column = table.schema.get_field_index(c.EVENT_TYPE)
    is_bad = pa.array([number % every == 0 for number in range(table.num_rows)])
    types = pc.if_else(is_bad, "stare", table.column(column))
    return table.set_column(column, table.schema.field(column), types)


def _ingest(
    settings: Settings, log: Path, target: tuple[str, ...], *, given: bool, so_far: dict[str, Any]
) -> dict[str, Any]:
    left_out = {c.EVENT_ORDER, c.INGESTED_AT, c.SOURCE} | (set() if given else {c.EVENT_ID})
    columns = {name: name for name in INTERACTIONS.names if name not in left_out}
    vectors = [n for n in pq.read_schema(log / "items.parquet").names if n.startswith("vector_")]
    items = (c.ITEM_ID, c.TITLE, c.DESCRIPTION, c.CATEGORIES, c.BRAND, c.PRICE, c.PUBLISHED_AT)
    config = DataConfig.model_validate(
        {
            "source": "files",
            "target_events": target,
            "files": {
                "interactions": {"path": str(log / "events"), "columns": columns},
                "items": {
                    "path": str(log / "items.parquet"),
                    "columns": {name: name for name in (*items, *vectors)},
                },
                "users": {
                    "path": str(log / "users.parquet"),
                    "columns": {c.USER_ID: c.USER_ID, c.CREATED_AT: c.CREATED_AT},
                },
            },
        }
    )
    batch = stage_source(config, settings, now=time.time_ns() // 1_000)
    return {"batch_id": batch.batch_id, "read": batch.read["interactions"]}


def _validate(
    settings: Settings, log: Path, target: tuple[str, ...], *, given: bool, so_far: dict[str, Any]
) -> dict[str, Any]:
    from flows.validate import ValidateConfig, validate_batch

    limits = ValidateConfig(failure_budget=0.1)
    result = validate_batch(settings, so_far["batch_id"], limits, clock="replay")
    kept = ("read", "accepted", "quarantined", "duplicates", "excluded", "applied", "warnings")
    return {name: result[name] for name in kept}


def _featurize(
    settings: Settings, log: Path, target: tuple[str, ...], *, given: bool, so_far: dict[str, Any]
) -> dict[str, Any]:
    from flows.featurize import featurize
    from shortlist.lake import Lake

    newest = Lake(settings.lake).manifest.latest
    assert newest is not None, "there are events"
    done = featurize(settings, target, until=newest + 1)
    return {"feature_rows": done["rows"], "featurize_seconds": done["seconds"]}


if __name__ == "__main__":
    pa.set_cpu_count(2)
    main()
