"""Ranking features of the user's earlier events with a candidate.

They are used only if consumed items may be recommended again (`[data] repeats`).

Shapes: B requests, C candidates, L history, I distinct items of a history.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.queries import Queries
from shortlist.columns import MICROSECONDS_PER_DAY

HALF_LIFE = 14 * MICROSECONDS_PER_DAY
"""Half-life of `own_recent_activity`."""


@dataclass(frozen=True)
class OwnHistory:
    """History of one request, grouped by item."""

    items: np.ndarray  # (L,) item_idx
    times: np.ndarray  # (L,) int64 microseconds
    at: int  # microseconds, of the request

    @cached_property
    def by_item(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(I,) item_idx ascending, (L,) index of each event's item, (I,) number of events."""
        return np.unique(self.items, return_inverse=True, return_counts=True)

    @property
    def known(self) -> np.ndarray:
        """(I,) item_idx of the distinct items, ascending."""
        return self.by_item[0]

    @property
    def count(self) -> np.ndarray:
        """(I,) number of events of each item."""
        return self.by_item[2]

    @cached_property
    def decayed(self) -> np.ndarray:
        """(I,) time-decayed number of events, with half-life HALF_LIFE."""
        age = np.maximum(self.at - self.times, 0)
        return np.bincount(self.by_item[1], weights=np.exp2(-age / HALF_LIFE))

    @cached_property
    def since_last(self) -> np.ndarray:
        """(I,) microseconds since the newest event."""
        last = np.zeros(len(self.known), dtype=np.int64)
        np.maximum.at(last, self.by_item[1], self.times)
        return np.maximum(self.at - last, 0)

    @cached_property
    def due(self) -> np.ndarray:
        """(I,) time since the newest event / mean time between events; 0 for a single event.

        Above 1, the user's next event with the item is overdue.
        """
        first = np.full(len(self.known), self.at, dtype=np.int64)
        last = np.zeros(len(self.known), dtype=np.int64)
        np.minimum.at(first, self.by_item[1], self.times)
        np.maximum.at(last, self.by_item[1], self.times)
        gap = np.where(self.count > 1, (last - first) / np.maximum(self.count - 1, 1), 0)
        return np.divide(self.since_last, gap, out=np.zeros(len(self.known)), where=gap > 0)


REPEAT: dict[str, Callable[[OwnHistory], np.ndarray]] = {
    "own_events_log": lambda own: np.log1p(own.count),
    "own_recent_activity": lambda own: np.log1p(own.decayed),
    "own_days_since_last_log": lambda own: np.log1p(own.since_last / MICROSECONDS_PER_DAY),
    "own_due_log": lambda own: np.log1p(own.due),
    "own_share": lambda own: own.count / len(own.items),
}
"""Feature name -> function that returns its values for the items of a history, (I,); in column
order."""


def repeat_features(queries: Queries, candidates: np.ndarray) -> np.ndarray:
    """Compute REPEAT features: (B, C) item_idx -> (B, C, len(REPEAT)) float32.

    Items that are not in the history have zeros.
    """
    out = np.zeros((*candidates.shape, len(REPEAT)), dtype=np.float32)
    for row, length in enumerate(queries.lengths):
        if length:
            own = OwnHistory(
                queries.history[row, :length],
                queries.history_time[row, :length],
                int(queries.at[row]),
            )
            values = np.column_stack([feature(own) for feature in REPEAT.values()])
            place = np.minimum(np.searchsorted(own.known, candidates[row]), len(own.known) - 1)
            consumed = (own.known[place] == candidates[row]) & (candidates[row] > 0)
            out[row] = np.where(consumed[:, None], values[place], 0)
    return out
