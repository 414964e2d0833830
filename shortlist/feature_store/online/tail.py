"""The tail: posted events that the online rows don't hold yet.

An online row is a base, written by a materialize, and a tail of later events of the same user. A
post only inserts here; a reader folds the tail into the base (fold.py); a materialize writes new
base rows and then drops the payloads that all of them hold.

The tail is `<home>/events/tail.db`, an SQLite file beside the inbox, whichever online store holds
the base rows. It is apart from the online store's file, so that a post never waits for a
materialize. The unique event_id makes a repeated post count once, in every worker and after every
refresh.

`known` of an event is max(event_timestamp + 1, received_at) in microseconds, the moment that
target_sql.KNOWN_AT gives the same event in the lake. A base row stamped m holds exactly the user's
events known by m, so an event belongs to a row if `known` is later than the row's stamp.
"""

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Settings

REMEMBERED = 30 * MICROSECONDS_PER_DAY
"""How long an event_id is remembered after its event was refreshed into the base."""
WAIT_SECONDS = 10.0
BATCH = 500

Posted = dict[str, Any]


class Tail:
    """Access to the tail of a home, from any thread and process."""

    def __init__(self, folder: Path):
        """`folder` is the inbox, `Settings.events`."""
        self.path = folder / "tail.db"
        self._local = threading.local()

    @classmethod
    def of(cls, settings: Settings) -> "Tail":
        return cls(settings.events)

    def unknown(self, events: Sequence[Posted]) -> list[Posted]:
        """The events whose event_id was not posted before, each once, in their order."""
        connection = self._connection()
        new: dict[str, Posted] = {}
        for event in events:
            new.setdefault(event["event_id"], event)
        for some in _batches(list(new)):
            places = ", ".join("?" * len(some))
            query = f"SELECT event_id FROM tail WHERE event_id IN ({places})"
            for (event_id,) in connection.execute(query, some).fetchall():
                del new[event_id]
        return list(new.values())

    def insert(
        self, events: Iterable[Posted], *, ids_only: Container[str] = frozenset()
    ) -> list[Posted]:
        """Add events in one transaction and return those that were new.

        Args:
            ids_only: event_ids of those of which only the id is remembered, so that a repeated post
                is recognised: they don't count.
        """
        connection = self._connection()
        new = []
        until = self.until()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for event in events:
                known = known_at(event)
                counts = known > until and event["event_id"] not in ids_only
                payload = json.dumps(event) if counts else None
                done = connection.execute(
                    "INSERT OR IGNORE INTO tail VALUES (?, ?, ?, ?)",
                    (event["event_id"], event.get("user_id", ""), known, payload),
                )
                if done.rowcount:
                    new.append(event)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return new

    def read(self, user_ids: Sequence[str]) -> dict[str, list[Posted]]:
        """The tail of each user who has one, by `known` and then in the order of arrival.

        Read the tail before the base rows: a materialize drops payloads only after it has written
        the rows that hold them, so an event is in at least one of the two.
        """
        if not self._exists():
            return {}
        connection = self._connection()
        found: dict[str, list[Posted]] = defaultdict(list)
        for some in _batches(sorted(set(user_ids))):
            places = ", ".join("?" * len(some))
            rows = connection.execute(
                f"SELECT user_id, known, payload FROM tail WHERE user_id IN ({places})"
                " AND payload IS NOT NULL ORDER BY known, rowid",
                some,
            )
            for user_id, known, payload in rows:
                found[user_id].append(json.loads(payload) | {"known": known})
        return dict(found)

    def covered(self, until: int) -> None:
        """Every base row now holds what was known by `until`: drop those payloads."""
        connection = self._connection()
        connection.execute("INSERT OR REPLACE INTO about VALUES ('until', ?)", (str(until),))
        while connection.execute(
            "UPDATE tail SET payload = NULL WHERE rowid IN (SELECT rowid FROM tail"
            f" WHERE payload IS NOT NULL AND known <= ? LIMIT {BATCH})",
            (until,),
        ).rowcount:
            pass
        connection.execute(
            "DELETE FROM tail WHERE payload IS NULL AND known <= ?", (until - REMEMBERED,)
        )

    def until(self) -> int:
        """Microseconds up to which the base rows hold every event; 0 before the first refresh."""
        row = self._connection().execute("SELECT value FROM about WHERE name = 'until'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _exists(self) -> bool:
        return getattr(self._local, "connection", None) is not None or self.path.is_file()

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=WAIT_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(
                "CREATE TABLE IF NOT EXISTS tail (event_id TEXT NOT NULL UNIQUE, user_id TEXT,"
                " known INTEGER, payload TEXT);"
                "CREATE INDEX IF NOT EXISTS tail_user ON tail (user_id) WHERE payload IS NOT NULL;"
                "CREATE INDEX IF NOT EXISTS tail_known ON tail (known);"
                "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);"
            )
            self._local.connection = connection
        return connection


def known_at(event: Posted) -> int:
    """Microseconds from which an event is part of its user's state."""
    return max(event.get("event_timestamp", 0) + 1, event.get("received_at", 0))


def _batches(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))
