"""Built-in hard rules: items that must never be shown.

Names in backticks are fields of a request.

- Unavailable items are not shown.
- `filters.categories`: an item is shown only if it has at least one of these categories.
- `filters.exclude_categories`: an item with any of these categories is not shown.
- `filters.max_price`: an item that costs more, or has no price, is not shown.
- `filters.published_after`: an item published earlier, or without a date, is not shown.
- `exclude`: the items with these ids are not shown.
- Items that the user consumed are not shown, unless the run's setting `[data] repeats` allows it.
- Items that the user refused (negative feedback) are not shown until the refusal is withdrawn.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.behaviour.repeats import too_soon
from shortlist.contracts import microseconds
from shortlist.http.api import Filters
from shortlist.items.catalogue import Catalogue

RULES_VERSION = "1"
"""Version of these rules; increase it when a rule changes.

The serving log stores it with each list. Old lists can then be checked against the rules of their
time.
"""


def blocked_items(
    catalogue: Catalogue,
    *,
    filters: Filters | None = None,
    exclude: Iterable[str] = (),
    seen: np.ndarray | None = None,
) -> np.ndarray:
    """Return the items that must not be shown: (N + 1,) bool; row 0 (padding) is True.

    Args:
        filters: filters of the request; an empty or missing list is no constraint.
        exclude: item ids; ids outside the catalogue are ignored.
        seen: item_idx that the user consumed or refused.
    """
    blocked = ~catalogue.available
    if filters is not None:
        _apply_filters(blocked, catalogue, filters)
    blocked[catalogue.vocab.encode(exclude)] = True
    if seen is not None:
        blocked[seen] = True
    blocked[0] = True
    return blocked


def seen_items(
    history: np.ndarray,
    times: np.ndarray,
    refused: np.ndarray,
    *,
    at: int,
    repeat_after: int | None,
) -> np.ndarray:
    """Return the item_idx that a user must not be shown: consumed and refused items.

    Args:
        history: (L,) item_idx that the user consumed.
        times: (L,) microseconds of these events, before `at`.
        refused: item_idx that the user refused, 0 for an item outside the catalogue.
        repeat_after: microseconds after which a consumed item may be shown again; None: never.
    """
    consumed = history[too_soon(times, at, after=repeat_after)]
    return np.concatenate([consumed, refused[refused > 0]])


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
    """Return which items have any of these categories: (N + 1,) bool. Unknown names are ignored."""
    wanted = set(names)
    columns = [k for k, name in enumerate(catalogue.category_names) if name in wanted]
    return np.any(catalogue.category_matrix[:, columns] > 0, axis=1, keepdims=True)[:, 0]
