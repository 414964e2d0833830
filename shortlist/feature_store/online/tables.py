"""Tables of the SQLite online store: names, creation, queries and write transactions.

A materialize writes the states of a refresh to these tables.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast.feature_view import FeatureView
    from feast.repo_config import RepoConfig

WAIT_SECONDS = 10.0
"""How long a connection waits for the lock of another one."""
MAX_KEYS = 10_000
"""Maximum number of keys in one query."""
LOOK_SECONDS = 0.0005
"""Interval at which a writer polls the lock."""


class Transaction:
    """Context manager of a write transaction: BEGIN IMMEDIATE, then COMMIT or ROLLBACK.

    It polls the lock more often than SQLite, which retries after 1, 2, 5, 10, 15, 20, 25, 25 ms and
    so on. Between two batches of a materialize the lock is free for only 1-2 ms. With SQLite's
    retries, another writer would often miss these moments.
    """

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self.connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._begin()
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(WAIT_SECONDS * 1_000)}")
        return self.connection

    def _begin(self) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                    raise
            time.sleep(LOOK_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.execute("COMMIT" if kind is None else "ROLLBACK")


def make_table(
    connection: sqlite3.Connection,
    config: "RepoConfig",
    view: "FeatureView",
    columns: dict[str, Any],
) -> None:
    """Create the table of a view; a table with other columns is dropped and created empty."""
    name = table_of(config, view)
    wanted = {
        "entity_key": "BLOB",
        "event_ts": "INTEGER",
        "created_ts": "INTEGER",
    } | {name: column.sql_type for name, column in columns.items()}
    there = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({name})")}
    if there and there != wanted:
        connection.execute(f"DROP TABLE {name}")
        connection.execute("DELETE FROM materialized WHERE view = ?", (view.name,))
    fields = ", ".join(
        f"{quoted(column)} {sql_type}{' PRIMARY KEY' if column == 'entity_key' else ''}"
        for column, sql_type in wanted.items()
    )
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({fields})")


def batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    listed = list(values)
    return (listed[start : start + size] for start in range(0, len(listed), size))


def table_of(config: "RepoConfig", view: "FeatureView") -> str:
    return quoted(f"{config.project}_{view.name}")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def connect(path: Path) -> sqlite3.Connection:
    """Open the store's file; it is created if it is missing.

    `synchronous = NORMAL` waits for the disk only at checkpoints.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_SECONDS)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def read_rows(
    connection: sqlite3.Connection,
    table: str,
    keys: Sequence[bytes],
    names: Sequence[str],
    *,
    since: int | None,
) -> list[tuple[Any, ...] | None]:
    """Read (stamp in microseconds, *stored values) for each serialized key; None if unknown.

    Args:
        table: name of the table, without quotes.
        since: rows with an older stamp count as unknown; None: no row does.
    """
    rows: dict[bytes, tuple[Any, ...]] = {}
    for some in batches(keys, MAX_KEYS):
        for row in connection.execute(select_query(table, tuple(names), len(some)), some):
            if since is None or row[1] >= since:
                rows[row[0]] = row[1:]
    return [rows.get(key) for key in keys]


def oldest_stamp(connection: sqlite3.Connection, view: str, *, ttl: int, clock: str) -> int | None:
    """Return the oldest stamp (microseconds) that a view's TTL allows; None without a TTL.

    Args:
        ttl: maximum age in microseconds, 0 for no limit.
        clock: "wall": the age counts from now; "replay": from the end of the last materialize.
    """
    if not ttl:
        return None
    if clock == "wall":
        return time.time_ns() // 1_000 - ttl
    query = "SELECT until FROM materialized WHERE view = ?"
    row = connection.execute(query, (view,)).fetchone()
    return (row[0] if row else 0) - ttl


@lru_cache(maxsize=256)
def select_query(table: str, names: tuple[str, ...], keys: int) -> str:
    """Return SQL that selects key, row time and the named columns of `keys` entities."""
    selected = ", ".join(["entity_key", "event_ts", *(quoted(name) for name in names)])
    marks = ", ".join("?" * keys)
    return f"SELECT {selected} FROM {quoted(table)} WHERE entity_key IN ({marks})"
