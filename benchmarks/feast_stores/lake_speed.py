"""Writes synthetic lakes (event stores) of any size and times featurize, for `bench features`.

Featurize is the step that computes the features of a lake's events.
"""

import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.feast_stores.online_speed import percentiles
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, USERS, check
from shortlist.feature_store import OnlineReader, Tail
from shortlist.features.finalize import context_id
from shortlist.lake import Manifest

START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
PER_USER = 50
NUM_ITEMS = 100_000
DAYS = 200


def write_lake(settings: Settings, *, events: int, users: int) -> None:
    """Write `events` view events by `users` users over the DAYS days before START, sorted by time.

    Item popularity is long-tailed.
    """
    _write(settings, "history", events=events, users=users, start=START - DAYS * DAY, days=DAYS)
    people = pa.table(
        [
            pa.array([f"user-{u:07d}" for u in range(users)]),
            pa.array([[("group", str(u % 5))] for u in range(users)], USERS.field(1).type),
            pa.nulls(users, USERS.field(2).type),
        ],
        schema=USERS,
    )
    pq.write_table(people, _snapshot(settings) / "users.parquet")
    items = pa.table(
        {
            "item_id": [f"item-{i:06d}" for i in range(NUM_ITEMS)],
            "available": [True] * NUM_ITEMS,
            "categories": pa.array([[]] * NUM_ITEMS, pa.list_(pa.string())),
        }
    )
    pq.write_table(check(items, ITEMS, where="bench"), _snapshot(settings) / "items.parquet")


def write_day(settings: Settings, *, events: int, users: int) -> None:
    """Add `events` events of the day that starts at START, by `users` users."""
    _write(settings, "day", events=events, users=users, start=START, days=1)


def _snapshot(settings: Settings) -> Path:
    """Return the folder of the lake's single snapshot; create it if it doesn't exist.

    Later writes change it in place, so that the lake's commits aren't measured.
    """
    folder = settings.lake / "snapshots" / "000001"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        (settings.lake / "current").symlink_to(Path("snapshots") / "000001")
    return folder


def _write(
    settings: Settings, name: str, *, events: int, users: int, start: int, days: int
) -> None:
    folder = _snapshot(settings)
    # Events cover whole days, so that each day's partition is written only once.
    moment = f"({start} + (i * {days * DAY}::HUGEINT // {events})::BIGINT)"
    given = {
        "event_id": f"printf('{name}-%d', i)",
        "user_id": f"printf('user-%07d', hash(i * 7 + 1) % {users})",
        "item_id": f"printf('item-%06d', floor({NUM_ITEMS} * pow("
        "hash(i * 3 + 2) / 1.8446744e19, 3))::BIGINT)",
        "event_type": "'view'",
        "event_timestamp": f"make_timestamptz({moment})",
        "event_order": "i",
        "ingested_at": f"make_timestamptz({moment} + 1)",
        "value": "(hash(i) % 5 + 1)::DOUBLE",
        "surface": "'home'",
        "device": "CASE WHEN i % 2 = 0 THEN 'phone' ELSE 'desktop' END",
        "source": "'bench'",
    }
    kinds = {pa.string(): "VARCHAR", pa.float64(): "DOUBLE", pa.int64(): "BIGINT"}
    columns = ", ".join(
        f"{given.get(field.name, 'NULL')}::{kinds.get(field.type, 'INTEGER')} AS {field.name}"
        if not pa.types.is_timestamp(field.type)
        else f"{given[field.name]} AS {field.name}"
        for field in INTERACTIONS
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT {columns}, strftime(event_timestamp, '%Y-%m-%d') AS event_day"
            f" FROM range({events}) AS r(i) ORDER BY i) TO '{folder / 'interactions'}'"
            f" (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (event_day), OVERWRITE_OR_IGNORE)"
        )
    parts = {}
    for path in sorted((folder / "interactions").glob("*/*.parquet")):
        part = parts.setdefault(path.parent.name.split("=")[1], {"files": []})
        part["files"].append(str(path.relative_to(folder)))
    Manifest(version=1, granularity="day", partitions=parts).write(folder)


def featurize_seconds(settings: Settings, *, until: int) -> dict[str, Any]:
    """Run featurize on all events before `until`; return its seconds, in total and by part."""
    from flows.featurize import featurize

    started = time.perf_counter()
    result = featurize(settings, ("view",), until=until)
    return {"together": round(time.perf_counter() - started, 2)} | result["seconds"]


def incremental(home: Path, *, events: int, day: int) -> dict[str, Any]:
    """Time featurize on a lake of `events` events, and again after one day of `day` more events.

    Then measure the latency of reads. The added day doesn't depend on the size of the lake: it has
    about five events for each of `day` / 5 users.
    """
    settings = Settings(home=home)
    users = events // PER_USER
    write_lake(settings, events=events, users=users)
    whole = featurize_seconds(settings, until=START)
    write_day(settings, events=day, users=day // 5)
    added = featurize_seconds(settings, until=START + DAY)
    return {
        "lake_events": events,
        "day_events": day,
        "whole_seconds": whole,
        "day_seconds": added,
        "whole_events_per_s": round(events / whole["together"]),
        "request": request_latency(settings, users=users),
    }


def request_latency(settings: Settings, *, users: int, reads: int = 5_000) -> dict[str, Any]:
    """Measure the latency of reading a request's features and of posting an event.

    A read returns the state, history, attributes and context of one user.
    """
    reader, tail = OnlineReader(settings), Tail.of(settings)
    rng = np.random.default_rng(0)
    at = START + DAY
    context = context_id(surface="home", device="phone", at=at)
    taken = []
    for number in rng.integers(users, size=reads + 50):
        started = time.perf_counter()
        reader.read([f"user-{number:07d}"], [context], np.array([at]))
        taken.append(time.perf_counter() - started)
    pushed = []
    for post, number in enumerate(rng.integers(users, size=300)):
        event = {
            "event_id": f"post-{post}",
            "user_id": f"user-{number:07d}",
            "item_id": "item-000001",
            "event_type": "rating",
            "event_timestamp": at + 1,
            "value": 1.0,
        }
        started = time.perf_counter()
        tail.insert([event])
        pushed.append(time.perf_counter() - started)
    return {"read": percentiles(taken[50:]), "push": percentiles(pushed)}
