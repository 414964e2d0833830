"""The inbox of posted events: on disk before they are acknowledged, each event_id once.

JSON Lines under `events/date=YYYY-MM-DD/`, one file a process, names in order of time. A crash can
cut only the last line, which nobody was told is safe; readers leave a line without its end alone,
and the next process starts a file of its own.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("bentoml.shortlist")

REMEMBERED_DAYS = 7
"""Days of inbox files whose event_ids are read at start: how late a repeated post is still known.
"""


class EventLog:
    """Appends events durably. Thread-safe; one a process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.Lock()
        self._known = _recent_ids(folder)
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
            new: dict[str, dict[str, Any]] = {}
            for event in events:
                if event["event_id"] not in self._known:
                    new.setdefault(event["event_id"], event)
            if new:
                self._write("".join(json.dumps(event) + "\n" for event in new.values()).encode())
                self._known |= new.keys()
            return list(new.values())

    def close(self) -> None:
        with self._lock:
            self._close()

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recent_ids(folder: Path) -> set[str]:
    ids: set[str] = set()
    for day in sorted(folder.glob("date=*"))[-REMEMBERED_DAYS:]:
        for path in sorted(day.glob("*.jsonl")):
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        ids.add(json.loads(line)["event_id"])
                    except (ValueError, KeyError, TypeError):
                        # Ingest will stop at this line; serving goes on.
                        log.warning("%s: line %d: not an event, ignored", path, number)
    return ids
