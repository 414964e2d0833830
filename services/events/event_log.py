"""The inbox of posted events: events are on disk before they are acknowledged, each event_id once.

An event is first appended to the inbox, a folder of files that the next refresh ingests. Then it is
inserted into the tail, a SQLite file with the events since the last refresh. Readers of user states
add the tail's events (shortlist/feature_store/online/tail.py). If the tail can't be written, the
event waits in memory, and a thread inserts it as soon as possible. If the process dies in between,
the next start inserts the missing events. Repeated event ids are recognised in the tail, which all
workers share.

The inbox is JSON Lines under `events/date=YYYY-MM-DD/`. Each process writes separate files, whose
names sort by time. A crash can truncate only the last line, which was not acknowledged yet. Readers
ignore a line without a newline, and the next process starts a new file.
"""

import errno
import itertools
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from pydantic import ValidationError

from shortlist.config import Settings
from shortlist.datasets.service.posted import excluded_ids
from shortlist.feature_store import Tail
from shortlist.feature_store.online.materialize import counted_events
from shortlist.feature_store.online.tail import known_at
from shortlist.files.durable import flush
from shortlist.forgetting.lines import is_erased
from shortlist.forgetting.register import Register
from shortlist.http.api import Event

log = logging.getLogger("bentoml.shortlist")

REMEMBERED_DAYS = 7
"""Number of newest inbox days whose events are compared with the tail when the service starts."""
AT_ONCE = 1_000
"""Number of lines that a start inserts into the tail in one transaction. Other workers' posts wait
for at most one transaction."""
RETRY_SECONDS = 1.0
"""Time between two attempts to insert the waiting events."""
MAX_WAITING = 100_000
"""Maximum number of events that wait for the tail. Further posts are refused, to limit memory."""

Posted = dict[str, Any]


class EventLog:
    """Appends events durably. Thread-safe; each process of a home has one object."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], int] | None = None,
        excluded: Callable[[Sequence[Posted]], Container[str]] = lambda _: frozenset(),
    ):
        """Insert the events of the inbox that the tail lacks.

        They are inserted in small transactions, because other workers post at the same time.

        Of two types of lines, only the ids are inserted, to recognise repeated posts. The first are
        lines that the service would now refuse; a refresh quarantines them. The second are lines
        received after `now`: an earlier version of the code, which didn't store the home's clock,
        stamped them by another clock.

        Args:
            folder: the inbox.
            now: returns the time of the home's clock in microseconds.
            excluded: returns the event_ids of the given events that don't count (`excluded_by`).
        """
        self.folder = folder
        self.tail = Tail(folder)
        self._excluded = excluded
        self._lock = threading.Lock()
        self._waiting: dict[str, Posted] = {}
        self._closed = threading.Event()
        until = self.tail.until()
        register = Register(folder.parent / "forgotten")
        missing = (
            event
            for event in _recent_events(folder)
            if known_at(event) > until
            and not register.hides(event.get("user_id"), event.get("event_timestamp"))
        )
        while some := list(itertools.islice(missing, AT_ONCE)):
            # Read the clock after the lines, so that no line stamped by it is later than `end`.
            end = None if now is None else now()
            other = {
                e["event_id"]
                for e in some
                if (end is not None and e.get("received_at", 0) > end) or not _is_event(e)
            }
            known = [e for e in some if e["event_id"] not in other]
            self.tail.insert([e for e in some if e["event_id"] in other], ids_only=other)
            self._insert(known)
        self._day: str | None = None
        self._file: int | None = None  # a descriptor: a file object could buffer half a post

    @property
    def num_waiting(self) -> int:
        """Number of events on disk that are not in the tail, so not in the users' states yet."""
        return len(self._waiting)

    def append(self, events: Sequence[Posted]) -> list[Posted]:
        """Store the events that are not stored yet, and return them when they are on disk.

        They are written with one fsync.

        Args:
            events: JSON objects, each with an `event_id`.

        Raises:
            OSError: the disk can't be written, or too many events wait for the tail.
            sqlite3.Error: the tail can't be read.

            After either error, none of `events` is stored, so they can be posted again.
        """
        with self._lock:
            new = [e for e in self.tail.unknown(events) if e["event_id"] not in self._waiting]
            if not new:
                return []
            if len(self._waiting) + len(new) > MAX_WAITING:
                raise OSError(errno.EAGAIN, f"{self.tail.path} could not be written for long")
            self._write("".join(json.dumps(event) + "\n" for event in new).encode())
            if not self._waiting:
                try:
                    return self._insert(new)
                except (sqlite3.Error, OSError):
                    log.exception("events: %s: not writable; new events wait", self.tail.path)
                    threading.Thread(target=self._catch_up, daemon=True).start()
            self._waiting |= {event["event_id"]: event for event in new}
            return new

    def _insert(self, events: list[Posted]) -> list[Posted]:
        return self.tail.insert(events, ids_only=self._excluded(events))

    def _catch_up(self) -> None:
        """Insert the waiting events, in order, as soon as the tail can be written.

        The lock isn't held during an insert. So posts can add waiting events meanwhile, and are
        answered at once.
        """
        while not self._closed.wait(RETRY_SECONDS):
            with self._lock:
                waiting = list(self._waiting.values())
            try:
                self._insert(waiting)
            except (sqlite3.Error, OSError) as error:
                log.warning("events: %s: %d events wait: %s", self.tail.path, len(waiting), error)
                continue
            with self._lock:
                for event in waiting:
                    del self._waiting[event["event_id"]]
                if not self._waiting:
                    break
        self.tail.close()

    def close(self) -> None:
        """Close the files. The next start inserts the events that still wait."""
        self._closed.set()
        with self._lock:
            self._close()
            self.tail.close()

    def _write(self, lines: bytes) -> None:
        file = self._open()
        start = os.fstat(file).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            # Remove the incomplete post. After a failed fsync, a file isn't reliable, so close it.
            try:
                os.ftruncate(file, start)
            finally:
                self._close()
            raise

    def _open(self) -> int:
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        if self._file is None or day != self._day:
            self._close()
            folder = self.folder / f"date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            self._day = day
            for parent in (folder, self.folder, self.folder.parent):
                flush(parent)  # without it, a power cut could lose the file's name
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def excluded_by(settings: Settings) -> Callable[[Sequence[Posted]], Container[str]]:
    """Return a function that finds the posted events that don't count in user states.

    It returns the event_ids of events that match `[data] exclude`, as set when the home's states
    were built. If a condition can't be evaluated, it returns none.
    """

    def excluded(events: Sequence[Posted]) -> Container[str]:
        exclude = counted_events(settings)[1].exclude
        try:
            return excluded_ids(events, exclude)
        except duckdb.Error:
            log.exception("events: exclude can't be evaluated: %s", "; ".join(exclude))
            return frozenset()

    return excluded


def _is_event(line: dict[str, Any]) -> bool:
    try:
        Event.model_validate({key: line[key] for key in line if key != "received_at"})
    except ValidationError:
        return False
    return True


def _recent_events(folder: Path) -> Iterator[dict[str, Any]]:
    for day in sorted(folder.glob("date=*"))[-REMEMBERED_DAYS:]:
        for path in sorted(day.glob("*.jsonl")):
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    if is_erased(line):
                        continue
                    try:
                        event = json.loads(line)
                        event["event_id"]
                    except (ValueError, KeyError, TypeError):
                        # Ingest quarantines this line; the service only skips it.
                        log.warning("%s: line %d: not an event, ignored", path, number)
                    else:
                        yield event
