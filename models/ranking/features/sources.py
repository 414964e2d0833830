"""Ranking features from the scores and ranks of candidate sources, comparable between requests.

Shapes: B requests, C candidates, S sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RRF_CONSTANT = 60
"""Constant of reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): sum of 1 / (60 + rank)."""


@dataclass(frozen=True)
class SourceScores:
    """Scores and ranks of S sources for B requests with C candidates each."""

    score: np.ndarray  # (S, B, C) float64; a missing score is the lowest of its source and request
    standardised: np.ndarray  # (S, B, C) z-scores among the source's scores of the request
    rank: np.ndarray  # (S, B, C) float32 rank (from 1) in the source's list, 0 if not in it
    real: np.ndarray  # (B, C) bool, False for padding

    @cached_property
    def found(self) -> np.ndarray:
        """(S, B, C) bool: the source retrieved the candidate."""
        return (self.rank > 0) & self.real


SOURCE: dict[str, Callable[[SourceScores], np.ndarray]] = {
    "score": lambda s: s.score,
    "score_z": lambda s: s.standardised,
    "place": lambda s: places(s.score, np.broadcast_to(s.real, s.score.shape)),
    "reciprocal_rank": lambda s: s.found / np.maximum(s.rank, 1),
}
"""Feature name -> function that returns its values for each source, (S, B, C). Columns are named
`<source>:<feature>`."""
MERGE: dict[str, Callable[[SourceScores], np.ndarray]] = {
    "num_sources": lambda s: s.found.sum(0),
    "reciprocal_rank_sum": lambda s: (s.found / (RRF_CONSTANT + s.rank)).sum(0),
    "score_z_mean": lambda s: s.standardised.sum(0) / max(len(s.score), 1),
}
"""Feature name -> function that combines all sources to its values, (B, C)."""


def source_features(
    candidates: np.ndarray,
    scores: Sequence[np.ndarray | None],
    ranks: Sequence[np.ndarray | None],
) -> np.ndarray:
    """Compute SOURCE and MERGE features: (B, C, S * len(SOURCE) + len(MERGE)) float32.

    Args:
        candidates: (B, C) item_idx, 0 for padding.
        scores: (B, C) for each source; None: no scores.
        ranks: (B, C) for each source, 0 where it did not retrieve the candidate; None: the source
            retrieved none of them.
    """
    # Imported here, because importing numba takes a second that many commands don't need.
    from models.ranking.features.kernels import standardise

    B, C = candidates.shape
    S = len(scores)
    score = np.full((S, B, C), np.nan, dtype=np.float32)
    rank = np.zeros((S, B, C), dtype=np.float32)
    for row, given in zip((*score, *rank), (*scores, *ranks), strict=True):
        if given is not None:
            row[:] = given
    real = candidates > 0
    of = SourceScores(np.empty(score.shape), np.empty(score.shape), rank, real)
    standardise(score, real, of.score, of.standardised)
    # Features first in memory: each is written in one piece.
    out = np.empty((B, S * len(SOURCE) + len(MERGE), C), dtype=np.float32)
    per_source = out[:, : S * len(SOURCE)].reshape(B, S, len(SOURCE), C)
    for column, feature in enumerate(SOURCE.values()):
        per_source[:, :, column] = feature(of).swapaxes(0, 1)
    for column, feature in enumerate(MERGE.values(), start=S * len(SOURCE)):
        out[:, column] = feature(of)
    return out.swapaxes(1, 2)


def reciprocal(ranks: np.ndarray, *, weight: float = 1) -> np.ndarray:
    """Return the terms of reciprocal rank fusion, weight / (60 + rank); 0 for rank 0 (not found).

    Source: Cormack et al. 2009.
    """
    return np.where(ranks > 0, weight / (RRF_CONSTANT + ranks), 0)


def places(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the place of (..., C) values among the real candidates, as a share: (..., C) float32.

    The highest value has 0, the lowest almost 1, padding 1. Equal values share the better place, so
    that the result doesn't depend on the order of candidates.
    """
    from models.ranking.features.kernels import shares_of_places

    order = np.argsort(np.where(real, -values, np.inf), axis=-1)
    rows = (each.reshape(-1, values.shape[-1]) for each in (values, order, real))
    return shares_of_places(*map(np.ascontiguousarray, rows)).reshape(values.shape)
