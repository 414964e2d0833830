"""How much each feature adds to the score of a candidate, for rankers that are sums of trees.

The values are SHAP values of LightGBM (Lundberg et al. 2018, "Consistent Individualized Feature
Attribution for Tree Ensembles"): with the mean score, they add up to the ranker's score.

Shapes: R candidates, F features.
"""

import numpy as np

from models.ranking.blend import Blend
from models.ranking.protocol import Ranker
from models.ranking.trees.base import TreeRanker


def contributions(ranker: Ranker | None, x: np.ndarray) -> np.ndarray | None:
    """Return (R, F) contributions to the scores of x (R, F); None if the ranker has none.

    Neural rankers and stacks have none. A blend has them if its neural member has weight 0. The
    first call in a process imports LightGBM, which takes about two seconds.
    """
    if isinstance(ranker, TreeRanker):
        parts = [np.asarray(b.predict(x, pred_contrib=True))[:, :-1] for b in ranker.boosters]
        return np.mean(parts, axis=0)
    if isinstance(ranker, Blend):
        used = {name: factor for name, factor in ranker.factors.items() if factor > 0}
        parts = [contributions(ranker.members[name], x) for name in used]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        weights = used.values()
        return np.sum([factor * part for factor, part in zip(weights, known, strict=True)], axis=0)
    return None
