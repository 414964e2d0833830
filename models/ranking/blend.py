"""Blend of two rankers: a weighted sum of their scores, each divided by its spread.

The spread is the standard deviation of scores within a request. It is measured once, on validation,
so that a request's scores don't depend on other requests.

Shapes: R candidates, F features.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from models.ranking.protocol import Ranker, RankingData, scores_of
from models.ranking.requests import Requests
from shortlist.config import Config

ABOUT = "blend.json"
WEIGHTS = tuple(np.round(np.linspace(0, 1, 11), 1).tolist())
"""Weights of the first member that `fit_blend` tries. The second member has 1 - weight."""


Member = Literal["lambdamart", "wide_deep", "deepfm", "dcnv2", "din", "transformer"]


class BlendConfig(Config):
    """The two ranker types to blend; validation chooses their weights."""

    kind: Literal["blend"] = "blend"
    members: tuple[Member, Member] = ("lambdamart", "deepfm")
    """The two rankers that are added."""


class Blend:
    """Ranker whose score is a weighted sum of its members' scores; factor = weight / spread."""

    name = "blend"

    def __init__(self, members: Mapping[str, Ranker], factors: Mapping[str, float]):
        self.members = dict(members)
        self.factors = dict(factors)

    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: (R, F), (R,) -> (R,) float32. Skips members with factor 0."""
        total = np.zeros(len(x), dtype=np.float32)
        for name, member in self.members.items():
            if self.factors[name] > 0:
                total += np.float32(self.factors[name]) * member.predict(x, item_idx, requests)
        return total

    def save(self, folder: Path) -> None:
        """Write each member to a subfolder named by its type, and the factors as JSON."""
        for name, member in self.members.items():
            (folder / name).mkdir()
            member.save(folder / name)
        (folder / ABOUT).write_text(json.dumps({"factors": self.factors}, indent=1))


def fit_blend(members: Mapping[str, Ranker], validation: RankingData) -> Blend:
    """Return the blend of two rankers with the best nDCG@10 on `validation`.

    If several weights are best, the middle one is used.
    """
    first, second = members
    scores = {n: scores_of(m, validation) for n, m in members.items()}
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
    """Return the standard deviation of scores within a request, averaged over requests."""
    owner = np.repeat(np.arange(len(data)), data.group)
    count = np.maximum(data.group, 1)
    mean = np.bincount(owner, weights=scores, minlength=len(data)) / count
    squares = np.bincount(owner, weights=(scores - mean[owner]) ** 2, minlength=len(data))
    return max(float(np.sqrt(squares / count).mean()), 1e-6)
