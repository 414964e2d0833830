"""A cascade: a rough score orders all candidates of a request, the full ranker the best of them.

Trees of a boosted model are added in order of their use, so a prefix of them is a rough ranker that
needs no training (Cambazoglu et al. 2010, "Early exit optimizations for additive machine learned
ranking systems"). A ranker without rough scores scores all candidates.

Shapes: R candidates of one request, F features.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from models.ranking.protocol import Ranker, RankingData


@runtime_checkable
class Rough(Protocol):
    """A ranker that also has a cheap score."""

    def rough(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray | None:
        """(R, F) float32, (R,) int64 -> (R,) float32; None if it has no cheap score."""
        ...


def cascade(ranker: Ranker, x: np.ndarray, item_idx: np.ndarray, *, full: int) -> np.ndarray:
    """Scores of one request's candidates: (R, F), (R,) -> (R,) float32.

    The `full` candidates with the best rough scores get the ranker's score. All others get less
    than these, in the order of their rough scores.
    """
    if len(x) <= full or not isinstance(ranker, Rough):
        return ranker.predict(x, item_idx)
    rough = ranker.rough(x, item_idx)
    if rough is None:
        return ranker.predict(x, item_idx)
    best = np.argpartition(-rough, full - 1)[:full]
    chosen = np.zeros(len(x), dtype=bool)
    chosen[best] = True
    scores = np.empty(len(x), dtype=np.float32)
    scores[chosen] = ranker.predict(x[chosen], item_idx[chosen])
    rest = rough[~chosen]
    scores[~chosen] = scores[chosen].min() - 1 - (rest.max(initial=0) - rest)
    return scores


def cascade_all(ranker: Ranker, data: RankingData, *, full: int) -> np.ndarray:
    """`cascade` of every request in `data`: (R,) float32."""
    ends = np.cumsum(data.group)
    parts = [
        cascade(ranker, data.x[start:end], data.item_idx[start:end], full=full)
        for start, end in zip(ends - data.group, ends, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
