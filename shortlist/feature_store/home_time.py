"""The home's clock, started from what the home holds."""

from shortlist.clock import ClockKind, HomeClock
from shortlist.config import Settings
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.lake import Lake, LakeError


def home_clock(settings: Settings, kind: ClockKind, *, otherwise: int | None = None) -> HomeClock:
    """The clock of this home.

    On the replay clock it isn't earlier than the states' end and the newest event of the lake. A
    home without either begins at `otherwise` (microseconds, the end of a release's data).
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
