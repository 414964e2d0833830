"""A release that is loaded beside the serving one, to compare lists in the console."""

import threading
from collections.abc import Callable

from services.release.serving import Serving
from shortlist.config import Settings
from shortlist.features.pack import FeaturePack
from shortlist.releases.release import Release, ReleaseStore


class Beside:
    """Loads other releases and keeps the last one: it needs as much memory as the serving one."""

    def __init__(self, settings: Settings, load: Callable[[Release, FeaturePack], Serving]):
        self._settings, self._load = settings, load
        self._kept: Serving | None = None
        self._lock = threading.Lock()

    def open(self, release_id: str, pack: FeaturePack) -> Serving:
        """Return a release that uses the given item features; loading it takes seconds.

        Raises:
            ReleaseError, PackError: the release can't be used.
        """
        with self._lock:
            kept = self._kept
            if kept is None or kept.release_id != release_id:
                self._kept = None  # free its memory first
                del kept
                release = ReleaseStore(self._settings.releases).open(release_id)
                kept = self._kept = self._load(release, pack)
            elif kept.recommender.items.pack_id != pack.pack_id:
                kept.recommender.swap_pack(pack)
            return kept
