"""The inbox of posted events: on disk before they are acknowledged, each event_id once.

An event is appended to the inbox first: from then on it is kept. Then it is inserted into the tail,
which makes it part of the user's state (shortlist/feature_store/online/tail.py). If the tail can't
be written, the event waits in memory and a thread inserts it as soon as it can. If the process dies
between the two, the next start inserts what is missing. Event ids are compared in the tail, which
all workers share.

JSON Lines under `events/date=YYYY-MM-DD/`, one file a process, names in order of time. A crash can
cut only the last line, which nobody was told is safe; readers leave a line without its end alone,
and the next process starts a file of its own.
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

from shortlist.api import Event
from shortlist.config import Settings
from shortlist.datasets.posted import excluded_ids
from shortlist.feature_store import Tail
from shortlist.feature_store.online.materialize import counted_events
from shortlist.feature_store.online.tail import known_at

log = logging.getLogger("bentoml.shortlist")

REMEMBERED_DAYS = 7
"""Days of inbox files that a start compares with the tail."""
AT_ONCE = 1_000
"""Lines that a start inserts in one transaction; a post waits for one of them at most."""
RETRY_SECONDS = 1.0
"""How often waiting events are tried again."""
MAX_WAITING = 100_000
"""Events that wait for the tail at most; beyond it posts are refused, since they fill the memory.
"""

Posted = dict[str, Any]


class EventLog:
    """Appends events durably. Thread-safe; one a process, any number of processes a home."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], int] | None = None,
        excluded: Callable[[Sequence[Posted]], Container[str]] = lambda _: frozenset(),
    ):
        """Bring the tail up to the inbox, some lines at a time: other workers post meanwhile.

        Args:
            now: the home's clock, microseconds. Lines received later were stamped by another clock
                (homes of before the clock was kept): their ids are remembered, nothing else. Nor is
                more of lines that the service wouldn't take any more, which a refresh quarantines.
            excluded: event_ids of those that don't count (`excluded_by`).
        """
        self.folder = folder
        self.tail = Tail(folder)
        self._excluded = excluded
        self._lock = threading.Lock()
        self._waiting: dict[str, Posted] = {}
        self._closed = threading.Event()
        until = self.tail.until()
        missing = (event for event in _recent_events(folder) if known_at(event) > until)
        while some := list(itertools.islice(missing, AT_ONCE)):
            # Read after the lines, so that no line of this clock is later.
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
        self._file: int | None = None  # a bare descriptor: no buffer can keep half a failed post

    @property
    def num_waiting(self) -> int:
        """Events that are on disk and not in the tail yet: answers don't know them."""
        return len(self._waiting)

    def append(self, events: Sequence[Posted]) -> list[Posted]:
        """Write the events that are new, with one fsync, and return them once they are on disk.

        Args:
            events: each with `event_id`; JSON values only.

        Raises:
            OSError: the disk refused, or too many events wait for the tail.
            sqlite3.Error: the tail can't be read. After either error nothing of `events` was kept,
                so they can be posted again.
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
        """Insert the waiting events, in their order, as soon as the tail can be written.

        The lock isn't held meanwhile: posts add to the waiting events and are answered at once.
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
        """Waiting events are inserted at the next start."""
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
            # Half a post must not stay, and after a failed fsync this file is not to be trusted.
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
                _sync_folder(parent)  # a file whose name is lost in a power cut is lost as well
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def excluded_by(settings: Settings) -> Callable[[Sequence[Posted]], Container[str]]:
    """Judges posted events by the `exclude` under which the home's states were built."""

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recent_events(folder: Path) -> Iterator[dict[str, Any]]:
    for day in sorted(folder.glob("date=*"))[-REMEMBERED_DAYS:]:
        for path in sorted(day.glob("*.jsonl")):
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        event = json.loads(line)
                        event["event_id"]
                    except (ValueError, KeyError, TypeError):
                        # Ingest quarantines this line; serving goes on.
                        log.warning("%s: line %d: not an event, ignored", path, number)
                    else:
                        yield event
