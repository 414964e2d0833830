"""What a candidate has in common with the user's last searches, by words of its title, brand and
categories. Who never searched costs nothing.

Shapes: B requests, C candidates, Q queries of one request.
"""

import numpy as np

from models.queries import Queries
from shortlist.catalogue import Catalogue
from shortlist.columns import MICROSECONDS_PER_DAY

HALF_LIFE = MICROSECONDS_PER_DAY
"""By which a match of an old query fades. The best match counts, not a mean: one clear wish is not
thinned by four others.
"""


def search_features(queries: Queries, catalogue: Catalogue, candidates: np.ndarray) -> np.ndarray:
    """(B, C) item_idx -> (B, C, len(SEARCH_FEATURES)) float32: the greatest share of a query's
    words, each halved every HALF_LIFE since it was asked; the share of the newest query's.
    """
    out = np.zeros((*candidates.shape, 2), dtype=np.float32)
    for row, searches in enumerate(queries.searches):
        if not searches.times:
            continue
        share = catalogue.terms.shares(searches.queries, candidates[row])  # (C, Q)
        age = queries.at[row] - np.array(searches.times)
        out[row, :, 0] = (share * np.exp2(-age / HALF_LIFE)).max(1)
        out[row, :, 1] = share[:, -1]
    return out
