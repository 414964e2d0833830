"""Exact search by inner product, and the removal of excluded items from search results.

Shapes: B queries, D dim, N items.
"""

import numpy as np

from models.queries import Candidates, no_candidates, top_k

SCAN_ALL = 0.1
"""If more than this share of the items is allowed, an exact scan scores all items and masks those
that are not allowed."""


def scan(
    queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray | None, *, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and item_idx of the best allowed items by exact search, best first.

    Both are (B, M) with M = min(depth, number of scored items); item_idx is 0 where missing.

    Args:
        vectors: (N, D); row i belongs to item_idx i + 1.
        allowed: (N,) bool; None: all items.
        depth: number of items to return per query.
    """
    rows = None
    if allowed is None:
        scores = queries @ vectors.T
    elif np.count_nonzero(allowed) > SCAN_ALL * len(vectors):
        # Faster than copying the vectors of many allowed items.
        scores = queries @ vectors.T
        scores[:, ~allowed] = -np.inf
    else:
        rows = np.flatnonzero(allowed)
        scores = queries @ vectors[rows].T
    best = top_k(scores, max(depth, 1)) if scores.shape[1] else no_candidates(len(queries))
    rows_found = best.item_idx if rows is None else rows[best.item_idx]
    return best.score, np.where(np.isneginf(best.score), 0, rows_found + 1)


def drop_excluded(
    score: np.ndarray,
    item_idx: np.ndarray,
    *,
    exclude: list[np.ndarray],
    k: int,
) -> Candidates:
    """Return (B, k) candidates from (B, depth) search results without excluded items.

    If fewer than k are left, the rest is padding on the right.
    """
    dropped = item_idx <= 0
    for row, items in enumerate(exclude):
        if len(items):
            dropped[row] |= np.isin(item_idx[row], items)
    # A stable sort by `dropped` moves the remaining items to the front and keeps their order.
    order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
    item_idx = np.where(dropped, 0, item_idx)
    score = np.where(dropped, np.float32(-np.inf), score)
    item_idx = np.take_along_axis(item_idx, order, axis=1)
    score = np.take_along_axis(score, order, axis=1)
    missing = k - item_idx.shape[1]
    if missing > 0:
        item_idx = np.pad(item_idx, ((0, 0), (0, missing)))
        score = np.pad(score, ((0, 0), (0, missing)), constant_values=-np.inf)
    return Candidates(item_idx=item_idx, score=score)


def is_in(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return whether each of (K,) values is in `members`; for short arrays faster than `isin`."""
    if len(values) * len(members) > 100_000:
        return np.isin(values, members)
    return (values[:, None] == members).any(1)
