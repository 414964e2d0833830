"""Popular items that quotas and caps need if the sources found too few suitable candidates.

Without them, a quota would be met only by chance, and a cap might be broken although suitable items
exist in the catalogue.

Shapes: N items, C candidates, E added items, R given items, J values per item.
"""

from collections.abc import Sequence

import numpy as np

from models.recommend.business_rules.arrange import any_column, number_in_group
from models.recommend.business_rules.compiled import Cap, Quota
from models.recommend.business_rules.conditions import ALL

SPARE = 3
"""Maximum number of items added per item that a quota needs, to give the ranker a choice."""
WINDOW = 20
"""Number of items per needed item that are checked in one step. Most lists need only one step."""
ROUNDS = 3
"""Maximum number of steps in the search for popular items that keep a list within its caps."""


def missing_for_quotas(
    quotas: Sequence[Quota],
    caps: Sequence[Cap],
    found: np.ndarray,
    *,
    allowed: np.ndarray,
    popularity: np.ndarray,
    k: int,
    at: int,
) -> np.ndarray:
    """Return popular items for the quotas that the candidates can't meet: (E,) item_idx.

    Args:
        found: (C,) item_idx of the candidates.
        allowed: (N + 1,) bool, items that may be shown.
        popularity: (N + 1,) float32.
        k: length of the list.
        at: time of the request, microseconds.
    """
    added: list[np.ndarray] = []
    for quota in quotas:
        wanted = min(quota.at_least, k)
        known = np.concatenate([found, *added])
        kept = enough_within_caps(known[quota.match(known, at)], caps, wanted=wanted, at=at)
        if len(kept) >= wanted:
            continue
        others = allowed & quota.match(ALL, at)
        others[known] = False
        rows = np.flatnonzero(others)
        rows = rows[~in_full_group(rows, kept, caps, at=at)]
        best = most_popular(rows, popularity, WINDOW * wanted)
        both = np.concatenate([kept, best])
        best = best[within_caps(both, caps, at=at)[len(kept) :]]
        added.append(best[: SPARE * wanted])
    return np.concatenate(added) if added else np.empty(0, dtype=np.int64)


def missing_for_caps(
    caps: Sequence[Cap],
    found: np.ndarray,
    *,
    allowed: np.ndarray,
    popularity: np.ndarray,
    k: int,
    at: int,
) -> np.ndarray:
    """Return popular items that allow a list of k items without breaking a cap: (E,) item_idx.

    See `missing_for_quotas` for the arguments.
    """
    if not caps:
        return np.empty(0, dtype=np.int64)
    wanted = min(k, max(cap.first for cap in caps))
    kept = enough_within_caps(found, caps, wanted=wanted, at=at)
    num_found = len(kept)
    others = allowed.copy()
    others[found] = False
    rows = np.flatnonzero(others)
    for _ in range(ROUNDS):
        if len(kept) >= wanted or len(rows) == 0:
            break
        rows = rows[~in_full_group(rows, kept, caps, at=at)]
        best = most_popular(rows, popularity, WINDOW * wanted)
        both = np.concatenate([kept, best])
        kept = both[within_caps(both, caps, at=at)][:wanted]
        rows = rows[~np.isin(rows, kept)]
    return kept[num_found:]


def enough_within_caps(
    item_idx: np.ndarray, caps: Sequence[Cap], *, wanted: int, at: int
) -> np.ndarray:
    """Return a subset of (R,) items that breaks no cap, with at least `wanted` items if possible.

    The subset is chosen by `within_caps`, for speed first among the first WINDOW * wanted items.
    """
    first = item_idx[: WINDOW * wanted]
    kept = first[within_caps(first, caps, at=at)]
    if len(kept) >= wanted or len(first) == len(item_idx):
        return kept
    return item_idx[within_caps(item_idx, caps, at=at)]


def in_full_group(
    rows: np.ndarray, kept: np.ndarray, caps: Sequence[Cap], *, at: int
) -> np.ndarray:
    """Return which items would break a cap beside the items of `kept`: (R,) bool.

    These are items of a group that already has `at_most` items in `kept`.
    """
    found = np.zeros(len(rows), dtype=bool)
    for cap in caps:
        codes, num_groups = cap.groups(kept, at)
        full = np.bincount(codes.ravel(), minlength=num_groups + 1) >= cap.at_most
        full[0] = False
        if full.any():
            codes, _ = cap.groups(rows, at)
            for column in codes.T:
                found |= full[column]
    return found


def within_caps(item_idx: np.ndarray, caps: Sequence[Cap], *, at: int) -> np.ndarray:
    """Return which of (R,) items to keep so that the list of kept items breaks no cap: (R,) bool.

    The caps hold for a list of any length. An item is dropped if one of its groups has `at_most`
    items before it, even if those are dropped as well. So the subset isn't always the largest
    possible one.

    Args:
        item_idx: (R,), best first.
    """
    kept = np.ones(len(item_idx), dtype=bool)
    for cap in caps:
        rows = np.flatnonzero(kept)
        codes, _ = cap.groups(item_idx[rows], at)
        kept[rows] = ~any_column(number_in_group(codes) >= cap.at_most)
    return kept


def most_popular(rows: np.ndarray, popularity: np.ndarray, most: int) -> np.ndarray:
    """Return the `most` most popular of (R,) item_idx, in order; ties go to the smaller index."""
    if len(rows) > most:
        least = np.partition(popularity[rows], len(rows) - most)[len(rows) - most]
        rows = rows[popularity[rows] >= least]
    return rows[np.argsort(-popularity[rows], kind="stable")][:most]
