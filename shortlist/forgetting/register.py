"""The register of forgotten people, as keyed hashes with the time of each request.

It is kept for good: events dated before the request must not bring the person back, whatever file,
inbox or quarantine they come from. Later events count again, as those of a new person.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.forgetting.keys import hash_sql, home_key, user_hash

if TYPE_CHECKING:
    import duckdb

Stamp = tuple[int, int, int]


class Register:
    """Access to the register of a home. Any thread and process may use it.

    Readers follow the file, so a request takes effect in all processes at once. A look-up costs one
    `stat` and, if anybody was forgotten, one hash.
    """

    def __init__(self, folder: Path):
        """Create the access without opening the file.

        Args:
            folder: `Settings.forgotten`.
        """
        self.folder = folder
        self.path = folder / "register.jsonl"
        self._read: tuple[Stamp | None, dict[str, int], bytes] = (None, {}, b"")

    def add(self, user_id: str, at: int) -> str:
        """Record a request durably; return the user's hash.

        Args:
            at: time of the request on the home's clock, microseconds. Earlier events are ignored.
        """
        name = self.hash_of(user_id)
        line = json.dumps({"user": name, "at": at}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)
        return name

    def hash_of(self, user_id: str) -> str:
        """Return the user's keyed hash."""
        return user_hash(home_key(self.folder), user_id)

    @property
    def requests(self) -> dict[str, int]:
        """{hash: time of the newest request}."""
        return self._current()[0]

    def at(self, user_id: str) -> int | None:
        """Return the time of the user's newest request; None if there is none."""
        asked, key = self._current()
        return asked.get(user_hash(key, user_id)) if asked else None

    def among(self, user_ids: Iterable[str]) -> dict[str, int]:
        """Return {user id: time of the newest request} of those of `user_ids` with a request."""
        asked, key = self._current()
        if not asked:
            return {}
        found = {user_id: asked.get(user_hash(key, user_id)) for user_id in set(user_ids)}
        return {user_id: at for user_id, at in found.items() if at is not None}

    def hides(self, user_id: Any, moment: Any) -> bool:
        """Return whether an event or answer of this time (microseconds) belongs to the past of a
        forgotten user.
        """
        if not self.requests or not isinstance(user_id, str) or not isinstance(moment, int):
            return False
        at = self.at(user_id)
        return at is not None and moment < at

    def table(self, connection: "duckdb.DuckDBPyConnection", relation: str, *, name: str) -> None:
        """Create a temporary table (user_id, asked_at) of the forgotten users of a relation.

        Args:
            relation: SQL of a relation with a column user_id.
            name: name of the table.
        """
        asked, key = self._current()
        listed = ", ".join(f"('{name}', {at})" for name, at in asked.items()) or "('', 0)"
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE {name} AS
            SELECT user_id, asked_at::BIGINT AS asked_at
            FROM (SELECT DISTINCT user_id FROM {relation} WHERE user_id IS NOT NULL)
            JOIN (VALUES {listed}) AS asked(name, asked_at)
            ON {hash_sql(key, "user_id") if asked else "NULL"} = name
        """)

    def _current(self) -> tuple[dict[str, int], bytes]:
        try:
            found = self.path.stat()
        except OSError:
            return {}, b""
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        known, asked, key = self._read
        if stamp != known:
            asked, key = _newest(self.path), home_key(self.folder)
            self._read = stamp, asked, key
        return asked, key


def _newest(path: Path) -> dict[str, int]:
    asked: dict[str, int] = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):  # the last one may be incomplete after a crash
            entry = json.loads(line)
            asked[entry["user"]] = max(entry["at"], asked.get(entry["user"], 0))
    return asked
