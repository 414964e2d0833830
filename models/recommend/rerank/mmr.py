"""Maximal marginal relevance: trades score for diversity.

Source: Carbonell & Goldstein 1998. Shapes: C candidates, D dim.
"""

import numpy as np


def mmr(scores: np.ndarray, vectors: np.ndarray, *, k: int, strength: float) -> np.ndarray:
    """Greedily pick k candidates by `(1 - strength) * score - strength * similarity`.

    Scores are scaled to [0, 1] over the candidates, so that `strength` means the same for every
    ranker. Similarity is the highest cosine with the items already picked. Ties go to the earlier
    candidate.

    Args:
        scores: (C,) higher is better; -inf marks padding, which is never picked.
        vectors: (C, D) item or category vectors of any length; a zero vector has similarity 0.
        k: number of picks; fewer are returned if there are fewer candidates.
        strength: 0 keeps the order of the scores, 1 uses only similarity.

    Returns:
        (min(k, real candidates),) int64 positions into the candidates, in the new order.

    Raises:
        ValueError: `strength` is not in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"mmr: strength is {strength}, want 0 to 1")
    real = np.flatnonzero(np.isfinite(scores))
    k = min(k, len(real))
    if strength == 0 or k == 0:
        return real[np.argsort(-scores[real], kind="stable")[:k]]
    score = scores[real].astype(np.float64)
    low, high = score.min(), score.max()
    gain = (1 - strength) * ((score - low) / (high - low) if high > low else np.zeros(len(score)))
    norm = np.linalg.norm(vectors[real], axis=1, keepdims=True)
    unit = np.divide(vectors[real], norm, out=np.zeros(vectors[real].shape), where=norm > 0)
    nearest = np.full(len(real), -1.0)  # the lowest possible cosine
    picked = np.empty(k, dtype=np.int64)
    for place in range(k):
        value = gain - strength * nearest if place else gain.copy()
        value[picked[:place]] = -np.inf
        picked[place] = best = int(value.argmax())
        np.maximum(nearest, unit @ unit[best], out=nearest)
    return real[picked]
