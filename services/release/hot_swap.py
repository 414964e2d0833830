"""Replaces what a worker serves while requests are answered.

It swaps in a promoted release (set of models), new item features (a feature pack), and posted
changes of items (commands). A pointer is a file that names the current release or pack. One thread
checks both pointers and the command inbox, so swaps can't race.

A release is opened, verified, loaded and warmed while the old one serves. Then one reference is
changed. A request reads the reference once, so it uses one release from start to end. The old
release is freed when its last request has ended. A release or pack that can't be used is refused,
and the old one stays.
"""

import ctypes
import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from services import metrics
from services.release.serving import Serving
from shortlist.config import Settings
from shortlist.experiment import NO_EXPERIMENT, Experiment, experiment_file, running_experiment
from shortlist.feature_store import latest_pack
from shortlist.feature_store.packs import POINTER as PACK_POINTER
from shortlist.features.pack import FeaturePack
from shortlist.home.switches import sources_off
from shortlist.home.workers import Refused
from shortlist.items.commands import Command, CommandError, CommandInbox
from shortlist.releases.release import POINTER as RELEASE_POINTER
from shortlist.releases.release import Release, ReleaseStore

log = logging.getLogger("bentoml.shortlist")

CHECK_SECONDS = 1.0
"""Time between two checks for something new."""

Stamp = tuple[int, int]
"""Identity of one version of a file, see `_stamp`."""
Load = Callable[[Release, FeaturePack], Serving]


class HotSwap:
    """Holds the release and item features that are served, and replaces them if a pointer changes.

    Construct it before the first release and pack are read. Otherwise, one that is published in
    between would be missed.
    """

    def __init__(
        self,
        settings: Settings,
        load: Load,
        *,
        follow_releases: bool,
        switch_off: Callable[[frozenset[str]], None] = lambda names: None,
    ):
        """
        Args:
            load: function that loads and warms a release; may raise any error.
            follow_releases: False for a worker that is pinned to one release.
            switch_off: called at each check with the candidate sources that are switched off.
        """
        self._switch_off = switch_off
        self.refused: Refused | None = None
        self._settings, self._load = settings, load
        self._follow_releases = follow_releases
        self._pack_seen = _stamp(settings.packs / PACK_POINTER)
        self._pack_failed: tuple[Stamp | None, str] | None = None
        self._release_seen = _stamp(settings.releases / RELEASE_POINTER)
        self._serving: Serving | None = None
        self._experiment_seen: Stamp | None = None
        self._split: tuple[Experiment, dict[str, Serving]] | None = None
        self._published: FeaturePack | None = None
        self._pack: FeaturePack | None = None
        self._commands = CommandInbox.of(settings)
        self._pending: list[Command] = []
        self._inbox_failed = ""
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hot-swap", daemon=True)

    @property
    def serving(self) -> Serving:
        """The release that is served now. A request reads this once."""
        assert self._serving is not None, "begin comes first"
        return self._serving

    @property
    def pack(self) -> FeaturePack:
        """The item features that are served now, with posted changes of items."""
        assert self._pack is not None, "begin comes first"
        return self._pack

    @property
    def experiment(self) -> Experiment | None:
        """The running experiment, once its releases are loaded."""
        return None if self._split is None else self._split[0]

    def serving_for(self, user_id: str | None, arm: str | None = None) -> tuple[Serving, str]:
        """Return the release that answers a user, and the name of the user's arm.

        Without an experiment, or for a visitor without an id, this is the promoted release and
        NO_EXPERIMENT.

        Args:
            arm: forced arm, for tests.

        Raises:
            KeyError: the forced arm isn't in the running experiment.
        """
        split = self._split
        if split is None:
            if arm is not None:
                raise KeyError("no experiment runs")
            return self.serving, NO_EXPERIMENT
        experiment, others = split
        if arm is not None and arm not in experiment.config.shares:
            raise KeyError(f"want one of {', '.join(experiment.config.shares)}")
        if arm is None:
            if user_id is None:
                return self.serving, NO_EXPERIMENT
            arm = experiment.arm_of(user_id)
        return others.get(arm, self.serving), arm

    def begin(self, release: Release) -> None:
        """Load the first release and the newest item features.

        Raises:
            ReleaseError, PackError: the release or the item features can't be used.
        """
        self._published = latest_pack(self._settings.packs)
        self._read_commands()
        self._pack = self._with_pending(self._published)
        self._serving = self._load(release, self._pack)
        metrics.RELEASE.labels(release.release_id).set(1)
        if self._follow_releases:
            self._check_experiment()

    def start(self) -> None:
        """Check every CHECK_SECONDS in a thread, until `stop`."""
        self._thread.start()

    def wake(self) -> None:
        """Let the thread check now instead of after CHECK_SECONDS."""
        self._wake.set()

    @property
    def commands_applied(self) -> int:
        """Number of the last command whose change of an item shows in the lists."""
        return 0 if self._pack is None else self._pack.commands

    @property
    def commands_published(self) -> int:
        """Number of the last command that a refresh has included in the item features."""
        return 0 if self._published is None else self._published.commands

    @property
    def commands_pending(self) -> int:
        """Number of applied commands that no refresh has included in the item features yet."""
        return self.commands_applied - self.commands_published

    def stop(self) -> None:
        """End the thread. Wait for a load in progress for at most 5 seconds."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def check(self) -> bool:
        """Swap in what was published or posted since the last check.

        Returns True if something was swapped.
        """
        self._switch_off(sources_off(self._settings))
        # Item features come first, so that a release swapped in by the same check starts with them.
        swapped = self._check_pack()
        if self._follow_releases:
            swapped |= self._check_release()
            swapped |= self._check_experiment()
        return swapped

    def _check_experiment(self) -> bool:
        """Load the releases of a started experiment, or drop those of an ended one.

        Users are split only when all releases are loaded, so that no arm starts earlier than
        another. If one can't be loaded, nobody is split, and readiness reports the reason.
        """
        stamp = _stamp(experiment_file(self._settings))
        if stamp == self._experiment_seen:
            return False
        self._experiment_seen = stamp
        self._split = None
        others: dict[str, Serving] = {}
        release_id = "unknown"
        try:
            experiment = running_experiment(self._settings)
            if experiment is not None:
                store = ReleaseStore(self._settings.releases)
                assert self._pack is not None
                for arm in experiment.config.arm:
                    release_id = arm.release or self.serving.release_id
                    if arm.release is not None:
                        others[arm.name] = self._load(store.open(arm.release), self._pack)
        except Exception as error:
            # Any error, also of the file: everybody keeps the promoted release.
            self.refused = Refused(release_id, f"{type(error).__name__}: {error}")
            metrics.SWAPS.labels("experiment", "refused").inc()
            log.exception("experiment: a release can't be loaded, nobody is split")
            return False
        if experiment is None:
            log.info("no experiment runs")
            free_memory()
            return True
        self._split = experiment, others
        metrics.SWAPS.labels("experiment", "swapped").inc()
        log.info("experiment %s: %s", experiment.name, ", ".join(experiment.config.shares))
        return True

    def _check_pack(self) -> bool:
        stamp = _stamp(self._settings.packs / PACK_POINTER)
        is_new = stamp is not None and stamp != self._pack_seen
        try:
            self._read_commands()
            newest = self._pending[-1].number if self._pending else 0
            if not is_new and newest <= self.commands_applied:
                return False
            published = latest_pack(self._settings.packs) if is_new else self._published
            assert published is not None
            pack = self._with_pending(published)
            for serving in (self.serving, *(self._split[1].values() if self._split else ())):
                serving.recommender.swap_pack(pack)
        except Exception as error:
            # Any error: if this thread ended, item features would become stale unnoticed.
            if (stamp, str(error)) != self._pack_failed:
                log.exception("pack: the new pack cannot be used, the previous one stays")
                metrics.SWAPS.labels("item features", "refused").inc()
            self._pack_failed = stamp, str(error)
            return False
        if is_new:
            self._pack_seen, self._published = stamp, published
        self._pack, self._pack_failed = pack, None
        metrics.SWAPS.labels("item features", "swapped").inc()
        log.info("pack %s swapped in", pack.pack_id)
        return True

    def _read_commands(self) -> None:
        """Read the commands that were posted since the last check. If the inbox can't be read, the
        commands read before stay.
        """
        known = self._pending[-1].number if self._pending else self.commands_published
        try:
            new = self._commands.after(known)
        except CommandError as error:
            if str(error) != self._inbox_failed:
                log.error("posted changes of items can't be followed: %s", error)
            self._inbox_failed = str(error)
            return
        self._inbox_failed = ""
        self._pending += new

    def _with_pending(self, published: FeaturePack) -> FeaturePack:
        """Return the pack with all commands that it doesn't contain; the other ones are dropped."""
        self._pending = [one for one in self._pending if one.number > published.commands]
        return published.with_commands(self._pending)

    def _check_release(self) -> bool:
        """Swap in the promoted release, if the pointer has changed.

        A refused release is retried only if its pointer is written again.
        """
        stamp = _stamp(self._settings.releases / RELEASE_POINTER)
        if stamp is None or stamp == self._release_seen:
            return False
        self._release_seen = stamp
        release_id = "unknown"
        try:
            store = ReleaseStore(self._settings.releases)
            release_id = store.current_id() or release_id
            if release_id == self.serving.release_id:
                self.refused = None
                return False
            assert self._pack is not None
            new = self._load(store.open(release_id), self._pack)
        except Exception as error:
            # Any error: the old release continues to serve.
            self.refused = Refused(release_id, f"{type(error).__name__}: {error}")
            metrics.SWAPS.labels("release", "refused").inc()
            log.exception("release %s refused, %s stays", release_id, self.serving.release_id)
            return False
        self._replace(new)
        return True

    def _replace(self, new: Serving) -> None:
        old, self._serving, self.refused = self.serving, new, None
        metrics.RELEASE.labels(old.release_id).set(0)
        metrics.RELEASE.labels(new.release_id).set(1)
        metrics.SWAPS.labels("release", "swapped").inc()
        log.info("release %s swapped in for %s", new.release_id, old.release_id)
        del old
        free_memory()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(CHECK_SECONDS)
            self._wake.clear()
            if not self._stopping.is_set():
                self.check()


def free_memory() -> None:
    """Collect garbage, and return freed memory to the system if glibc is the allocator."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _stamp(path: Path) -> Stamp | None:
    """Return a value that changes whenever the file is replaced; None if the file is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
