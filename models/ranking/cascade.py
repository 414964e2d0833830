"""Ranking cascade: a cheap rough score selects the candidates that the full ranker scores.

The first trees of a boosted model reduce the loss most. They are a rough ranker that needs no
separate training (Cambazoglu et al. 2010, "Early exit optimizations for additive machine learned
ranking systems"). Without rough scores, the full ranker scores all candidates.

Shapes: R candidates of a request, F features.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from models.ranking.protocol import Ranker, RankingData


@runtime_checkable
class Rough(Protocol):
    """A ranker that may also have a cheap approximate score."""

    def rough(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray | None:
        """Return rough scores: x (R, F), item_idx (R,) -> (R,) float32; None if there are none."""
        ...


def cascade(ranker: Ranker, x: np.ndarray, item_idx: np.ndarray, *, full: int) -> np.ndarray:
    """Score the candidates of a request: x (R, F), item_idx (R,) -> (R,) float32.

    The `full` candidates with the best rough scores get the ranker's scores. All others get lower
    scores, in the order of their rough scores.
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
    """Return the scores of `cascade` for each request in `data`: (R,) float32 in total."""
    ends = np.cumsum(data.group)
    parts = [
        cascade(ranker, data.x[start:end], data.item_idx[start:end], full=full)
        for start, end in zip(ends - data.group, ends, strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
