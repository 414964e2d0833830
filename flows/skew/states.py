"""Reads recomputed states as they were served, and computes how far each view was behind the lake.

The serving log has an `as_of` for each feature view: the time of the newest event in its state.
User views have one row per change, so they are behind if the lake had a newer event of the user.
Item and context views have one row per tick (a time at which item features change). Their lag is
the time from the last tick at which the served state was current to the newest tick.
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
    """One response of the serving log, with the versions of its inputs. Times are microseconds."""

    request_id: str
    user_id: str
    context_id: str
    at: int
    clock: str  # clock of the service: wall or replay
    as_of: dict[str, int]  # view -> time of the newest event in the served state, 0 for none
    pack_as_of: int  # tick of the feature pack (the item features) that the service used
    item_ids: Sequence[str]
    features: np.ndarray  # (C, F) float32
    pack_id: str = ""
    stamps: dict[str, int] = field(default_factory=dict)
    """View -> time up to which its row in the online store contained all events. Empty in lines
    that earlier versions of the code have logged.
    """


@dataclass(frozen=True)
class Lag:
    """How far a view was behind the lake at each of B requests."""

    seconds: np.ndarray  # (B,)
    judged: np.ndarray  # (B,) bool: whether the request counts in the share of stale requests
    by_tick: bool
    """Whether the view has rows only at ticks. Then `report` allows a lag of `days_allowed`."""
    unreachable: int = 0
    """Number of requests whose logged as_of matches no state of the lake. These requests are
    compared with the newest state before that time.
    """

    def followed_by(self, other: "Lag") -> "Lag":
        """Concatenate the lags of two groups of requests."""
        return Lag(
            seconds=np.concatenate([self.seconds, other.seconds]),
            judged=np.concatenate([self.judged, other.judged]),
            by_tick=self.by_tick,
            unreachable=self.unreachable + other.unreachable,
        )

    def report(self, *, days_allowed: float) -> dict[str, Any]:
        """Return the number and share of stale requests among the judged ones, and their lags."""
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
    """Read the lake's states of each request, each view as of its logged `as_of`.

    Args:
        reader: reads the recomputed states as of any time.
        snapshots: folder of those states.
        tick: tick length of items and contexts in microseconds.
        events: Parquet files of the events from which the states were built. They are needed if a
            refresh may have run while the requests were served (refreshed.py).

    Returns:
        The states, with the logged request times as `at`; and view -> lag.
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
            else:  # for a user without a served state, the lag starts at the first missing row
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
    """Return the lag of the item features: how much older each pack was than the newest tick."""
    at = np.array([response.at for response in logged], dtype=np.int64)
    served = np.array([response.pack_as_of for response in logged], dtype=np.int64)
    seconds = np.maximum(newest_tick(at, tick) - served, 0) / 1e6
    return Lag(seconds=seconds, judged=_on_the_wall(logged), by_tick=True)


def _on_the_wall(logged: Sequence[Logged]) -> np.ndarray:
    """Return (B,) bool: whether a request was served on the wall clock.

    A replay uses one feature pack for weeks of data time on purpose, so its lag isn't judged.
    """
    return np.array([response.clock == "wall" for response in logged])
