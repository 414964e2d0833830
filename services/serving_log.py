"""The serving log: one JSON line per response of /recommend.

A background thread writes it, so that no request waits for the disk.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from services import metrics
from shortlist.behaviour.shown_items import ShownItems
from shortlist.experiment import NO_EXPERIMENT
from shortlist.ids import ANONYMOUS

if TYPE_CHECKING:
    from models.recommend.slate import Slate

log = logging.getLogger("bentoml.shortlist")

CAPACITY = 10_000
"""Maximum number of responses that wait for the disk. Further ones are dropped and counted, so that
a slow disk neither delays responses nor fills the memory.
"""


TAIL_BYTES = 1_000_000
"""Number of bytes at the end of a log file that `logged_users` reads. A line has about 30 kB."""


class ServingLog:
    """Appends lines to `<folder>/date=YYYY-MM-DD/`, in one file per process and day.

    Call `close` to write all lines that are still queued.
    """

    def __init__(self, folder: Path, *, capacity: int = CAPACITY, shown: ShownItems | None = None):
        """
        Args:
            capacity: maximum number of waiting responses.
            shown: records the items of each written response.
        """
        self.folder = folder
        self._shown = shown
        self._queue: queue.Queue[Callable[[], dict[str, Any]] | None] = queue.Queue(capacity)
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="serving-log", daemon=True)
        self._thread.start()

    def write(self, entry: Callable[[], dict[str, Any]]) -> None:
        """Queue one response without waiting; drop and count it if the queue is full.

        Args:
            entry: returns the content of the line; called by the log's thread.
        """
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            metrics.LOG_DROPPED.inc()

    def close(self) -> None:
        """Write all queued responses, then end the thread. Don't call `write` afterwards."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        file: IO[bytes] | None = None
        day = ""
        while (make := self._queue.get()) is not None:
            try:
                today = datetime.now(UTC).strftime("%Y-%m-%d")
                if file is None or today != day:
                    file = self._open(today, before=file)
                    day = today
                entry = make()
                if self._shown is not None:
                    self._shown.record(entry)
                file.write(orjson.dumps(entry) + b"\n")
                if self._queue.empty():
                    file.flush()
            except Exception:
                # If this thread ended, all later responses would be dropped.
                metrics.LOG_DROPPED.inc()
                file = _abandon(file)
                if not self._is_failing:
                    log.exception("serving log: a response can't be written; it was dropped")
                self._is_failing = True
            else:
                self._is_failing = False
            if self._shown is not None and self._queue.empty():
                self._shown.flush()
        if self._shown is not None:
            self._shown.flush()
        if file is not None:
            file.close()

    def _open(self, day: str, *, before: IO[bytes] | None) -> IO[bytes]:
        if before is not None:
            before.close()
        folder = self.folder / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        # A new file each time, because the old one may end with an incomplete line after a failure.
        return (folder / f"{os.getpid()}-{time.time_ns()}.jsonl").open("ab")


def _abandon(file: IO[bytes] | None) -> None:
    """Close a file that can't be written; the content of its buffer is lost."""
    with contextlib.suppress(OSError):
        if file is not None:
            file.close()


def logged_users(folder: Path, count: int) -> list[str]:
    """Return up to `count` users of the newest responses in a serving log, to warm up a release.

    Only the end of the newest file is read. If it can't be read, there are fewer users.
    """
    users: dict[str, None] = {}
    with contextlib.suppress(OSError, ValueError):
        newest = max(folder.glob("*/*.jsonl"), key=lambda path: path.stat().st_mtime)
        with newest.open("rb") as file:
            file.seek(max(0, newest.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[1:-1]  # the first one may be incomplete
        for line in reversed(lines):
            user_id = orjson.loads(line)["user_id"]
            if user_id != ANONYMOUS and len(users) < count:
                users[user_id] = None
    return list(users)


def entry_of(
    slate: "Slate",
    *,
    request_id: str,
    user_id: str,
    clock: str,
    seconds: float,
    arm: str = NO_EXPERIMENT,
    forced: bool = False,
) -> dict[str, Any]:
    """Return one line of the log.

    It has the fields of SERVING_LOG (shortlist/contracts.py), with the items nested. It also has
    `as_of` and `stamps` per feature view, the type of clock, the names of business rules, and the
    time of each stage and of the whole request in milliseconds.

    Args:
        clock: "wall" or "replay".
        seconds: duration of the request.
        arm: the user's arm in the running experiment.
        forced: whether the request named its arm; such requests are left out of comparisons.
    """
    return {
        "request_id": request_id,
        "release_id": slate.release_id,
        "pack_id": slate.pack_id,
        "arm": arm,
        "forced": forced,
        "user_id": user_id,
        "context_id": slate.context_id,
        "event_timestamp": slate.at,
        "user_as_of": slate.user_as_of or None,
        "as_of": {view: time or None for view, time in slate.as_of.items()},
        "stamps": slate.stamps,
        "clock": clock,
        "delta_epoch": 0,
        "rules_version": slate.rules_version,
        "rules": slate.rules,
        "seed": slate.seed,
        "skipped_stages": slate.skipped_stages,
        "stages": {name: round(each * 1e3, 3) for name, each in slate.stage_seconds.items()},
        "milliseconds": round(seconds * 1e3, 3),
        "items": [
            {
                "item_id": item.item_id,
                "position": item.rank,
                "source": item.source,
                "score": item.score,
                "propensity": propensity,
                "features": features,
                "rules": item.rules,
            }
            for item, propensity, features in zip(
                slate.items, slate.propensities, slate.features, strict=True
            )
        ],
    }
