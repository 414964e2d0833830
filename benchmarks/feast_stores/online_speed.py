"""Speed of Feast's materialize and online reads with given stores, for `shortlist bench features`.

Materialize copies the newest features of all entities to the online store.
"""

import multiprocessing
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feast_stores.repository import START, make_store, quiet, refs, write_snapshots

FEATURES = 11
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = EPOCH + timedelta(microseconds=START + 400 * 86_400_000_000)


def materialize_rate(folder: Path, stores: dict[str, Any], *, tag: str, rows: int) -> float:
    """Return the entity rows per second that `materialize` writes into an empty store.

    A small untimed run comes first, because the first run includes imports.

    Args:
        folder: folder of the stores' files.
        stores: store settings, such as OWN and STOCK in repository.py.
        tag: name of the stores in folder names.
        rows: number of entities (users).
    """
    snapshots = folder / f"entities-{rows}.parquet"
    if not snapshots.exists():
        write_snapshots(snapshots, users=rows, per_user=1, features=FEATURES)
    warm = folder / "warm.parquet"
    if not warm.exists():
        write_snapshots(warm, users=100, per_user=1, features=FEATURES)
    for name, source in (("warm", warm), ("all", snapshots)):
        store = make_store(
            folder, source, features=FEATURES, stores=stores, tag=f"{tag}-{name}-{rows}"
        )
        started = time.perf_counter()
        with quiet():
            store.materialize(EPOCH, END)
        seconds = time.perf_counter() - started
    return rows / seconds


def read_latency(store: Any, *, users: int, reads: int, seconds: float = 3600) -> dict[str, Any]:
    """Measure the latency of `get_online_features` for one user; percentiles in milliseconds.

    Args:
        seconds: time limit; the measurement stops at `reads` reads or at this limit.
    """
    names = refs(FEATURES)
    rng = np.random.default_rng(0)
    taken = []
    for number in rng.integers(users, size=50):
        store.get_online_features(names, [{"user_id": f"user-{number:07d}"}]).to_dict()
    end = time.perf_counter() + seconds
    for number in rng.integers(users, size=reads):
        started = time.perf_counter()
        store.get_online_features(names, [{"user_id": f"user-{number:07d}"}]).to_dict()
        taken.append(time.perf_counter() - started)
        if started > end:
            break
    return percentiles(taken)


def percentiles(seconds: list[float]) -> dict[str, Any]:
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return {
        "n": len(seconds),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "max_ms": round(max(seconds) * 1e3, 1),
    }


def reads_and_pushes_during_materialize(
    folder: Path, stores: dict[str, Any], *, tag: str, rows: int
) -> dict[str, Any]:
    """Measure reads and one-row writes (pushes) while another process materializes `rows` entities.

    If a push fails, its error message replaces the percentiles of the pushes.
    """
    import pandas as pd

    snapshots = folder / f"entities-{rows}.parquet"
    if not snapshots.exists():
        write_snapshots(snapshots, users=rows, per_user=1, features=FEATURES)
    store = make_store(folder, snapshots, features=FEATURES, stores=stores, tag=f"{tag}-busy")
    worker = multiprocessing.get_context("spawn").Process(
        target=_materialize, args=(folder, snapshots, stores, f"{tag}-busy")
    )
    names = refs(FEATURES)
    row = {name.split(":")[1]: [1.0] for name in names} | {
        "user_id": ["pushed"],
        "event_timestamp": [pd.Timestamp(END)],
    }
    frame = pd.DataFrame(row)
    store.write_to_online_store("stats", frame)
    worker.start()
    reads, pushes = [], []
    while worker.is_alive():
        started = time.perf_counter()
        store.get_online_features(names, [{"user_id": "pushed"}]).to_dict()
        reads.append(time.perf_counter() - started)
        if len(reads) % 50 == 0:
            started = time.perf_counter()
            try:
                store.write_to_online_store("stats", frame)
            except Exception as error:  # e.g. "database is locked", which is a valid result
                return {"reads": percentiles(reads), "pushes": f"failed: {error}"}
            pushes.append(time.perf_counter() - started)
        time.sleep(0.002)
    worker.join()
    return {"reads": percentiles(reads), "pushes": percentiles(pushes) if pushes else None}


def _materialize(folder: Path, snapshots: Path, stores: dict[str, Any], tag: str) -> None:
    store = make_store(folder, snapshots, features=FEATURES, stores=stores, tag=tag)
    with quiet():
        store.materialize(EPOCH, END)
