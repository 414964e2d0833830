"""What a ranker reads of requests beside the features of candidates: group sizes and histories.

Shapes: G requests, L history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.queries import Queries, newest

MAX_HISTORY = 50
"""Number of newest events of a history that rankers can read."""


@dataclass(frozen=True)
class History:
    """The newest events of each request's user, oldest first, right padded.

    All events are strictly before the request.
    """

    item_idx: np.ndarray  # (G, L) int64, 0 for padding
    seconds: np.ndarray  # (G, L) float32: seconds from the event to the request, 0 where padded
    type_code: np.ndarray  # (G, L) int64: code of the event type, 0 for unknown or padding

    @classmethod
    def of(cls, queries: Queries) -> "History":
        """Return the newest MAX_HISTORY events of the queries."""
        item_idx = newest(queries.history, max_history=MAX_HISTORY)
        time = newest(queries.history, queries.history_time, max_history=MAX_HISTORY)
        seconds = np.where(item_idx > 0, (queries.at[:, None] - time) / 1e6, 0)
        kinds = newest(queries.history, queries.history_type, max_history=MAX_HISTORY)
        return cls(item_idx, np.maximum(seconds, 0).astype(np.float32), kinds)

    @classmethod
    def empty(cls, num_requests: int) -> "History":
        """Return histories without events."""
        none = np.zeros((num_requests, 1), dtype=np.int64)
        return cls(none, none.astype(np.float32), none)

    @classmethod
    def concat(cls, parts: "Sequence[History]") -> "History":
        """Concatenate the requests of the parts, which may differ in L."""
        width = max(part.item_idx.shape[1] for part in parts)

        def join(name: str) -> np.ndarray:
            rows = [getattr(part, name) for part in parts]
            return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]))) for r in rows])

        return cls(join("item_idx"), join("seconds"), join("type_code"))

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.item_idx)

    def take(self, requests: np.ndarray | slice) -> "History":
        """Return the histories of the given requests, in the given order."""
        return History(self.item_idx[requests], self.seconds[requests], self.type_code[requests])

    def newest(self, length: int) -> "History":
        """Return the newest `length` events, padded to exactly `length` columns.

        The width is fixed because the rounding of float sums depends on it. A request's scores
        would otherwise depend on the other requests of a batch.
        """
        kept = (newest(self.item_idx, v, max_history=length) for v in vars(self).values())
        return History(*(np.pad(v, ((0, 0), (0, length - v.shape[1]))) for v in kept))


@dataclass(frozen=True)
class Requests:
    """Group sizes and histories of G requests whose candidates are contiguous rows."""

    group: np.ndarray  # (G,) int64: number of candidates of each request
    read_history: Callable[[], History]
    """Function that returns the histories. It is called when a ranker first reads them; rankers of
    trees never do."""

    @cached_property
    def history(self) -> History:
        return self.read_history()

    @classmethod
    def alone(cls, group: Sequence[int] | np.ndarray) -> "Requests":
        """Return requests of the given sizes without histories."""
        return cls(np.asarray(group, dtype=np.int64), lambda: History.empty(len(group)))
