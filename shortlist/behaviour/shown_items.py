"""Items that were shown to each user lately, for business rules of the type `not_shown`.

The service records them only while such a rule is in force. All workers of a home share the SQLite
file `<home>/shown.db`, which has the newest time of each pair of user and item.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Settings
from shortlist.ids import ANONYMOUS

log = logging.getLogger("shortlist.recommend")

WAIT_SECONDS = 5.0
"""How long a connection waits for the lock of another one."""
MAX_WAITING = 5_000
"""Number of recorded pairs that are written together at the latest."""


class ShownItems:
    """Access to the shown items of a home. Only one thread may record; any thread may read."""

    def __init__(self, path: Path, *, days: Callable[[], float] = lambda: 0.0):
        """Create the access without opening the file.

        Args:
            days: returns the number of days for which shown items are needed, 0 for none.
        """
        self.path = path
        self._days = days
        self._rows: dict[tuple[str, str], int] = {}
        self._pruned_at = 0

    @classmethod
    def of(cls, settings: Settings, *, days: Callable[[], float] = lambda: 0.0) -> "ShownItems":
        return cls(settings.home / "shown.db", days=days)

    def between(self, user_id: str, after: int, until: int) -> list[str]:
        """Return the items that were shown to a user later than `after` microseconds.

        Raises:
            sqlite3.Error: the file can't be read.
        """
        if not self.path.is_file():
            return []
        with closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS)) as connection:
            found = connection.execute(
                "SELECT item_id FROM shown WHERE user_id = ? AND at > ? AND at <= ?",
                (user_id, after, until),
            ).fetchall()
        return [item_id for (item_id,) in found]

    def forget(self, user_id: str, *, at: int) -> int:
        """Delete what was shown to a user before `at` (microseconds); return the number of items.

        Raises:
            sqlite3.Error: the file can't be written.
        """
        if not self.path.is_file():
            return 0
        with closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS)) as connection, connection:
            connection.execute("PRAGMA secure_delete = ON")
            query = "DELETE FROM shown WHERE user_id = ? AND at < ?"
            return connection.execute(query, (user_id, at)).rowcount

    def record(self, entry: dict[str, Any]) -> None:
        """Remember the items of one entry of the serving log until the next `flush`."""
        if self._days() == 0 or entry["user_id"] == ANONYMOUS:
            return
        for item in entry["items"]:
            self._rows[entry["user_id"], item["item_id"]] = entry["event_timestamp"]
        if len(self._rows) >= MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what was recorded. If the file can't be written, the pairs are dropped and logged:
        a rule may then show an item again, but answers continue.
        """
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        try:
            self._write(rows)
        except (sqlite3.Error, OSError):
            log.exception("shown items: %s can't be written: %d are lost", self.path, len(rows))

    def _write(self, rows: dict[tuple[str, str], int]) -> None:
        with closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS shown (user_id TEXT, item_id TEXT, at INTEGER NOT NULL,"
                " PRIMARY KEY (user_id, item_id)) WITHOUT ROWID"
            )
            with connection:
                connection.executemany(
                    "INSERT INTO shown VALUES (?, ?, ?) ON CONFLICT (user_id, item_id)"
                    " DO UPDATE SET at = max(at, excluded.at)",
                    [(user_id, item_id, at) for (user_id, item_id), at in rows.items()],
                )
                newest = min(rows.values())
                if newest - self._pruned_at > MICROSECONDS_PER_DAY / 24:
                    oldest = newest - round(self._days() * MICROSECONDS_PER_DAY)
                    connection.execute("DELETE FROM shown WHERE at < ?", (oldest,))
                    self._pruned_at = newest
