"""State and features of a user's latest searches.

The state holds the newest MAX_SEARCHES queries with their times, and the total number of searches.
If the log has no searches, the features are constant. Features that match queries with items are in
models/ranking/features/searches.py.

Shapes: B requests.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY

MAX_SEARCHES = 5
"""Number of queries kept per user."""
MAX_QUERY = 200
"""Number of characters kept of a query."""
SEARCH = "search"
"""The event type that has a query."""

USER_SEARCHES = ("search_queries", "search_times", "search_count")
USER_SEARCH_FEATURES = (
    "user_searches_log",
    "user_searches_1d_log",
    "user_minutes_since_search_log",
)


@dataclass(frozen=True)
class Searches:
    """The newest searches of one user, oldest first; the fields are the columns of USER_SEARCHES.

    Times are in microseconds; `count` is the number of all searches.
    """

    queries: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    count: int = 0

    @property
    def last_time(self) -> int:
        """Time of the newest search, 0 without searches."""
        return self.times[-1] if self.times else 0

    def columns(self) -> dict[str, Any]:
        """Return the state under the names of USER_SEARCHES."""
        return {
            "search_queries": list(self.queries),
            "search_times": list(self.times),
            "search_count": self.count,
        }

    def before(self, at: int) -> "Searches":
        """Return the searches strictly before `at` (microseconds).

        Later ones can occur, because an online state may be newer than a request.
        """
        kept = bisect_left(self.times, at)
        gone = len(self.times) - kept
        if not gone:
            return self
        return Searches(self.queries[:kept], self.times[:kept], self.count - gone)

    def with_search(self, query: str, *, timestamp: int) -> "Searches":
        """Return the state after one more search, which may be older than the known ones.

        At equal times, the search that arrives later counts as newer.
        """
        index = bisect_right(self.times, timestamp)
        queries = (*self.queries[:index], query[:MAX_QUERY], *self.queries[index:])
        times = (*self.times[:index], timestamp, *self.times[index:])
        return Searches(queries[-MAX_SEARCHES:], times[-MAX_SEARCHES:], self.count + 1)


NO_SEARCHES = Searches()


def user_search_features(searches: Sequence[Searches], at: np.ndarray) -> list[np.ndarray]:
    """Return USER_SEARCH_FEATURES of B requests at times `at` (B,): one array (B,) for each
    feature.
    """
    if not any(state.times for state in searches):
        return [np.zeros(len(searches))] * len(USER_SEARCH_FEATURES)
    count = np.array([state.count for state in searches], dtype=np.float64)
    last = np.array([state.last_time for state in searches], dtype=np.int64)
    of_day = [
        len(state.times) - bisect_left(state.times, now - MICROSECONDS_PER_DAY)
        for state, now in zip(searches, at.tolist(), strict=True)
    ]
    minutes = np.where(last > 0, at - last, 0) / 60e6
    return [
        np.log1p(count),
        np.log1p(np.array(of_day, dtype=np.float64)),
        np.log1p(np.maximum(minutes, 0)),
    ]
