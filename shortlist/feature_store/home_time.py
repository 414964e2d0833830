"""Creates the clock of a home (the folder SHORTLIST_HOME), with a start time from its data."""

from shortlist.clock import ClockKind, HomeClock
from shortlist.config import Settings
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.lake import Lake, LakeError


def home_clock(settings: Settings, kind: ClockKind, *, otherwise: int | None = None) -> HomeClock:
    """Return the clock of this home.

    A replay clock starts no earlier than the end of the feature states and the lake's newest event.

    Args:
        otherwise: microseconds, start of a replay clock without states and events: the end of the
            data of the release that is served.
    """
    snapshots = Snapshots.read(settings.features)
    try:
        newest = Lake(settings.lake).manifest.latest
    except LakeError:
        newest = None
    known = [
        *([] if snapshots is None else [snapshots.until]),
        *([] if newest is None else [newest + 1]),
    ]
    return HomeClock(settings, kind, start=max(known, default=otherwise or 0))
