"""How a candidate stands in the user's own history: only where repeats are allowed.

Shapes: B requests, C candidates, L history.
"""

import numpy as np

from models.queries import Queries
from models.ranking.schema import REPEAT_FEATURES
from shortlist.columns import MICROSECONDS_PER_DAY

HALF_LIFE = 14 * MICROSECONDS_PER_DAY


def repeat_features(queries: Queries, candidates: np.ndarray) -> np.ndarray:
    """(B, C) item_idx -> (B, C, len(REPEAT_FEATURES)) float32; zeros for what the user has not
    consumed.
    """
    out = np.zeros((*candidates.shape, len(REPEAT_FEATURES)), dtype=np.float32)
    for row, length in enumerate(queries.lengths):
        if length:
            items, times = queries.history[row, :length], queries.history_time[row, :length]
            out[row] = _of_user(items, times, int(queries.at[row]), candidates[row])
    return out


def _of_user(items: np.ndarray, times: np.ndarray, at: int, candidates: np.ndarray) -> np.ndarray:
    """Of one user: (L,) events, (C,) candidates -> (C, F)."""
    known, code, count = np.unique(items, return_inverse=True, return_counts=True)
    first, last = np.full(len(known), at, dtype=np.int64), np.zeros(len(known), dtype=np.int64)
    np.minimum.at(first, code, times)
    np.maximum.at(last, code, times)
    age = np.maximum(at - times, 0)
    decayed = np.bincount(code, weights=np.exp2(-age / HALF_LIFE))
    since = np.maximum(at - last, 0)
    gap = np.where(count > 1, (last - first) / np.maximum(count - 1, 1), 0)
    due = np.divide(since, gap, out=np.zeros(len(known)), where=gap > 0)
    values = np.column_stack(
        [
            np.log1p(count),
            np.log1p(decayed),
            np.log1p(since / MICROSECONDS_PER_DAY),
            np.log1p(due),
            count / len(items),
        ]
    )
    place = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
    consumed = (known[place] == candidates) & (candidates > 0)
    return np.where(consumed[:, None], values[place], 0).astype(np.float32)
