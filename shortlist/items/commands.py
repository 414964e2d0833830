"""The command inbox: changes of the catalogue that were posted to the service.

The service appends commands in one transaction before it acknowledges them. All service workers
read the file and show the changes in their lists at once. The next refresh carries the commands
out: it adds the changed items to the lake and publishes them with the feature pack (the item
features and the catalogue). A command is pending until then.

Commands have consecutive numbers, which are the same for all readers. So a pack needs only the
number of the last command that it contains. For the pending commands that a worker has applied, the
first and last number are enough.

The file is `<home>/events/commands.db` (SQLite). It also holds the requests to forget a user
(shortlist/forgetting/requests.py), which are numbered separately.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.config import Settings

WAIT_SECONDS = 3.0
"""How long a connection waits for the lock of another one."""


class CommandError(ValueError):
    """The command inbox can't be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class Command:
    """A posted change of one item."""

    number: int
    """1 for the first command of a home."""
    received_at: int
    """Microseconds on the home's clock."""
    change: dict[str, Any]
    """Fields of `shortlist.http.api.ItemChange` that the client sent."""


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

    def append(self, changes: Sequence[dict[str, Any]], *, received_at: int, above: int = 0) -> int:
        """Store changes durably, in their order, and return the number of the last one.

        Args:
            received_at: microseconds on the home's clock.
            above: all new numbers are higher than this one. It is the number of the last command
                that the caller knows. The file can be behind it if it was restored from a backup.

        Raises:
            CommandError: the file can't be written; then none of the changes is stored.
        """
        rows = [(received_at, json.dumps(change)) for change in changes]
        with self.writing() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS commands (number INTEGER PRIMARY KEY,"
                " received_at INTEGER NOT NULL, change TEXT NOT NULL)"
            )
            query = "SELECT coalesce(max(number), 0) FROM commands"
            ((newest,),) = connection.execute(query).fetchall()
            first = max(newest, above) + 1
            connection.executemany(
                "INSERT INTO commands VALUES (?, ?, ?)",
                [(first + row_number, *row) for row_number, row in enumerate(rows)],
            )
        return first + len(rows) - 1

    def last(self) -> int:
        """Return the number of the newest command, 0 if there is none. Raises CommandError."""
        found = self.select("SELECT coalesce(max(number), 0) FROM commands")
        return found[0][0] if found else 0

    def after(self, number: int) -> list[Command]:
        """Return all commands with a higher number, in the order of their numbers."""
        return self.between(number, self.last())

    def between(self, after: int, last: int) -> list[Command]:
        """Return the commands numbered `after` + 1 to `last`, in the order of their numbers."""
        rows = self.select(
            "SELECT number, received_at, change FROM commands"
            " WHERE number > ? AND number <= ? ORDER BY number",
            (after, last),
        )
        return [Command(number, received, json.loads(text)) for number, received, text in rows]

    def select(self, query: str, values: Sequence[int] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none if the file or table doesn't exist yet.

        Raises:
            CommandError: the file can't be read.
        """
        if not self.path.exists():
            return []
        try:
            with self.connection() as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):  # another process is creating it
                return []
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> CommandError:
        return CommandError(
            f"{self.path}: {error}; want the SQLite file of posted changes. If it is damaged,"
            " restore it from a backup, or remove it and post the pending changes of items again"
        )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction that is durable at the end of the block.

        Raises:
            CommandError: the file can't be written; then nothing of the block is stored.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose changes are on disk when they are committed."""
        # isolation_level None: transactions begin and end only where this class says so.
        with closing(
            sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            yield connection
