"""Ranking features that combine a candidate's item features with other features of the request.

These are the user's features, or the item features of the other candidates.

Shapes: B requests, C candidates.
"""

from collections.abc import Callable

import numpy as np

from models.queries import Queries
from models.ranking.features.sources import places
from shortlist.features.finalize import ITEM_FEATURES, USER_FEATURES

Cross = Callable[[Queries, np.ndarray, np.ndarray], np.ndarray]


def _item(name: str, item: np.ndarray) -> np.ndarray:
    return item[..., ITEM_FEATURES.index(name)]


CROSS: dict[str, Cross] = {
    "value_cross": lambda queries, item, real: (
        queries.user[:, None, USER_FEATURES.index("user_mean_value")]
        * _item("item_mean_value", item)
    ),
    "popularity_place": lambda queries, item, real: places(_item("item_events_log", item), real),
    "recent_popularity_place": lambda queries, item, real: places(
        _item("item_count_14d_log", item), real
    ),
}
"""Feature name -> function that returns its values, (B, C). Arguments: the queries; the item
features, (B, C, len(ITEM_FEATURES)); the mask of real candidates, (B, C)."""


def cross_features(queries: Queries, item: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute CROSS features: (B, C) item_idx -> (B, C, len(CROSS))."""
    real = candidates > 0
    values = [feature(queries, item, real) for feature in CROSS.values()]
    return np.stack(values, axis=1).swapaxes(1, 2)
