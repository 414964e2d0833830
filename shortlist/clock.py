"""The deployment's clock, and the cut: the time up to which a refresh reads posted events.

With the wall clock, 'now' is the machine's time. With the replay clock, 'now' is one stored value
in `<home>/clock.json`, shared by all processes. Posted events, `replay` and new data move it
forward; it never moves back.

The service writes posted events to the inbox (files in `<home>/events`), each with its arrival
time. It holds a shared lock while it sets this time and writes. `cut` takes the same lock
exclusively. So all events that arrived at or before the returned time are in the inbox, and all
other events get a later arrival time.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from shortlist.config import Settings
from shortlist.files.plain_json import write_json

ClockKind = Literal["wall", "replay"]


class HomeClock:
    """The wall or replay clock of a home (the folder of a deployment).

    Args:
        settings: the deployment; its `clock` setting overrides `kind`.
        kind: the clock type from the run's configuration or the release.
        start: microseconds, initial value of a replay clock that was never set.
    """

    def __init__(self, settings: Settings, kind: ClockKind, *, start: int = 0):
        self.kind: ClockKind = settings.clock or kind
        self.path = settings.home / "clock.json"
        self._start = start  # lower bound of the time, in case the file is missing or not writable
        self._lock = settings.events / ".lock"
        self._turnstile = settings.events / ".turnstile"
        self._cut = settings.events / "cut.json"

    def now(self) -> int:
        """Return the current time in microseconds, UTC."""
        if self.kind == "wall":
            return time.time_ns() // 1_000
        return max(self._start, _read(self.path))

    def advance(self, to: int) -> None:
        """Move the replay clock forward to `to` microseconds.

        Does nothing if the replay clock is not earlier than `to`, or with the wall clock.

        Raises:
            OSError: the clock's file can't be written. In this process the clock shows `to` all the
                same, and the next call tries to write it again.
        """
        if self.kind == "wall":
            return
        self._start = max(self._start, to)
        if self._start <= _read(self.path):
            return
        with _locked(self.path.with_name(".clock.lock"), fcntl.LOCK_EX):
            if self._start > _read(self.path):
                write_json(self.path, {"now": self._start})

    @contextmanager
    def stamping(self) -> Iterator[int]:
        """Yield the arrival time for events that are written to the inbox in this block."""
        with _locked(self._turnstile, fcntl.LOCK_EX):
            # A waiting `cut` holds this lock, so new posts wait for it. Otherwise overlapping posts
            # could keep the shared lock forever, and `cut` would never get its turn.
            pass
        with _locked(self._lock, fcntl.LOCK_SH):
            yield max(self.now(), _read(self._cut) + 1)

    def cut(self) -> int:
        """Return the current time as the end of the events that a refresh reads.

        All events that arrived by then are in the inbox.
        """
        with (
            _locked(self._turnstile, fcntl.LOCK_EX),
            _locked(self._lock, fcntl.LOCK_EX),
        ):
            until = max(self.now(), _read(self._cut) + 1)
            write_json(self._cut, {"now": until})
        self.advance(until + 1)
        return until


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["now"])
    except FileNotFoundError:
        return 0
