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
    B, C = candidates.shape
    S = len(scores)
    silent = np.full((B, C), np.nan, dtype=np.float32)
    score = np.stack([silent if s is None else s for s in scores]) if S else silent[None][:0]
    rank = np.zeros((S, B, C), dtype=np.float32)
    for row, given in zip(rank, ranks, strict=True):
        if given is not None:
            row[:] = given
    real = candidates > 0
    filled, z = _standardise(score, np.isfinite(score) & real)
    of = SourceScores(filled, z, rank, real)
    per_source = np.empty((B, C, S, len(SOURCE)), dtype=np.float32)
    for column, feature in enumerate(SOURCE.values()):
        per_source[..., column] = np.moveaxis(feature(of), 0, -1)
    merged = np.stack([feature(of) for feature in MERGE.values()], axis=-1)
    return np.concatenate(
        [per_source.reshape(B, C, S * len(SOURCE)), merged], axis=-1, dtype=np.float32
    )


def _standardise(score: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (S, B, C) with invalid ones set to the lowest valid one, and their z-scores.

    The lowest score, mean and deviation are computed for each pair of source and request. A pair
    without valid scores has 0 in both results.
    """
    some = valid.any(-1, keepdims=True)
    lowest = np.where(valid, score, np.inf).min(-1, keepdims=True, initial=np.inf)
    filled = np.where(valid, score, np.where(some, lowest, 0)).astype(np.float64)
    count = np.maximum(valid.sum(-1, keepdims=True), 1)
    mean = np.where(valid, filled, 0).sum(-1, keepdims=True) / count
    centred = np.where(some, filled - mean, 0)
    deviation = np.sqrt((np.where(valid, centred, 0) ** 2).sum(-1, keepdims=True) / count)
    # A smaller deviation is rounding error: all scores are equal.
    spread = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    z = np.divide(centred, deviation, out=np.zeros_like(centred), where=spread)
    return filled, z


def places(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the place of (..., C) values among the real candidates, as a share: (..., C) float32.

    The highest value has 0, the lowest almost 1, padding 1. Equal values share the better place, so
    that the result doesn't depend on the order of candidates.
    """
    keyed = np.where(real, -values, np.inf)
    order = np.argsort(keyed, axis=-1, kind="stable")
    ordered = np.take_along_axis(keyed, order, axis=-1)
    first = np.ones(ordered.shape, dtype=bool)
    first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    position = np.maximum.accumulate(np.where(first, np.arange(ordered.shape[-1]), 0), axis=-1)
    place = np.empty(ordered.shape, dtype=np.float32)
    np.put_along_axis(place, order, position.astype(np.float32), axis=-1)
    return np.where(real, place / np.maximum(real.sum(-1, keepdims=True), 1), 1)
