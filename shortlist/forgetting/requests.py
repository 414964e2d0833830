"""The inbox of requests to forget a user: a table of the command inbox, events/commands.db.

A request is pending until its erasure is complete. Then its row loses the user's id and keeps the
keyed hash. Requests have numbers separate from those of item changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shortlist.config import Settings
from shortlist.items.commands import CommandInbox

TABLE = (
    "CREATE TABLE IF NOT EXISTS forgets (number INTEGER PRIMARY KEY, received_at INTEGER NOT NULL,"
    " user_hash TEXT NOT NULL, user_id TEXT)"
)


@dataclass(frozen=True)
class ForgetRequest:
    """A pending request."""

    number: int
    received_at: int
    """Microseconds on the home's clock; earlier events are forgotten."""
    user_hash: str
    user_id: str


class ForgetInbox:
    """Access to the requests of a home. It can be used by any thread and process."""

    def __init__(self, settings: Settings):
        self._inbox = CommandInbox.of(settings)
        self.path = self._inbox.path

    def append(self, user_id: str, *, user_hash: str, received_at: int) -> int:
        """Store a request durably and return its number. Raises CommandError."""
        with self._inbox.writing() as connection:
            connection.execute(TABLE)
            done = connection.execute(
                "INSERT INTO forgets (received_at, user_hash, user_id) VALUES (?, ?, ?)",
                (received_at, user_hash, user_id),
            )
            number = done.lastrowid
        assert number is not None
        return number

    def pending(self) -> list[ForgetRequest]:
        """Return the requests that are not carried out completely. Raises CommandError."""
        rows = self._inbox.select(
            "SELECT number, received_at, user_hash, user_id FROM forgets"
            " WHERE user_id IS NOT NULL ORDER BY number"
        )
        return [ForgetRequest(*row) for row in rows]

    def complete(self, numbers: Sequence[int]) -> None:
        """Remove the ids from carried out requests, also from the file's free pages."""
        with self._inbox.writing() as connection:
            connection.execute(TABLE)
            connection.executemany(
                "UPDATE forgets SET user_id = NULL WHERE number = ?",
                [(number,) for number in numbers],
            )
        with self._inbox.connection() as connection:
            connection.execute("VACUUM")
