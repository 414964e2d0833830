"""Shortlist's SQLite online store: equal to Feast's store, except that a TTL also holds online."""

import contextlib
import math
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)

from benchmarks.feast_stores.repository import OWN, STOCK, quiet, store_of
from shortlist.feature_store.online import tables as online_tables
from shortlist.feature_store.online.keys import entity_keys
from shortlist.feature_store.online.store import WideSqliteOnlineStore
from shortlist.feature_store.online.tables import Transaction

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
MOMENT = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "f64": (Float64, [1.5, float("nan"), 0.0, None, 1e300]),
    "f32": (Float32, [1.5, float("inf"), 2.0, None, 0.0]),
    "i64": (Int64, [2**62, -1, 0, None, 5]),
    "i32": (Int32, [7, -7, 0, None, 1]),
    "flag": (Bool, [True, False, True, None, False]),
    "text": (String, ["x", "", "ünï\n'\"", None, "00196"]),
    "raw": (Bytes, [b"\x00\xff", b"", b"a", None, b"b"]),
    "when": (UnixTimestamp, [MOMENT, MOMENT, MOMENT, None, MOMENT]),
    "f64s": (Array(Float64), [[1.0, float("nan")], [2.0], [0.0], None, [3.0]]),
    "i64s": (Array(Int64), [[2**62, -1], [0], [1], None, [2]]),
    "texts": (Array(String), [["a", "ü"], [""], ["b"], None, ["c"]]),
    "flags": (Array(Bool), [[True], [False], [True], None, [False]]),
}


def make_store(folder: Path, stores: dict[str, Any], *, ttl: timedelta = timedelta(0)) -> Any:
    if stores is OWN:
        stores = stores | {"online_store": stores["online_store"] | {"clock": "replay"}}
    schema = {name: dtype for name, (dtype, _) in VALUES.items()}
    rows = folder.parent / "rows.parquet"
    return store_of(folder, rows, schema=schema, stores=stores, view="all", ttl=ttl)


def key(user: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])


def rows_to_push() -> list[Any]:
    columns = {
        name: python_values_to_proto_values(values, dtype.to_value_type())
        for name, (dtype, values) in VALUES.items()
    }
    return [
        (key(f"u{i}"), {name: values[i] for name, values in columns.items()}, MOMENT, None)
        for i in range(5)
    ]


def plain(answer: list[Any]) -> list[Any]:
    """Convert rows to strings, so that NaN equals NaN."""
    return [(stamp, values and {k: str(v) for k, v in values.items()}) for stamp, values in answer]


def test_pushed_rows_come_back_as_from_feasts_own_store(tmp_path: Path) -> None:
    answers = []
    keys = [key(user) for user in ("u3", "u0", "nobody", "u1", "u2", "u4", "u0")]
    for tag, stores, kind in (
        ("own", OWN, WideSqliteOnlineStore),
        ("stock", STOCK, SqliteOnlineStore),
    ):
        store = make_store(tmp_path / tag, stores)
        view, online = store.get_feature_view("all"), kind()
        online.online_write_batch(store.config, view, rows_to_push(), None)
        online.online_write_batch(store.config, view, rows_to_push()[:2], None)  # replaces the rows
        answers.append(plain(online.online_read(store.config, view, keys)))
    assert answers[0] == answers[1]
    assert answers[0][2] == (None, None)
    one = WideSqliteOnlineStore()
    store = make_store(tmp_path / "some", OWN)
    view = store.get_feature_view("all")
    one.online_write_batch(store.config, view, rows_to_push(), None)
    ((stamp, values),) = one.online_read(store.config, view, [key("u0")], ["i64", "text"])
    assert (stamp, {k: str(v) for k, v in values.items()}) == (
        MOMENT,
        {"i64": f"int64_val: {2**62}\n", "text": 'string_val: "x"\n'},
    )


def write_rows(path: Path, stamps: list[datetime]) -> None:
    types = {"f32": pa.float32(), "i32": pa.int32(), "when": pa.timestamp("us", tz="UTC")}
    columns = {
        name: pa.array(values[: len(stamps)], types.get(name))
        for name, (_, values) in VALUES.items()
    }
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{i}" for i in range(len(stamps))],
                "event_timestamp": pa.array(stamps, pa.timestamp("us", tz="UTC")),
            }
            | columns
        ),
        path,
    )


def test_a_materialize_writes_what_feasts_own_engine_writes(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [NOW - timedelta(hours=i) for i in range(5)])
    names = [f"all:{name}" for name in VALUES]
    users = [{"user_id": f"u{i}"} for i in (4, 0, 1, 2, 3, 9)]
    answers = []
    for tag, stores in (("own", OWN), ("stock", STOCK)):
        store = make_store(tmp_path / tag, stores)
        with quiet():
            store.materialize(NOW - timedelta(hours=3, minutes=30), NOW)
        answers.append(store.get_online_features(names, users).to_dict())
    # Feast's engine uses pandas, which doesn't distinguish NaN from null.
    assert (math.isnan(answers[0]["f64"][2]), answers[1]["f64"][2]) == (True, None)
    answers[1]["f64"][2] = float("nan")
    assert repr(answers[0]) == repr(answers[1])
    # The row of u4 is older than the materialized interval.
    assert answers[0]["text"] == [None, "x", "", "ünï\n'\"", None, None]


@pytest.mark.parametrize("hours", [23, 24, 25])
def test_ttl_is_the_same_offline_and_online(tmp_path: Path, hours: int) -> None:
    write_rows(tmp_path / "rows.parquet", [NOW - timedelta(hours=hours)])
    found = {}
    for tag, stores in (("own", OWN), ("stock", STOCK)):
        store = make_store(tmp_path / tag, stores, ttl=timedelta(days=1))
        with quiet():
            store.materialize(NOW - timedelta(days=9), NOW)
            requests = pd.DataFrame({"user_id": ["u0"], "event_timestamp": [pd.Timestamp(NOW)]})
            table = store.get_historical_features(requests, ["all:i64"]).to_arrow()
        online = store.get_online_features(["all:i64"], [{"user_id": "u0"}]).to_dict()
        found[tag] = (table.column("i64").to_pylist(), online["i64"])
    alive = [2**62] if hours <= 24 else [None]
    assert found["own"] == (alive, alive)
    # Feast applies a TTL only offline; its online store returns expired values.
    assert found["stock"] == (alive, [2**62])


def test_apply_makes_a_table_anew_when_its_columns_change(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [NOW])
    store = make_store(tmp_path / "own", OWN)
    with quiet():
        store.materialize(NOW - timedelta(days=1), NOW)
    online, view = WideSqliteOnlineStore(), store.get_feature_view("all")
    assert online.is_marked(store.config, ["all"])
    assert len(online.keys(store.config, view)) == 1
    online.update(store.config, [], [view], [], [], False)
    assert len(online.keys(store.config, view)) == 1  # same columns, so rows are kept
    view.features = view.features[1:]
    online.update(store.config, [], [view], [], [], False)
    assert online.keys(store.config, view) == []
    assert not online.is_marked(store.config, ["all"])
    online.update(store.config, [view], [], [], [], False)
    online.teardown(store.config, [], [])
    assert not list((tmp_path / "own").glob("online.db*"))


def test_threads_read_and_push_at_once(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", [NOW])
    store = make_store(tmp_path / "own", OWN)
    online, view = WideSqliteOnlineStore(), store.get_feature_view("all")
    failed = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                online.online_write_batch(store.config, view, rows_to_push(), None)
                rows = online.online_read(store.config, view, [key("u0"), key("u4")])
                assert all(stamp == MOMENT for stamp, _ in rows)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(online.keys(store.config, view)) == 5


class Batches:
    """Stand-in for the module `time`, with a simulated materialize that writes batches.

    Time advances only by `sleep`. Each batch holds the lock of the database for 30 ms. The lock is
    free for 1 ms between two batches.
    """

    HELD, FREE = 0.030, 0.001

    def __init__(self, writer: sqlite3.Connection, *, now: float):
        self.writer, self.now = writer, now
        writer.execute("BEGIN IMMEDIATE")

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        held = self.now % (self.HELD + self.FREE) < self.HELD
        if held != self.writer.in_transaction:
            self.writer.execute("BEGIN IMMEDIATE" if held else "COMMIT")


@pytest.mark.parametrize("now", [0.0, 0.0113, 0.0299])
def test_a_push_takes_the_first_gap_between_the_batches_of_a_materialize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """SQLite's busy handler would try after 1, 3, 8, 18, 33 and 53 ms, and miss these gaps."""
    path = tmp_path / "online.db"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        batches = Batches(writer, now=now)
        monkeypatch.setattr(online_tables, "time", batches)
        with Transaction(connection):
            assert connection.in_transaction
            assert Batches.HELD <= batches.now < Batches.HELD + Batches.FREE


def test_a_lock_that_is_never_free_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_tables, "WAIT_SECONDS", 0.05)
    path = tmp_path / "online.db"
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        Transaction(one),
    ):
        with pytest.raises(sqlite3.OperationalError, match="locked"), Transaction(other):
            pass
        assert other.execute("PRAGMA busy_timeout").fetchone() == (50,)


def test_keys_are_serialized_as_feast_does() -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key

    for user in ("", "u", "ünïcode|x", "0" * 300):
        (mine,) = entity_keys("user_id", [user])
        assert mine == serialize_entity_key(key(user), entity_key_serialization_version=3)
