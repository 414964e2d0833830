"""The methods that the chain is compared with. All rank the full catalogue, hidden items included.

Shapes: N items.
"""

from collections.abc import Callable

import numpy as np

from models.baselines.popularity import Popularity
from models.content.config import ContentFeatures
from models.content.modalities import ContentEncoder
from models.queries import Queries, best_places
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from shortlist.features.pack import ItemState

RECENT = 20
"""Number of newest events of the history that content kNN reads."""

Method = Callable[[Queries, ItemState, np.ndarray], np.ndarray]
"""Function (one query, item states, (N + 1,) allowed items) -> (N + 1,) scores."""


def methods_of(
    recommender: Recommender, *, has_time: bool, options: TrainingOptions
) -> dict[str, Method]:
    """Return {name: method} over the recommender's current catalogue."""
    _, content = ContentEncoder.fit(
        ContentFeatures(), recommender.catalogue, reviews=None, options=options
    )
    length = np.linalg.norm(content, axis=1, keepdims=True)
    content = np.divide(content, length, out=np.zeros_like(content), where=length > 0)
    rng = options.rng("random lists")
    recent = recommender.chain.sources.get("recent_popularity")
    methods: dict[str, Method] = {
        "content_knn": lambda query, items, allowed: content_knn(query, content),
        "popularity": lambda query, items, allowed: Popularity("popularity", days=None).counts(
            items
        ),
        "random": lambda query, items, allowed: rng.random(len(allowed)),
    }
    if has_time:
        assert isinstance(recent, Popularity)
        methods["recent_popularity"] = lambda query, items, allowed: recent.counts(items)
    return methods


def content_knn(query: Queries, content: np.ndarray) -> np.ndarray:
    """Return the cosine of each item with the mean vector of the newest items of the history.

    Args:
        content: (N + 1, F) unit vectors.
    """
    history = query.history[0]
    history = history[history > 0][-RECENT:]
    return content @ content[history].sum(0)


def best(scores: np.ndarray, allowed: np.ndarray, *, k: int) -> np.ndarray:
    """Return the item_idx of the k best allowed items."""
    scores = np.where(allowed, scores, -np.inf).astype(np.float64)
    found = best_places(scores, min(k, int(allowed.sum())))
    return found[allowed[found]]
