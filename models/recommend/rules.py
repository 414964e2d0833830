"""Hard rules: what may not be shown at all. Availability, the request's filters, and what the
caller excludes.
"""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.api import Filters
from shortlist.catalogue import Catalogue
from shortlist.contracts import microseconds

RULES = (
    "unavailable items are never shown",
    "categories: an item is shown if it has at least one of them",
    "exclude_categories: an item with any of them is not shown",
    "max_price: an item that costs more, or whose price is unknown, is not shown",
    "published_after: an item published earlier, or at an unknown time, is not shown",
    "exclude: these items are not shown",
    "seen: items of the user's history are not shown, unless the run's `repeats` allows them",
    "refused: items to which the user gave negative feedback are not shown until he takes it back",
)
RULES_VERSION = hashlib.sha256(json.dumps(RULES).encode()).hexdigest()[:8]
"""Of the rules' text: the serving log keeps it, so that old lists are judged by the rules of their
day.
"""


def blocked_items(
    catalogue: Catalogue,
    *,
    filters: Filters | None = None,
    exclude: Iterable[str] = (),
    seen: np.ndarray | None = None,
) -> np.ndarray:
    """(N + 1,) bool, True where an item may not be shown; row 0 (padding) always is. The array is
    the caller's.

    Args:
        filters: of the request; an empty or missing list is no constraint.
        exclude: item ids; those that the catalogue does not have change nothing.
        seen: item_idx of any length.
    """
    blocked = ~catalogue.available
    if filters is not None:
        _apply_filters(blocked, catalogue, filters)
    blocked[catalogue.vocab.encode(exclude)] = True
    if seen is not None:
        blocked[seen] = True
    blocked[0] = True
    return blocked


def _apply_filters(blocked: np.ndarray, catalogue: Catalogue, filters: Filters) -> None:
    if filters.categories:
        blocked |= ~_has_any(catalogue, filters.categories)
    if filters.exclude_categories:
        blocked |= _has_any(catalogue, filters.exclude_categories)
    if filters.max_price is not None:
        prices = catalogue.items.column(c.PRICE).to_numpy(zero_copy_only=False)  # null becomes NaN
        blocked[1:] |= ~(prices.astype(np.float64) <= filters.max_price)
    if filters.published_after is not None:
        published = catalogue.items.column(c.PUBLISHED_AT)
        late = pc.greater_equal(microseconds(published), filters.published_after)
        blocked[1:] |= ~late.fill_null(False).to_numpy().astype(bool)


def _has_any(catalogue: Catalogue, names: Iterable[str]) -> np.ndarray:
    """(N + 1,) bool: the item has at least one of these categories; an unknown name matches
    nothing.
    """
    wanted = set(names)
    columns = [k for k, name in enumerate(catalogue.category_names) if name in wanted]
    return np.any(catalogue.category_matrix[:, columns] > 0, axis=1, keepdims=True)[:, 0]
