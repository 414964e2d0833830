"""A Feast online store on SQLite: one row per entity, one native column per feature.

Rows are written in two ways: a materialize copies states from the offline store, and a push writes
single rows (`FeatureStore.push`). Feast's own SQLite store keeps one row per *value* and writes a
batch in one transaction. With 11 features that gives 2,700 to 4,700 entities per second, and pushes
wait meanwhile. This store needs one INSERT per entity and uses short transactions; write-ahead
logging keeps readers unblocked.
Feast loads this class by its name in `feature_store.yaml`.

Column types: Float* REAL (NaN as the blob 'nan', -0.0 as 0.0); Int*, Bool, UnixTimestamp INTEGER;
String TEXT; lists of Float64 and Int64 as little-endian arrays; lists of String as JSON; all other
types as Feast's protobuf.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from feast.entity import Entity
from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from shortlist.feature_store.online.columns import column_of
from shortlist.feature_store.online.keys import entity_keys
from shortlist.feature_store.online.tables import (
    Transaction,
    batches,
    connect,
    make_table,
    oldest_stamp,
    read_rows,
    table_of,
)

BATCH = 500
"""Rows per transaction. A transaction takes about 4 ms; then a waiting push can proceed."""
EPOCH = datetime.fromtimestamp(0, UTC)

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]


class WideSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """Configuration class; Feast finds it by the store's name plus `Config`."""

    type: Literal["shortlist.feature_store.online.store.WideSqliteOnlineStore"] = (
        "shortlist.feature_store.online.store.WideSqliteOnlineStore"
    )
    path: str
    clock: Literal["wall", "replay"] = "wall"
    """Reference time of a view's TTL. wall: the machine's time; replay: the end of the last
    materialize.
    """


class WideSqliteOnlineStore(OnlineStore):
    """Feast online store with one SQLite connection per thread.

    `synchronous = NORMAL` waits for the disk only at checkpoints. A power failure can lose the last
    writes but does not corrupt the file. Events that were posted to the service are not lost: they
    are durable in the inbox.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._columns: dict[str, dict[str, Any]] = {}

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows given as protobufs, by Feast's materialize and push sources."""
        columns = self._columns_of(table)
        rows = [
            (
                serialize_entity_key(key, entity_key_serialization_version=3),
                _microseconds(stamp),
                None if created is None else _microseconds(created),
                *(column.of_proto(values.get(name)) for name, column in columns.items()),
            )
            for key, values, stamp, created in data
        ]
        self._upsert(config, table, rows, progress)

    def write_arrow(
        self,
        config: RepoConfig,
        table: FeatureView,
        rows: pa.Table,
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        """Write rows of a materialize without protobufs; called by engine.py.

        Args:
            rows: the join key (a single string column), features, `event_timestamp`.
        """
        (key,) = [column.name for column in table.entity_columns]
        columns = self._columns_of(table)
        for start in range(0, rows.num_rows, BATCH):
            part = rows.slice(start, BATCH)
            stamps = part.column("event_timestamp").cast(pa.timestamp("us")).cast(pa.int64())
            n = part.num_rows
            values = [column.of_arrow(part.column(name)) for name, column in columns.items()]
            keys = entity_keys(key, part.column(key).to_pylist())
            stored = zip(keys, stamps.to_pylist(), [None] * n, *values, strict=True)
            self._upsert(config, table, list(stored), progress)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """Return (time of the row, values) for each key, the result that Feast requires.

        Unknown keys give (None, None).

        A row older than the view's TTL counts as unknown, as in a point-in-time join. Feast's own
        stores apply the TTL only offline.
        """
        keys = [
            serialize_entity_key(key, entity_key_serialization_version=3) for key in entity_keys
        ]
        names = self._requested(table, requested_features)
        columns = self._columns_of(table)
        readers = [columns[name].to_proto for name in names]
        rows = self._read(config, table, keys, names)
        found: list[Read] = []
        for row in rows:
            if row is None:
                found.append((None, None))
                continue
            values = {
                name: read(value) for name, read, value in zip(names, readers, row[1:], strict=True)
            }
            found.append((EPOCH + timedelta(microseconds=row[0]), values))
        return found

    def _read(
        self, config: RepoConfig, table: FeatureView, keys: Sequence[bytes], names: Sequence[str]
    ) -> list[tuple[Any, ...] | None]:
        """Read (stamp in microseconds, *stored values) for each serialized key; None if unknown."""
        connection = self._connection(config)
        ttl = (table.ttl or timedelta(0)) // timedelta(microseconds=1)
        since = oldest_stamp(connection, table.name, ttl=ttl, clock=_config(config).clock)
        return read_rows(connection, f"{config.project}_{table.name}", keys, names, since=since)

    def delete(self, config: RepoConfig, table: FeatureView, keys: Iterable[bytes]) -> None:
        """Delete these entities in short transactions."""
        for some in batches(keys, BATCH):
            with self._transaction(config) as connection:
                connection.executemany(
                    f"DELETE FROM {table_of(config, table)} WHERE entity_key = ?",
                    [(key,) for key in some],
                )

    def keys(self, config: RepoConfig, table: FeatureView) -> list[bytes]:
        """Return the serialized keys of all entities of the view."""
        query = f"SELECT entity_key FROM {table_of(config, table)}"
        return [key for (key,) in self._connection(config).execute(query)]

    def mark_end(self, config: RepoConfig, table: FeatureView, end: datetime) -> None:
        """Store the end of a view's materialize, the reference time of its TTL in replay."""
        with self._transaction(config) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO materialized VALUES (?, ?)",
                (table.name, _microseconds(end)),
            )

    def is_marked(self, config: RepoConfig, views: Sequence[str]) -> bool:
        """Return whether all these views were materialized and their tables not recreated since."""
        found = self._connection(config).execute("SELECT view FROM materialized").fetchall()
        return set(views) <= {view for (view,) in found}

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Create the views' tables. A table whose columns changed is dropped and created empty."""
        with self._transaction(config) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS materialized (view TEXT PRIMARY KEY, until INTEGER)"
            )
            for view in tables_to_delete:
                connection.execute(f"DROP TABLE IF EXISTS {table_of(config, view)}")
            for view in tables_to_keep:
                make_table(connection, config, view, self._columns_of(view))

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the SQLite file."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
        for suffix in ("", "-wal", "-shm"):
            _path(config).with_name(_path(config).name + suffix).unlink(missing_ok=True)

    def _upsert(
        self,
        config: RepoConfig,
        table: FeatureView,
        rows: list[tuple[Any, ...]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        marks = ", ".join("?" * (3 + len(self._columns_of(table))))
        query = f"INSERT OR REPLACE INTO {table_of(config, table)} VALUES ({marks})"
        for some in batches(rows, BATCH):
            with self._transaction(config) as connection:
                connection.executemany(query, some)
            if progress:
                progress(len(some))

    def _transaction(self, config: RepoConfig) -> "Transaction":
        return Transaction(self._connection(config))

    def _connection(self, config: RepoConfig) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            path = _path(config)
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._local.connection = connect(path)
        return connection

    def _columns_of(self, table: FeatureView) -> dict[str, Any]:
        known = self._columns.get(table.name)
        if known is None or known.keys() != {field.name for field in table.features}:
            known = {field.name: column_of(field.dtype) for field in table.features}
            self._columns[table.name] = known
        return known

    def _requested(self, table: FeatureView, names: list[str] | None) -> list[str]:
        known = self._columns_of(table)
        return [name for name in (names or known) if name in known]


def _config(config: RepoConfig) -> WideSqliteOnlineStoreConfig:
    assert isinstance(config.online_store, WideSqliteOnlineStoreConfig)
    return config.online_store


def _path(config: RepoConfig) -> Path:
    path = Path(_config(config).path)
    return path if path.is_absolute() or not config.repo_path else config.repo_path / path


def _microseconds(moment: datetime) -> int:
    """Convert a datetime to microseconds since 1970; Feast defines naive datetimes as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)
