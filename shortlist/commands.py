"""The command inbox: changes of the catalogue that were posted to the service.

The service appends commands in one transaction before it acknowledges them. All service workers
read the file and show the changes in their lists at once. The next refresh carries the commands
out: it adds the changed items to the lake and publishes them with the feature pack (the item
features and the catalogue). A command is pending until then.

Commands have consecutive numbers, which are the same for all readers. So a pack needs only the
number of the last command that it contains. For the pending commands that a worker has applied, the
first and last number are enough.

The file is `<home>/events/commands.db` (SQLite).
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.config import Settings

WAIT_SECONDS = 10.0
"""How long a connection waits for the lock of another one."""


@dataclass(frozen=True)
class Command:
    """A posted change of one item."""

    number: int
    """1 for the first command of a home."""
    received_at: int
    """Microseconds on the home's clock."""
    change: dict[str, Any]
    """Fields of `shortlist.api.ItemChange` that the client sent."""


class CommandInbox:
    """Access to the commands of a home. It can be used by any thread and process."""

    def __init__(self, folder: Path):
        """Create the access without opening the file.

        Args:
            folder: the inbox, `Settings.events`.
        """
        self.path = folder / "commands.db"

    @classmethod
    def of(cls, settings: Settings) -> "CommandInbox":
        return cls(settings.events)

    def append(self, changes: Sequence[dict[str, Any]], *, received_at: int) -> int:
        """Store changes durably, in their order, and return the number of the last one.

        Raises:
            OSError, sqlite3.Error: the file can't be written; then none of the changes is stored.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS commands (number INTEGER PRIMARY KEY AUTOINCREMENT,"
                " received_at INTEGER NOT NULL, change TEXT NOT NULL)"
            )
            with connection:
                connection.executemany(
                    "INSERT INTO commands (received_at, change) VALUES (?, ?)",
                    [(received_at, json.dumps(change)) for change in changes],
                )
        return self.last()

    def last(self) -> int:
        """Return the number of the newest command, 0 if there is none."""
        found = self._select("SELECT coalesce(max(number), 0) FROM commands")
        return found[0][0] if found else 0

    def after(self, number: int) -> list[Command]:
        """Return all commands with a higher number, in the order of their numbers."""
        return self.between(number, self.last())

    def between(self, after: int, last: int) -> list[Command]:
        """Return the commands numbered `after` + 1 to `last`, in the order of their numbers."""
        rows = self._select(
            "SELECT number, received_at, change FROM commands"
            " WHERE number > ? AND number <= ? ORDER BY number",
            (after, last),
        )
        return [Command(number, received, json.loads(text)) for number, received, text in rows]

    def _select(self, query: str, values: Sequence[int] = ()) -> list[tuple[Any, ...]]:
        if not self.path.is_file():
            return []
        with self._connection() as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # another process is creating it
                    return []
                raise

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=WAIT_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
