"""Ranking features of a candidate's match with the user's last searches.

They compare the words of a query with the words of title, brand and categories. Requests without
searches have zeros.

Shapes: B requests, C candidates, Q search queries of a request.
"""

from collections.abc import Callable

import numpy as np

from models.queries import Queries
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.items.catalogue import Catalogue

HALF_LIFE = MICROSECONDS_PER_DAY
"""Half-life of `search_match`, by the age of a query. The feature is the maximum over queries, not
the mean, so that other queries don't dilute one clear match.
"""


SEARCH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "search_match": lambda share, age: (share * np.exp2(-age / HALF_LIFE)).max(1),
    "search_match_last": lambda share, age: share[:, -1],
}
"""Feature name -> function that returns its values, (C,). Arguments: the share of each query's
words that occur in a candidate, (C, Q); and the age of each query in microseconds, (Q,), oldest
first."""


def search_features(queries: Queries, catalogue: Catalogue, candidates: np.ndarray) -> np.ndarray:
    """Compute SEARCH features: (B, C) item_idx -> (B, C, len(SEARCH)) float32.

    Requests without searches have zeros.
    """
    out = np.zeros((*candidates.shape, len(SEARCH)), dtype=np.float32)
    for row, searches in enumerate(queries.searches):
        if not searches.times:
            continue
        share = catalogue.terms.shares(searches.queries, candidates[row])
        age = queries.at[row] - np.array(searches.times)
        for column, feature in enumerate(SEARCH.values()):
            out[row, :, column] = feature(share, age)
    return out
