"""Pages of one list: reads the cursor of a request, and makes the cursor of the next page.

For a later page, the list is ranked again as of the time of the first page, and items shown so far
are left out. So events that the user posts between two pages don't change the order. Items that the
user consumed or refused since the first page are left out too. If the service has switched to
another release (set of models), or the list is older than MAX_AGE, the rest is ranked as of now.

Shapes: N items, S items shown so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.recommend.tiers import Ranked
from shortlist import columns as c
from shortlist.http.api import RecommendRequest
from shortlist.http.cursor import MAX_SHOWN, NO_KEYS, Cursor, item_key

MAX_AGE = c.MICROSECONDS_PER_HOUR
"""Maximum age in microseconds of a list that is continued as of its first page. The online store
only keeps current user states, so older lists can't be reproduced."""
NOTHING = np.empty(0, dtype=np.int64)


class ItemKeys:
    """Converts item_idx of a catalogue to the item keys in cursors (6-byte hashes), and back."""

    def __init__(self, item_ids: Sequence[str]):
        """
        Args:
            item_ids: ids of item_idx 1 to N.
        """
        self._keys = np.array([0, *map(item_key, item_ids)], dtype=np.uint64)
        self._order = np.argsort(self._keys[1:], kind="stable") + 1
        self._sorted = self._keys[self._order]

    def of(self, item_idx: np.ndarray) -> np.ndarray:
        """Return the keys of items: (S,) item_idx -> (S,) uint64."""
        return self._keys[item_idx]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the item_idx of keys. Keys of items that are not in the catalogue are left out."""
        if len(self._order) == 0 or len(keys) == 0:
            return NOTHING
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._order) - 1)
        found = self._order[place]
        return found[self._keys[found] == keys]


@dataclass(frozen=True)
class Page:
    """The time of a list, and the items that were shown on its earlier pages."""

    at: int
    """Time as of which the list is ranked, microseconds."""
    number_before: int
    """Number of items on earlier pages."""
    shown: np.ndarray
    """(S,) item_idx of the items on earlier pages that are in the catalogue."""
    before: np.ndarray
    """Keys of the items on earlier pages, including items that left the catalogue."""

    @classmethod
    def of(cls, request: RecommendRequest, keys: ItemKeys, *, release_id: str, at: int) -> "Page":
        """Return the page that a request's cursor asks for; the first page without a cursor.

        Args:
            release_id: id of the served release.
            at: current time in microseconds.
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
    """Return a single query's list without the given items."""
    if len(item_idx) == 0:
        return ranked
    return ranked.select(np.flatnonzero(~np.isin(ranked.item_idx[0], item_idx)))
