"""Calibrated recommendations: the categories of the list are mixed as in the user's history.

Source: Steck 2018, "Calibrated recommendations". The interests are weighted by recency: the weight
of an event halves with every HALF_LIFE newer events. This doesn't need event times.

Shapes: L history, C candidates, K categories, B requests.
"""

import numpy as np

SMOOTHING = 0.01
"""Steck's alpha: share of the interests mixed into the list's distribution, so that the divergence
stays finite if a category is missing in the list."""
HALF_LIFE = 30
"""Number of newer events after which an event of the history has half the weight."""
NEWEST = 10 * HALF_LIFE
"""Number of newest events that count; older ones have weights below 0.001."""


def category_shares(category_rows: np.ndarray) -> np.ndarray:
    """Divide each item's weight of 1 equally among its categories: (C, K) of 0 and 1 -> (C, K).

    An item without categories keeps a row of zeros.
    """
    return category_rows / np.maximum(category_rows.sum(axis=-1, keepdims=True), 1)


def interests(history: np.ndarray, category_matrix: np.ndarray) -> np.ndarray:
    """Return the user's distribution over categories: (K,) float64 that sums to 1.

    All zeros if no item of the history has a category.

    Args:
        history: (L,) item_idx, oldest first; 0 (padding) is ignored.
        category_matrix: (N + 1, K), 1 where the item has the category.
    """
    items = history[history > 0][-NEWEST:]
    age = np.arange(len(items) - 1, -1, -1)
    weights = np.exp2(-age / HALF_LIFE)
    mix = weights @ category_shares(category_matrix[items])
    total = mix.sum()
    return mix / total if total > 0 else np.zeros(category_matrix.shape[1])


def calibrate(
    scores: np.ndarray, shares: np.ndarray, wanted: np.ndarray, *, k: int, strength: float
) -> np.ndarray:
    """Greedily pick k candidates by `(1 - strength) * sum of scores - strength * divergence`.

    The divergence is that of the list so far from `wanted` (see `divergence`). Scores are scaled to
    [0, 1] over the candidates, as in `mmr`. Ties go to the earlier candidate. Without interests,
    candidates are ordered by score.

    Args:
        scores: (C,) higher is better; all finite.
        shares: (C, K) from `category_shares`.
        wanted: (K,) from `interests`.

    Returns:
        (min(k, C),) int64 positions into the candidates, in the new order.
    """
    k = min(k, len(scores))
    liked = np.flatnonzero(wanted)
    if strength == 0 or k == 0 or len(liked) == 0:
        return np.argsort(-scores, kind="stable")[:k]
    score = scores.astype(np.float64)
    low, high = score.min(), score.max()
    gain = (1 - strength) * ((score - low) / (high - low) if high > low else np.zeros(len(score)))
    # Only categories with wanted > 0 contribute; sum(p log p) is the same for all candidates.
    target, columns = wanted[liked], shares[:, liked].astype(np.float64)
    total = np.zeros(len(liked))
    open_ = np.ones(len(score), dtype=bool)
    picked = np.empty(k, dtype=np.int64)
    for place in range(k):
        mix = (1 - SMOOTHING) * (total + columns) / (place + 1) + SMOOTHING * target
        value = gain + strength * (np.log(mix) @ target)
        value[~open_] = -np.inf
        picked[place] = best = int(value.argmax())
        open_[best] = False
        total += columns[best]
    return picked


def divergence(shares: np.ndarray, wanted: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence of a list's categories from the interests, in nats.

    0 if the list has exactly the user's mix; NaN without interests.

    Args:
        shares: (C, K) of the list's items.
        wanted: (K,) from `interests`.
    """
    liked = np.flatnonzero(wanted)
    if len(liked) == 0 or len(shares) == 0:
        return float("nan")
    target = wanted[liked]
    mix = (1 - SMOOTHING) * shares[:, liked].mean(axis=0) + SMOOTHING * target
    return float(target @ np.log(target / mix))
