"""Creates the home's clock with a start time taken from the home's data."""

from shortlist.clock import ClockKind, HomeClock
from shortlist.config import Settings
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.lake import Lake, LakeError


def home_clock(settings: Settings, kind: ClockKind, *, otherwise: int | None = None) -> HomeClock:
    """Return the clock of this home.

    A replay clock starts no earlier than the end of the states and the lake's newest event. Without
    states and events it starts at `otherwise` (microseconds, the end of a release's data).
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
