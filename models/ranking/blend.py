"""A weighted sum of two rankers, each divided by its score spread within a request.

The spread is measured once, on validation, so that a request's scores don't depend on the rest of
its batch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from models.ranking.protocol import Ranker, RankingData
from shortlist.config import Config

ABOUT = "blend.json"
WEIGHTS = tuple(np.round(np.linspace(0, 1, 11), 1).tolist())
"""Candidate weights of the first member."""


class BlendConfig(Config):
    """The two rankers to blend; the weight is chosen on validation."""

    kind: Literal["blend"] = "blend"
    members: tuple[Literal["lambdamart", "deepfm"], Literal["lambdamart", "deepfm"]] = (
        "lambdamart",
        "deepfm",
    )


class Blend:
    """Rankers, each with its factor: weight / spread."""

    name = "blend"

    def __init__(self, members: Mapping[str, Ranker], factors: Mapping[str, float]):
        self.members = dict(members)
        self.factors = dict(factors)

    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """(R, F) float32, (R,) int64 -> (R,) float32; members with factor 0 aren't evaluated."""
        total = np.zeros(len(x), dtype=np.float32)
        for name, member in self.members.items():
            if self.factors[name] > 0:
                total += np.float32(self.factors[name]) * member.predict(x, item_idx)
        return total

    def save(self, folder: Path) -> None:
        """Write each member into a subfolder of its name, the factors as JSON."""
        for name, member in self.members.items():
            (folder / name).mkdir()
            member.save(folder / name)
        (folder / ABOUT).write_text(json.dumps({"factors": self.factors}, indent=1))


def fit_blend(members: Mapping[str, Ranker], validation: RankingData) -> Blend:
    """Choose the first member's weight from 0, 0.1 ... 1 by nDCG; the middle one if several tie."""
    first, second = members
    scores = {n: m.predict(validation.x, validation.item_idx) for n, m in members.items()}
    spread = {name: _spread(validation, score) for name, score in scores.items()}
    values = [
        validation.mean_ndcg(
            weight * scores[first] / spread[first] + (1 - weight) * scores[second] / spread[second]
        )
        for weight in WEIGHTS
    ]
    best = np.flatnonzero(np.isclose(values, np.nanmax(values), atol=1e-12))
    weight = WEIGHTS[best[len(best) // 2]]
    return Blend(members, {first: weight / spread[first], second: (1 - weight) / spread[second]})


def _spread(data: RankingData, scores: np.ndarray) -> float:
    """Standard deviation of the scores within a request, averaged over requests."""
    owner = np.repeat(np.arange(len(data)), data.group)
    count = np.maximum(data.group, 1)
    mean = np.bincount(owner, weights=scores, minlength=len(data)) / count
    squares = np.bincount(owner, weights=(scores - mean[owner]) ** 2, minlength=len(data))
    return max(float(np.sqrt(squares / count).mean()), 1e-6)
