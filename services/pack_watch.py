"""Swaps in a new feature pack soon after `featurize` has published it."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from shortlist.feature_store import latest_pack
from shortlist.feature_store.packs import POINTER
from shortlist.pack import FeaturePack

log = logging.getLogger("bentoml.shortlist")

CHECK_SECONDS = 2.0


class PackWatch:
    """Looks at the pointer's stamp: cheaper than reading it, and it changes with every publish.

    Make it before the first pack is loaded, so that none published meanwhile is missed.
    """

    def __init__(self, packs: Path, swap: Callable[[FeaturePack], None]):
        self.packs = packs
        self.swap = swap
        self._seen = self._stamp()
        self._failed: tuple[int, int] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Check every CHECK_SECONDS in a thread of its own, until `stop`."""
        threading.Thread(target=self._run, name="pack-watch", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def check(self) -> bool:
        """Swap if a pack was published since the last one; False also if it cannot be used."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return False
        try:
            pack = latest_pack(self.packs)
            self.swap(pack)
        except Exception:
            # Whatever is wrong with it: if this thread ended, packs would go stale in silence.
            if stamp != self._failed:
                log.exception("pack: the new one cannot be used, the one before stays")
            self._failed = stamp
            return False
        self._seen = stamp
        log.info("pack %s swapped in", pack.pack_id)
        return True

    def _stamp(self) -> tuple[int, int] | None:
        """Changes with each publish, which replaces the file."""
        try:
            found = (self.packs / POINTER).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            self.check()
