"""The clock of a home: what time it is for everything that asks.

Under the wall clock that is the machine's time. Under the replay clock it is one durable value in
`<home>/clock.json`, which posts of events and `shortlist replay` advance and every process reads.
The newest event of the lake is always in the past: the replay clock is never before it.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Literal

from shortlist.config import Settings
from shortlist.lake.snapshot import LakeError, Manifest, current_folder

ClockKind = Literal["wall", "replay"]

CLOCK_FILE = "clock.json"


class ClockError(RuntimeError):
    """The clock's file cannot be read; the message says what to do."""


class HomeClock:
    """The time of one home. Cheap to make; safe with several threads and processes."""

    def __init__(self, settings: Settings, kind: ClockKind, *, start: int | None = None):
        """
        Args:
            start: microseconds; the time of a replay clock that has neither a file nor a lake, such
                as the end of a release's data.
        """
        self.kind: ClockKind = kind
        self._lake = settings.lake
        self._file = settings.home / CLOCK_FILE
        self._start = start
        self._newest: tuple[Path | None, int | None] = (None, None)

    def now(self) -> int:
        """Microseconds UTC.

        Raises:
            ClockError: the file of the replay clock is damaged.
            LakeError: a replay clock has no file, the lake has no event, and no start was given.
        """
        if self.kind == "wall":
            return time.time_ns() // 1_000
        times = [held for held in (self._read(), self._after_lake()) if held is not None]
        if times:
            return max(times)
        if self._start is None:
            raise LakeError(
                f"{self._lake}: no interactions yet; run `shortlist run` or `ingest` and `validate`"
            )
        return self._start

    def advance(self, to: int) -> int:
        """Move the replay clock to `to` unless it is there already or later; it never goes back.

        The new time is on disk before this returns. Does nothing under the wall clock.

        Returns:
            The time that it is then.
        """
        if self.kind == "wall":
            return self.now()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._file.with_name(".clock.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = self._read()
            if held is None or held < to:
                self._write(to)
        finally:
            os.close(lock)
        return self.now()

    def _read(self) -> int | None:
        try:
            return int(json.loads(self._file.read_text())["now"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ClockError(
                f'{self._file}: not a clock file ({error}); want {{"now": microseconds}}; remove it'
                " to start again after the lake's newest event"
            ) from None

    def _write(self, now: int) -> None:
        partial = self._file.with_name(f".{CLOCK_FILE}.{os.getpid()}.partial")
        with partial.open("w") as file:
            file.write(json.dumps({"now": now}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _after_lake(self) -> int | None:
        """The microsecond after the lake's newest event; None for an empty lake."""
        folder = current_folder(self._lake)
        if folder is None:
            return None
        if folder != self._newest[0]:
            latest = Manifest.read(folder).latest
            self._newest = (folder, None if latest is None else latest + 1)
        return self._newest[1]
