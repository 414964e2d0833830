"""A thread that writes this worker's heartbeat file, which names the release that it serves.

A promotion waits until the heartbeats name the promoted release (shortlist/home/workers.py). The
thread is separate from that of hot_swap.py, because loading a large release may take long. The
worker would then count as stopped.
"""

import logging
import threading
from collections.abc import Callable

from shortlist.config import Settings
from shortlist.home.workers import Heartbeat, Refused
from shortlist.http.api import Readiness

log = logging.getLogger("bentoml.shortlist")

BEAT_SECONDS = 2.0
"""Time between heartbeats."""
LOOK_SECONDS = 0.25
"""Time between checks of readiness. A change is written at once, so that promotions needn't wait
for the next heartbeat."""


class Heartbeats:
    """Writes the heartbeat file, from construction until `stop`, which removes the file."""

    def __init__(self, settings: Settings, readiness: Callable[[], Readiness]):
        self._heartbeat = Heartbeat(settings)
        self._readiness = readiness
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)
        self._heartbeat.remove()

    def _run(self) -> None:
        said: Readiness | None = None
        looks = failures = 0
        while True:
            try:
                ready = self._readiness()
                if ready != said or looks * LOOK_SECONDS >= BEAT_SECONDS:
                    self._beat(ready)
                    said, looks, failures = ready, 0, 0
            except OSError as error:  # e.g. a full disk: continue
                failures += 1
                if failures == 1:
                    log.error("heartbeat: not written: %s", error)
            looks += 1
            if self._stopping.wait(LOOK_SECONDS):
                return

    def _beat(self, ready: Readiness) -> None:
        refused = ready.refused
        self._heartbeat.beat(
            release_id=ready.release_id,
            pack_id=ready.pack_id,
            pinned=ready.pinned_by is not None,
            refused=refused and Refused(refused.release_id, refused.reason),
        )
