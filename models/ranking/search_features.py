"""Match of a candidate's title, brand and categories with the words of the last searches.

Requests without searches cost no time.

Shapes: B requests, C candidates, Q queries of one request.
"""

from collections.abc import Callable

import numpy as np

from models.queries import Queries
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY

HALF_LIFE = MICROSECONDS_PER_DAY
"""Half-life of the match with a query by the query's age. `search_match` is the best match instead
of the mean, so that several other queries don't dilute one clear match.
"""


SEARCH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "search_match": lambda share, age: (share * np.exp2(-age / HALF_LIFE)).max(1),
    "search_match_last": lambda share, age: share[:, -1],
}
"""Feature -> its values (C,), from the share of each query's words found in a candidate (C, Q) and
the age of each query in microseconds (Q,)."""


def search_features(queries: Queries, catalogue: Catalogue, candidates: np.ndarray) -> np.ndarray:
    """(B, C) item_idx -> (B, C, len(SEARCH)) float32; zeros without searches."""
    out = np.zeros((*candidates.shape, len(SEARCH)), dtype=np.float32)
    for row, searches in enumerate(queries.searches):
        if not searches.times:
            continue
        share = catalogue.terms.shares(searches.queries, candidates[row])
        age = queries.at[row] - np.array(searches.times)
        for column, feature in enumerate(SEARCH.values()):
            out[row, :, column] = feature(share, age)
    return out
