"""Past prices and availability of the catalogue, reconstructed from item versions.

The lake keeps a row for each version of an item. From them, training and offline evaluation read
the catalogue as of each request. The service reads the newest catalogue, which is published with
the item features. Only price and availability are historical. Titles, categories, brands and the
set of items are the newest ones.

Shapes: N items, V versions, R requests.
"""

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import BACKFILL_LAG
from shortlist.items.catalogue import Catalogue
from shortlist.lake.versions import SINCE_EVER

COLUMNS = (c.ITEM_ID, c.KNOWN_AT, c.PRICE, c.AVAILABLE)
"""Columns of ITEM_VERSIONS that are read."""


class CatalogueHistory:
    """Stores changes of price and availability; builds the catalogue as of any time on demand."""

    def __init__(
        self,
        newest: Catalogue,
        versions: pa.Table | None = None,
        *,
        first_event: np.ndarray | None = None,
    ):
        """Store the changes of price and availability.

        Args:
            newest: newest catalogue; defines the items, their order and all other attributes.
            versions: COLUMNS of the lake's item versions; None if nothing ever changed.
            first_event: (N + 1,) int64 microseconds, time of each item's first event. If it is more
                than BACKFILL_LAG before the item's first version, the events are imported history.
                The item's first version then counts as known from the beginning.
        """
        self.newest = newest
        known = COLUMNS[1:]
        item_idx, since, price, available = (np.empty(0, dtype=np.int64),) * 4
        if versions is not None:
            item_idx = newest.vocab.encode(versions.column(c.ITEM_ID).to_pylist())
            since, price, available = (
                versions.column(name).to_numpy(zero_copy_only=False) for name in known
            )
        order = np.lexsort((since, item_idx))
        order = order[item_idx[order] > 0]
        item_idx, since = item_idx[order], since[order].astype(np.int64)
        price, available = price[order].astype(np.float64), available[order].astype(bool)
        first = np.r_[True, item_idx[1:] != item_idx[:-1]][: len(item_idx)]
        if first_event is not None:
            imported = since - first_event[item_idx] > BACKFILL_LAG
            since[first & imported] = SINCE_EVER
        offer = np.stack([np.nan_to_num(price, nan=-1), available], axis=1)  # -1: unknown
        changed = first.copy()
        changed[1:] |= (offer[1:] != offer[:-1]).any(axis=1)
        kept = np.flatnonzero(changed)
        kept = kept[np.argsort(since[kept], kind="stable")]
        self._item_idx, self._since = item_idx[kept], since[kept]
        self._price, self._available = price[kept], available[kept]
        self.changes = np.unique(self._since[self._since > SINCE_EVER])
        self._last: tuple[int, Catalogue] | None = None

    def moments(self, at: np.ndarray) -> np.ndarray:
        """Return (R,) microseconds: time of the newest change at or before each request `at` (R,).

        SINCE_EVER before the first change. Requests with the same result have the same catalogue.
        """
        return np.r_[SINCE_EVER, self.changes][np.searchsorted(self.changes, at, side="right")]

    def as_of(self, at: int) -> Catalogue:
        """Return the catalogue as of `at` microseconds.

        An item that was not known yet is unavailable and has no price.
        """
        last = self._last
        if last is not None and last[0] == at:
            return last[1]
        catalogue = self.newest if len(self.changes) == 0 else self._at(at)
        self._last = (at, catalogue)
        return catalogue

    def _at(self, at: int) -> Catalogue:
        price = np.full(self.newest.num_items, np.nan)
        available = np.zeros(self.newest.num_items, dtype=bool)
        known = np.searchsorted(self._since, at, side="right")
        rows = self._item_idx[:known] - 1  # with repeated items numpy keeps the last version
        price[rows], available[rows] = self._price[:known], self._available[:known]
        return self.newest.offered(price, available)
