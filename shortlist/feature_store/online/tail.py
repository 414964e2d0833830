"""The tail: posted events that are not yet part of the online base rows.

The online state of a user consists of a base row and a tail of later events. A materialize (a
step of a refresh) writes base rows to the online store. A post only inserts events into the
tail. A reader folds the tail into the base row (fold.py). A materialize writes new base rows and
then deletes the payloads of the events that they contain.

The tail is the SQLite file `<home>/events/tail.db`, also if Redis is used. It is separate from
the online store's file so that a post never waits for a materialize. The unique event_id ensures
that a repeated post counts once, in all workers and after every refresh.

An event's `known` is the time from which it counts: max(event_timestamp + 1, received_at) in
microseconds. In the lake, target_sql.KNOWN_AT gives the event the same time. A base row with the
stamp m contains exactly the user's events known by m. An event must be folded into a row if its
`known` is later than the row's stamp.
"""

import json
import sqlite3
import threading
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Settings

REMEMBERED = 30 * MICROSECONDS_PER_DAY
"""How long an event_id is kept after its event became part of the base rows, in microseconds."""
WAIT_SECONDS = 10.0
"""How long a connection waits for the lock of another one."""
MAX_READ = 2_000
"""Maximum number of a user's events that a reader folds in. A user with more events between two
refreshes is probably a robot, and folding all of them would take seconds per request. The next
refresh counts all of them.
"""
BATCH = 500
"""Number of ids or rows per SQL statement."""

Posted = dict[str, Any]
"""An event as the service stores it in the inbox."""


class Tail:
    """Access to the tail of a home. It can be used by any thread and process."""

    def __init__(self, folder: Path):
        """Create the access without opening the file.

        Args:
            folder: the inbox, `Settings.events`.
        """
        self.path = folder / "tail.db"
        self._local = threading.local()

    @classmethod
    def of(cls, settings: Settings) -> "Tail":
        return cls(settings.events)

    def unknown(self, events: Sequence[Posted]) -> list[Posted]:
        """Return the events whose event_id was not posted before, without duplicates, in their
        order.
        """
        connection = self._connection()
        new: dict[str, Posted] = {}
        for event in events:
            new.setdefault(event["event_id"], event)
        for some in _batches(list(new)):
            marks = ", ".join("?" * len(some))
            query = f"SELECT event_id FROM tail WHERE event_id IN ({marks})"
            for (event_id,) in connection.execute(query, some).fetchall():
                del new[event_id]
        return list(new.values())

    def insert(
        self, events: Iterable[Posted], *, ids_only: Container[str] = frozenset()
    ) -> list[Posted]:
        """Add events in one transaction and return the new ones.

        Args:
            ids_only: event_ids of events that don't count. Only their ids are stored, to recognise
                repeated posts.
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
        """Return {user_id: the newest MAX_READ events of the user's tail}.

        Each event has its `known` (time from which it counts). Events are sorted by `known`, then
        by arrival.

        Users without a tail are left out. Read the tail before the base rows: a materialize deletes
        payloads only after it has written the rows that contain them. Then each event is in at
        least one of the two.
        """
        if not self._exists():
            return {}
        connection = self._connection()
        found: dict[str, list[Posted]] = {}
        for user_id in sorted(set(user_ids)):
            rows = connection.execute(
                "SELECT known, payload FROM tail WHERE user_id = ? AND payload IS NOT NULL"
                f" ORDER BY known DESC, rowid DESC LIMIT {MAX_READ}",
                (user_id,),
            ).fetchall()
            if rows:
                found[user_id] = [json.loads(text) | {"known": known} for known, text in rows[::-1]]
        return found

    def covered(self, until: int) -> None:
        """Delete the payloads of events known by `until`, since all base rows now contain them."""
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

    def forget(self, user_id: str, *, at: int) -> int:
        """Delete a user's events known by `at` (microseconds); return their number."""
        if not self._exists():
            return 0
        done = self._connection().execute(
            "DELETE FROM tail WHERE user_id = ? AND known <= ?", (user_id, at)
        )
        return done.rowcount

    def until(self) -> int:
        """Return the time in microseconds up to which the base rows contain all events.

        It is 0 before the first refresh.
        """
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
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(
                "CREATE TABLE IF NOT EXISTS tail (event_id TEXT NOT NULL UNIQUE, user_id TEXT,"
                " known INTEGER, payload TEXT);"
                "CREATE INDEX IF NOT EXISTS tail_user_known ON tail (user_id, known)"
                " WHERE payload IS NOT NULL; DROP INDEX IF EXISTS tail_user;"
                "CREATE INDEX IF NOT EXISTS tail_known ON tail (known);"
                "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);"
            )
            self._local.connection = connection
        return connection


def known_at(event: Posted) -> int:
    """Return the time in microseconds from which a posted event is part of its user's state."""
    return max(event.get("event_timestamp", 0) + 1, event.get("received_at", 0))


def _batches(values: list[Any]) -> Iterable[list[Any]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))
