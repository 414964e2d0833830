"""The home's clock, started from what the home holds."""

from shortlist.clock import ClockKind, HomeClock
from shortlist.config import Settings
from shortlist.feature_store.snapshots import Snapshots
from shortlist.lake import Lake, LakeError


def home_clock(settings: Settings, kind: ClockKind, *, otherwise: int | None = None) -> HomeClock:
    """The clock of this home.

    A replay clock that was never set begins at the moment up to which the states are built, else at
    `otherwise` (microseconds, the end of a release's data), else just after the newest event.
    """
    snapshots = Snapshots.read(settings.features)
    if snapshots is not None:
        return HomeClock(settings, kind, start=snapshots.until)
    if otherwise is not None:
        return HomeClock(settings, kind, start=otherwise)
    try:
        newest = Lake(settings.lake).manifest.latest
    except LakeError:
        newest = None
    return HomeClock(settings, kind, start=0 if newest is None else newest + 1)
