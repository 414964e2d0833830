"""The lake's states as they were served: each view at its own logged as_of, and how far it was
behind the lake at that moment.

Users have a row a change: their views are behind as soon as the lake knew a newer event. Items and
contexts have a row a tick: theirs are behind by the ticks that the service had not taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flows.skew.refreshed import with_view, without_later_refreshes
from shortlist.feature_store import FeatureReader, stamps_around
from shortlist.features.finalize import RequestRows
from shortlist.ticks import newest_tick

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Logged:
    """One logged response, with what it says it was made of. Times in microseconds."""

    request_id: str
    user_id: str
    context_id: str
    at: int
    clock: str  # of the service: wall or replay
    as_of: dict[str, int]  # view -> time of the newest event in the served state, 0 for none
    pack_as_of: int  # the pack's tick
    item_ids: Sequence[str]
    features: np.ndarray  # (C, F) float32
    pack_id: str = ""
    stamps: dict[str, int] = field(default_factory=dict)
    """View -> moment up to which its base row held all events; lines of before have none."""


@dataclass(frozen=True)
class Lag:
    """How far a view was behind the lake, by request."""

    seconds: np.ndarray  # (B,)
    judged: np.ndarray  # (B,) bool: a lag of this request counts
    by_tick: bool
    """The view has rows at ticks only and may be behind by the days that are allowed."""
    unreachable: int = 0
    """Requests whose logged as_of is no state that the lake ever had; compared with the nearest."""

    def followed_by(self, other: "Lag") -> "Lag":
        """The lags of both groups of requests."""
        return Lag(
            seconds=np.concatenate([self.seconds, other.seconds]),
            judged=np.concatenate([self.judged, other.judged]),
            by_tick=self.by_tick,
            unreachable=self.unreachable + other.unreachable,
        )

    def report(self, *, days_allowed: float) -> dict[str, Any]:
        """Requests that were stale, of those judged, and by how much."""
        allowed = days_allowed * SECONDS_PER_DAY if self.by_tick else 0.0
        stale = self.seconds[self.judged & (self.seconds > allowed)]
        return {
            "by_tick": self.by_tick,
            "judged": int(self.judged.sum()),
            "requests": len(stale),
            "share": len(stale) / max(int(self.judged.sum()), 1),
            "p50_seconds": float(np.median(stale)) if len(stale) else 0.0,
            "max_seconds": float(self.seconds.max(initial=0.0)),
            "unreachable": self.unreachable,
        }


def states_as_logged(
    logged: Sequence[Logged],
    reader: FeatureReader,
    *,
    snapshots: Path,
    tick: int,
    events: Sequence[Path] = (),
) -> tuple[RequestRows, dict[str, Lag]]:
    """The lake's states of each request, every view as of what was served of it.

    Args:
        reader: point-in-time states out of the lake.
        snapshots: the folder of those states.
        tick: their grid, microseconds.
        events: Parquet files of what the states were built from, where it may have come while the
            requests were answered (refreshed.py).

    Returns:
        Rows stamped with the logged request times, and the lag of each view.
    """
    users = [response.user_id for response in logged]
    contexts = [response.context_id for response in logged]
    at = np.array([response.at for response in logged], dtype=np.int64)
    newest = reader.read(users, contexts, at)
    newest = rows = without_later_refreshes(
        newest,
        reader,
        stamps=[response.stamps for response in logged],
        events=events,
        snapshots=snapshots,
    )
    lags = {}
    for view, latest in newest.as_of.items():
        served = np.array([response.as_of[view] for response in logged], dtype=np.int64)
        behind = latest > served
        seconds = np.zeros(len(logged))
        by_tick = view == "context_trend"
        if behind.any():
            keys = contexts if by_tick else users
            had, missed = stamps_around(snapshots, view, keys=keys, as_of=served, at=at)
            older = reader.read(users, contexts, np.where(behind, had, at))
            rows = with_view(rows, older, view)
            if by_tick:
                since_missed = newest_tick(at, tick) - (missed - tick)
                seconds = np.where(behind, since_missed, 0) / 1e6
            else:  # whoever was not known at all was missed since the first row
                since = np.where(served > 0, served, missed)
                seconds = np.where(behind, np.maximum(latest - since, 1), 0) / 1e6
        lags[view] = Lag(
            seconds=seconds,
            judged=_on_the_wall(logged) if by_tick else np.ones(len(logged), dtype=bool),
            by_tick=by_tick,
            unreachable=int((rows.as_of[view] != served).sum()),
        )
    return rows, lags


def pack_lag(logged: Sequence[Logged], *, tick: int) -> Lag:
    """How much older each pack's tick was than the newest one."""
    at = np.array([response.at for response in logged], dtype=np.int64)
    served = np.array([response.pack_as_of for response in logged], dtype=np.int64)
    seconds = np.maximum(newest_tick(at, tick) - served, 0) / 1e6
    return Lag(seconds=seconds, judged=_on_the_wall(logged), by_tick=True)


def _on_the_wall(logged: Sequence[Logged]) -> np.ndarray:
    """A replay takes a window of weeks through one pack on purpose: its days are not counted."""
    return np.array([response.clock == "wall" for response in logged])
