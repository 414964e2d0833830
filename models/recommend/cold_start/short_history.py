"""Orders the lists of users with short histories by recent popularity.

How short is chosen on validation (flows/training/choose_fallback.py).

Shapes: B requests, C candidates.
"""

import numpy as np

from models.queries import Queries
from models.ranking.features.sources import RRF_CONSTANT
from models.recommend.merge import Shortlist

FALLBACK = "recent_popularity"
"""Source that orders the lists of requests with fewer than `min_history` events."""
LATER = 1e-6
"""Weight of the ranker's order among candidates that FALLBACK did not retrieve."""


def with_fallback(
    score: np.ndarray, queries: Queries, shortlist: Shortlist, *, min_history: int
) -> np.ndarray:
    """Return the scores, (B, C), with those of requests with fewer than `min_history` events
    replaced: the candidates of FALLBACK come first, in its order, and then all others.
    """
    few = queries.lengths < min_history
    ranks = shortlist.ranks.get(FALLBACK)
    if ranks is None or not few.any():
        return score
    real = shortlist.item_idx > 0
    place = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1)
    popular = np.where(ranks > 0, 1 / (RRF_CONSTANT + ranks), LATER / (RRF_CONSTANT + place))
    return np.where(few[:, None] & real, popular, score).astype(np.float32)
