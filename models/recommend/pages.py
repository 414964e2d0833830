"""Pages of one list: what a cursor continues, and the cursor of the next page.

Page 2 ranks the list of page 1 again, as of the same moment, and leaves out what was shown. So
events that the user posts between two pages don't change the order. What the user consumed or
refused since is left out as well. If the release changed, or the list is older than MAX_AGE, the
rest is ranked as of now.

Shapes: N items, S items shown so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.recommend.tiers import Ranked
from shortlist import columns as c
from shortlist.api import RecommendRequest
from shortlist.cursor import MAX_SHOWN, NO_KEYS, Cursor, item_key

MAX_AGE = c.MICROSECONDS_PER_HOUR
"""A list is continued as of its first page for this long: online states are kept for now only."""
NOTHING = np.empty(0, dtype=np.int64)


class ItemKeys:
    """The keys of a catalogue's items in both directions."""

    def __init__(self, item_ids: Sequence[str]):
        """
        Args:
            item_ids: ids of item_idx 1 to N.
        """
        self._keys = np.array([0, *map(item_key, item_ids)], dtype=np.uint64)
        self._order = np.argsort(self._keys[1:], kind="stable") + 1
        self._sorted = self._keys[self._order]

    def of(self, item_idx: np.ndarray) -> np.ndarray:
        """(S,) item_idx -> (S,) uint64 keys."""
        return self._keys[item_idx]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Keys -> item_idx. Items that are not in the catalogue are left out."""
        if len(self._order) == 0 or len(keys) == 0:
            return NOTHING
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._order) - 1)
        found = self._order[place]
        return found[self._keys[found] == keys]


@dataclass(frozen=True)
class Page:
    """The place of one answer in a list."""

    at: int
    """Time as of which the list is ranked, microseconds."""
    number_before: int
    """Number of items on earlier pages."""
    shown: np.ndarray
    """item_idx on earlier pages."""
    before: np.ndarray
    """Keys of the items on earlier pages, including items that left the catalogue."""

    @classmethod
    def of(cls, request: RecommendRequest, keys: ItemKeys, *, release_id: str, at: int) -> "Page":
        """Read the request's cursor; the first page without one.

        Args:
            at: now, microseconds.
        """
        if request.cursor is None:
            return cls(at=at, number_before=0, shown=NOTHING, before=NO_KEYS)
        cursor = Cursor.decode(request.cursor)
        continues = cursor.release_id == release_id and at - MAX_AGE <= cursor.at <= at
        return cls(
            at=cursor.at if continues else at,
            number_before=len(cursor.shown),
            shown=keys.find(cursor.shown),
            before=cursor.shown,
        )

    def next_cursor(
        self, request: RecommendRequest, item_idx: np.ndarray, keys: ItemKeys, *, release_id: str
    ) -> str | None:
        """Return the cursor after this page; None if the list ends here.

        Args:
            item_idx: items of this page.
        """
        if len(item_idx) < request.k or self.number_before + len(item_idx) >= MAX_SHOWN:
            return None
        shown = np.concatenate([self.before, keys.of(item_idx)])
        return Cursor(release_id, self.at, request.asked, shown).encode()


def without(ranked: Ranked, item_idx: np.ndarray) -> Ranked:
    """Return a single query's list without some items."""
    if len(item_idx) == 0:
        return ranked
    return ranked.select(np.flatnonzero(~np.isin(ranked.item_idx[0], item_idx)))
