"""The serving log: one JSON line a response, written by a thread of its own so that no request
waits for the disk.
"""

import json
import logging
import os
import queue
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from models.recommend.recommender import Slate

log = logging.getLogger("shortlist.serving_log")

CAPACITY = 10_000
"""Responses waiting for the disk; a full queue makes requests wait rather than lose a line."""


class ServingLog:
    """Appends under `serving_log/date=YYYY-MM-DD/`, one file a process. Close it to flush."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._name = f"{os.getpid()}-{time.time_ns()}.jsonl"
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(CAPACITY)
        self._thread = threading.Thread(target=self._write, name="serving-log", daemon=True)
        self._thread.start()

    def write(self, entry: dict[str, Any]) -> None:
        self._queue.put(entry)

    def close(self) -> None:
        """Write everything that waits, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        file: TextIO | None = None
        day = ""
        while (entry := self._queue.get()) is not None:
            try:
                today = datetime.now(UTC).strftime("%Y-%m-%d")
                if file is None or today != day:
                    if file is not None:
                        file.close()
                    folder = self.folder / f"date={today}"
                    folder.mkdir(parents=True, exist_ok=True)
                    file = (folder / self._name).open("a", encoding="utf-8")
                    day = today
                file.write(json.dumps(entry) + "\n")
                if self._queue.empty():
                    file.flush()
            except OSError:
                log.exception("serving log: a response could not be written")
        if file is not None:
            file.close()


def entry_of(
    slate: Slate, *, request_id: str, user_id: str, at: int, seconds: float
) -> dict[str, Any]:
    """One line: the keys of SERVING_LOG, items nested, and the milliseconds it took."""
    return {
        "request_id": request_id,
        "release_id": slate.release_id,
        "pack_id": slate.pack_id,
        "arm": "main",
        "user_id": user_id,
        "context_id": slate.context_id,
        "event_timestamp": at,
        "user_as_of": slate.user_as_of or None,
        "delta_epoch": 0,
        "rules_version": slate.rules_version,
        "seed": None,
        "skipped_stages": slate.skipped_stages,
        "milliseconds": round(seconds * 1e3, 3),
        "items": [
            {
                "item_id": item.item_id,
                "position": item.rank,
                "source": item.source,
                "score": item.score,
                "propensity": propensity,
                "features": features,
            }
            for item, propensity, features in zip(
                slate.items, slate.propensities, slate.features, strict=True
            )
        ],
    }
