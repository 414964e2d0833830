"""What a candidate has in common with the user's last searches, by words of its title, brand and
categories. Who never searched costs nothing.

Shapes: B requests, C candidates, Q queries of one request.
"""

from collections.abc import Callable

import numpy as np

from models.queries import Queries
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY

HALF_LIFE = MICROSECONDS_PER_DAY
"""By which a match of an old query fades. The best match counts, not a mean: one clear wish is not
thinned by four others.
"""


SEARCH: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "search_match": lambda share, age: (share * np.exp2(-age / HALF_LIFE)).max(1),
    "search_match_last": lambda share, age: share[:, -1],
}
"""Feature -> its values (C,) from the share of each query's words that a candidate has (C, Q) and
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
