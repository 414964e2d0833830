"""What training on shown lists corrects for: position bias and unequal chances to be shown."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from models.ranking.head_metrics import sigmoid
from shortlist.config import Config

Labels = Literal["candidates", "shown", "both"]
"""Requests that a ranker is trained on: those of users' events, with all candidates of the sources;
lists that were shown (docs/ranking.md); or both."""
RIDGE = 1.0
"""Strength of the pull to 0 of a position's bias, which matters for positions with few outcomes."""
STEPS = 20


class LabelsConfig(Config):
    """What a ranker learns from."""

    labels: Labels = "candidates"
    """Requests to learn from: "candidates" of the sources, lists that were "shown", or "both"."""


class WeighedLabelsConfig(LabelsConfig):
    """What a ranker learns from, with weights for items of shown lists."""

    max_propensity_weight: float | None = Field(default=None, ge=1)
    """Training on shown lists: each item's weight is its inverse propensity, relative to the median
    and clipped to this. None: all weigh the same."""

    @model_validator(mode="after")
    def _weighs_what_it_reads(self) -> Self:
        if self.max_propensity_weight is not None and self.labels == "candidates":
            raise ValueError(
                'max_propensity_weight weighs shown lists; want labels = "shown" or "both" with it'
            )
        return self


def inverse_propensities(propensity: np.ndarray | None, *, clip: float | None) -> np.ndarray | None:
    """Return (R,) float32 weights of candidates: inverse propensities, relative to their median
    and clipped.

    None if all weigh the same: the known propensities don't differ, as without exploration.

    Args:
        propensity: (R,) probability with which each item was shown, NaN if unknown: the weight is
            then 1. None: all are unknown.
        clip: maximum weight; None: all candidates weigh the same.
    """
    if propensity is None or clip is None:
        return None
    known = propensity > 0
    if np.unique(propensity[known]).size < 2:
        return None
    weight = np.ones(len(propensity), dtype=np.float32)
    inverse = 1 / propensity[known]
    weight[known] = np.minimum(inverse / np.median(inverse), clip)
    return weight


def position_bias(margin: np.ndarray, label: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the log odds of outcomes at each position that the items don't explain.

    For each position, the bias b is the maximum-likelihood estimate, with a ridge, of the model
    P(outcome) = sigmoid(margin + b). It is returned relative to the first position, plus the log
    odds of the rate of all outcomes. Used as LightGBM's initial score, it lets the trees learn an
    item's chance at the first position (one step of backfitting of an additive model).

    Args:
        margin: (R,) log odds by a model without positions.
        label: (R,) 1 if the outcome happened, else 0.
        position: (R,) position from 1; 0 for items that weren't shown.

    Returns:
        (P + 1,) float64 by position, for position 0 as well.
    """
    count = int(position.max()) + 1
    bias = np.zeros(count)
    for _ in range(STEPS):
        p = sigmoid(margin + bias[position])
        gradient = np.bincount(position, weights=label - p, minlength=count) - RIDGE * bias
        curvature = np.bincount(position, weights=p * (1 - p), minlength=count) + RIDGE
        bias += np.clip(gradient / curvature, -2, 2)
    rate = np.clip(label.mean(), 1e-6, 1 - 1e-6)
    first = bias[1] if count > 1 else 0.0
    return bias - first + np.log(rate / (1 - rate))
