"""The inbox of posted events: on disk before they are acknowledged, each event_id once.

An event is appended to the inbox first. Then it is inserted into the tail, which makes it part of
the user's state (shortlist/feature_store/online/tail.py). If the process dies between the two, the
next start inserts what is missing. Event ids are compared in the tail, which all workers share.

JSON Lines under `events/date=YYYY-MM-DD/`, one file a process, names in order of time. A crash can
cut only the last line, which nobody was told is safe; readers leave a line without its end alone,
and the next process starts a file of its own.
"""

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shortlist.api import Event
from shortlist.feature_store import Tail
from shortlist.feature_store.online.tail import known_at

log = logging.getLogger("bentoml.shortlist")

REMEMBERED_DAYS = 7
"""Days of inbox files that a start compares with the tail."""
AT_ONCE = 1_000
"""Lines that a start inserts in one transaction; a post waits for one of them at most."""


class EventLog:
    """Appends events durably. Thread-safe; one a process, any number of processes a home."""

    def __init__(self, folder: Path, *, now: Callable[[], int] | None = None):
        """Bring the tail up to the inbox, some lines at a time: other workers post meanwhile.

        Args:
            now: the home's clock, microseconds. Lines received later were stamped by another clock
                (homes of before the clock was kept): their ids are remembered, nothing else. Nor is
                more of lines that the service wouldn't take any more, which a refresh quarantines.
        """
        self.folder = folder
        self.tail = Tail(folder)
        self._lock = threading.Lock()
        until = self.tail.until()
        missing = (event for event in _recent_events(folder) if known_at(event) > until)
        while some := list(itertools.islice(missing, AT_ONCE)):
            # Read after the lines, so that no line of this clock is later.
            end = None if now is None else now()
            other = [
                e
                for e in some
                if (end is not None and e.get("received_at", 0) > end) or not _is_event(e)
            ]
            if other:
                self.tail.insert(other, ids_only=True)
            self.tail.insert(some)
        self._day: str | None = None
        self._file: int | None = None  # a bare descriptor: no buffer can keep half a failed post

    def append(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write the events that are new, with one fsync, and return them once they are on disk.

        Args:
            events: each with `event_id`; JSON values only.

        Raises:
            OSError: the disk refused; nothing of `events` was kept, so they can be posted again.
        """
        with self._lock:
            new = self.tail.unknown(events)
            if not new:
                return []
            self._write("".join(json.dumps(event) + "\n" for event in new).encode())
            return self.tail.insert(new)

    def close(self) -> None:
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
