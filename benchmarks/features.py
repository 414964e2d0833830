"""`shortlist bench features`: speed of Shortlist's feature stores, compared with Feast's own.

Both are used through Feast. In the figures, "own" are Shortlist's stores, "stock" are Feast's. Each
measurement runs in a separate process, so that its peak memory can be reported. `--quick` uses a
tenth of the rows. Redis is measured if `redis-server` is installed.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import duckdb

from benchmarks._result import about_machine, peak_gb, report
from benchmarks.feast_stores import lake_speed, online_speed
from benchmarks.feast_stores.redis_server import running_redis
from benchmarks.feast_stores.repository import (
    DAY,
    OWN,
    START,
    STOCK,
    make_store,
    quiet,
    refs,
    write_snapshots,
)

PARTS = ("materialize", "join", "big_join", "featurize")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", choices=PARTS, action="append", help="run only these parts")
    parser.add_argument("--quick", action="store_true", help="use a tenth of the rows")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    parts: dict[str, Callable[[Path, int], dict[str, Any]]] = {
        "materialize": online,
        "join": join,
        "big_join": big_join,
        "featurize": featurize,
    }
    command = "shortlist bench features" + (" --quick" if arguments.quick else "")
    result: dict[str, Any] = {
        "command": command + "".join(f" --only {part}" for part in arguments.only or ()),
        **about_machine(),
        "load_average_at_start": round(os.getloadavg()[0], 1),
    }
    for name in arguments.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            result |= parts[name](Path(folder), scale)
    report(result, arguments.out)


def online(folder: Path, scale: int) -> dict[str, Any]:
    """Measure materialize, reads, and reads and pushes during a materialize.

    Materialize copies features to the online store; a push writes one row. Compares Shortlist's
    online store, Feast's SQLite store and, if Redis is installed, Feast's Redis store.
    """
    rows, stock_rows = 200_000 // scale, 20_000 // scale
    with running_redis(folder / "redis") as redis:
        stores = {"own": (OWN, rows), "stock": (STOCK, stock_rows)}
        if redis:
            store_config = {"type": "redis", "connection_string": redis}
            stores["redis"] = (STOCK | {"online_store": store_config}, stock_rows)
        found: dict[str, dict[str, Any]] = {
            name: _in_process(_online, folder, store_config, name, n)[0]
            for name, (store_config, n) in stores.items()
        }
    ours = found["own"]
    return {
        "materialize_rows_per_s": {name: part["rows_per_s"] for name, part in found.items()},
        "online_p50_ms": {name: part["read"]["p50_ms"] for name, part in found.items()},
        "online_p99_ms": {name: part["read"]["p99_ms"] for name, part in found.items()},
        "materialize_over_stock": round(ours["rows_per_s"] / found["stock"]["rows_per_s"], 1),
        "while_materializing": {name: part["busy"] for name, part in found.items()},
        "redis": "measured" if redis else "left out: redis-server is not installed",
    }


def _online(folder: Path, stores: dict[str, Any], tag: str, rows: int) -> dict[str, Any]:
    rate = online_speed.materialize_rate(folder, stores, tag=tag, rows=rows)
    store = make_store(
        folder,
        folder / f"entities-{rows}.parquet",
        features=online_speed.FEATURES,
        stores=stores,
        tag=f"{tag}-all-{rows}",
    )
    return {
        "rows_per_s": round(rate),
        "read": online_speed.read_latency(store, users=rows, reads=5_000),
        "busy": online_speed.reads_and_pushes_during_materialize(
            folder, stores, tag=tag, rows=rows
        ),
    }


def join(folder: Path, scale: int) -> dict[str, Any]:
    """Time the point-in-time join of 1,000,000 requests with 11 features.

    Each user has 50 feature snapshots. The limit for comparison is the join in DuckDB alone.
    """
    rows, users = 1_000_000 // scale, 20_000 // scale
    _write_requests(folder, rows=rows, users=users, features=11)
    bare, _ = _in_process(_bare_asof, folder)
    ours, ours_gb = _in_process(_feast_join, folder, OWN, "own", 11, False)
    frame, _ = _in_process(_feast_join, folder, OWN, "frame", 11, True)
    stock, stock_gb = _in_process(_feast_join, folder, STOCK, "stock", 11, True)
    assert ours["rows"] == stock["rows"] == rows
    assert abs(ours["sum"] - stock["sum"]) < 1e-6 * abs(stock["sum"])
    return {
        "join_rows": rows,
        "join_seconds": {
            "bare_asof": bare["seconds"],
            "own": ours["seconds"],
            "own_from_frame": frame["seconds"],
            "stock": stock["seconds"],
        },
        "join_over_bare_asof": {
            name: round(part["seconds"] / bare["seconds"], 2)
            for name, part in (("own", ours), ("own_from_frame", frame), ("stock", stock))
        },
        "join_peak_gb": {"own": ours_gb, "stock": stock_gb},
    }


def big_join(folder: Path, scale: int) -> dict[str, Any]:
    """Time one point-in-time join of 10,000,000 requests with 20 features, by Shortlist's store.

    The requests come from Parquet; the result is an Arrow table.
    """
    rows, users = 10_000_000 // scale, 200_000 // scale
    _write_requests(folder, rows=rows, users=users, features=20)
    ours, peak_gb = _in_process(_feast_join, folder, OWN, "own", 20, False)
    assert ours["rows"] == rows
    return {
        "big_join_rows": rows,
        "big_join_features": 20,
        "big_join_seconds": ours["seconds"],
        "big_join_peak_gb": peak_gb,
    }


def featurize(folder: Path, scale: int) -> dict[str, Any]:
    """Time featurize (the computation of features) on lakes of 1 and 10 million events.

    Then time it again after 100,000 events were added to each.
    """
    sizes = (1_000_000 // scale, 10_000_000 // scale)
    lakes = []
    for events in sizes:
        lake, peak_gb = _in_process(_incremental, folder / str(events), events, 100_000 // scale)
        lakes.append(lake | {"peak_gb": peak_gb})
    small, large = (lake["day_seconds"]["together"] for lake in lakes)
    request = lakes[-1]["request"]
    return {
        "featurize": lakes,
        "featurize_day_large_over_small_lake": round(large / small, 2),
        "request_p50_ms": request["read"]["p50_ms"],
        "request_p99_ms": request["read"]["p99_ms"],
        "push_p50_ms": request["push"]["p50_ms"],
    }


def _incremental(home: Path, events: int, day: int) -> dict[str, Any]:
    return lake_speed.incremental(home, events=events, day=day)


def _write_requests(folder: Path, *, rows: int, users: int, features: int) -> None:
    write_snapshots(folder / "snapshots.parquet", users=users, per_user=50, features=features)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""COPY (
                SELECT printf('user-%07d', hash(i) % {users}) AS user_id,
                    make_timestamptz({START} + (hash(i + 1) % {50 * DAY})::BIGINT)
                        AS event_timestamp
                FROM range({rows}) AS r(i)
            ) TO '{folder / "requests.parquet"}' (FORMAT parquet)"""
        )


def _bare_asof(folder: Path) -> dict[str, Any]:
    """Time the join in DuckDB alone, from Parquet to Arrow; return the faster run's seconds."""
    taken = []
    for _ in range(2):
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            started = time.perf_counter()
            columns = ", ".join(f"s.f{i}" for i in range(11))
            connection.sql(
                f"SELECT r.*, {columns} FROM '{folder}/requests.parquet' r ASOF LEFT JOIN"
                f" '{folder}/snapshots.parquet' s ON r.user_id = s.user_id"
                " AND r.event_timestamp >= s.event_timestamp"
            ).to_arrow_table()
            taken.append(time.perf_counter() - started)
    return {"seconds": round(min(taken), 2)}


def _feast_join(
    folder: Path, stores: dict[str, Any], tag: str, features: int, as_frame: bool
) -> dict[str, Any]:
    """Time `get_historical_features(...).to_arrow()`.

    Feast's DuckDB store accepts only a data frame of requests. Shortlist's store also accepts SQL
    over a file, and training reads its data like that.

    Returns:
        Seconds of the best of two runs, number of rows, and sum of the column f0.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    store = make_store(
        folder, folder / "snapshots.parquet", features=features, stores=stores, tag=tag
    )
    requests: Any = f"SELECT * FROM '{folder / 'requests.parquet'}'"
    if as_frame:
        requests = pq.read_table(folder / "requests.parquet").to_pandas()
    taken = []
    with quiet():
        for _ in range(2):
            started = time.perf_counter()
            table = store.get_historical_features(requests, refs(features)).to_arrow()
            taken.append(time.perf_counter() - started)
            rows, total = table.num_rows, pc.sum(table.column("f0")).as_py()
            del table
    return {"seconds": round(min(taken), 2), "rows": rows, "sum": total}


def _in_process(
    work: Callable[..., dict[str, Any]], *arguments: Any
) -> tuple[dict[str, Any], float]:
    """Run `work` in a separate process; return its result and its peak memory in GB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work, arguments).result()


def _measured(work: Callable[..., dict[str, Any]], arguments: tuple) -> tuple[Any, float]:
    found = work(*arguments)
    return found, peak_gb()


if __name__ == "__main__":
    main()
