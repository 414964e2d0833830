"""Candidates that rules need and no source found: pinned items, and items for quotas and caps.

Without them a quota could only be met by chance, and a cap would have to be broken although other
items exist. Shapes: N items, C candidates, J values per item.
"""

from collections.abc import Sequence

import numpy as np

from models.recommend.business_rules.arrange import number_in_group
from models.recommend.business_rules.compiled import Cap, Quota
from models.recommend.business_rules.conditions import ALL

SPARE = 3
"""Candidates per position of a quota, so that caps and the ranker have a choice."""


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
    """Popular items for quotas that the candidates can't meet: (E,) item_idx.

    Args:
        found: (C,) item_idx of the candidates.
        allowed: (N + 1,) bool, items that may be shown.
        popularity: (N + 1,) float32.
        at: time of the request.
    """
    added: list[np.ndarray] = []
    for quota in quotas:
        wanted = min(quota.at_least, k)
        known = np.concatenate([found, *added])
        kept = known[quota.match(known, at)]
        kept = kept[within_caps(kept, caps, at=at)]
        if len(kept) >= wanted:
            continue
        others = allowed & quota.match(ALL, at)
        others[known] = False
        most = SPARE * wanted
        best = by_popularity(others, popularity, most=None if caps else most)
        both = np.concatenate([kept, best])
        best = best[within_caps(both, caps, at=at)[len(kept) :]]
        added.append(best[:most])
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
    """Popular items that make a list of k within the caps possible: (E,) item_idx.

    Args: as of `missing_for_quotas`.
    """
    if not caps:
        return np.empty(0, dtype=np.int64)
    wanted = min(k, max(cap.first for cap in caps))
    kept = found[within_caps(found, caps, at=at)]
    if len(kept) >= wanted:
        return np.empty(0, dtype=np.int64)
    others = allowed.copy()
    others[found] = False
    for cap in caps:
        codes, num_groups = cap.groups(kept, at)
        count = np.bincount(codes.ravel(), minlength=num_groups + 1)
        full = count >= cap.at_most
        full[0] = False
        rows = np.flatnonzero(others)
        others[rows[full[cap.groups(rows, at)[0]].any(axis=1)]] = False
    best = by_popularity(others, popularity)
    both = np.concatenate([kept, best])
    best = best[within_caps(both, caps, at=at)[len(kept) :]]
    return best[: wanted - len(kept)]


def within_caps(item_idx: np.ndarray, caps: Sequence[Cap], *, at: int) -> np.ndarray:
    """(R,) bool: a subset of (R,) items, best first, that breaks no cap at any length.

    An item is dropped if one of its groups has `at_most` items before it, so the subset isn't
    always the largest one.
    """
    kept = np.ones(len(item_idx), dtype=bool)
    for cap in caps:
        rows = np.flatnonzero(kept)
        codes, _ = cap.groups(item_idx[rows], at)
        kept[rows] = (number_in_group(codes) < cap.at_most).all(axis=1)
    return kept


def by_popularity(
    mask: np.ndarray, popularity: np.ndarray, *, most: int | None = None
) -> np.ndarray:
    """Item_idx where (N + 1,) `mask` is True, most popular first; ties go to the smaller index.

    Args:
        most: only so many and those as popular as the last of them are sorted; None: all.
    """
    rows = np.flatnonzero(mask)
    if most is not None and len(rows) > most:
        least = np.partition(popularity[rows], len(rows) - most)[len(rows) - most]
        rows = rows[popularity[rows] >= least]
    return rows[np.argsort(-popularity[rows], kind="stable")]
