"""Transforms of numeric features, so that counts, years and scores have the same scale.

Shapes: R rows, F features, Q knots.
"""

from dataclasses import dataclass

import numpy as np

NUM_KNOTS = 64
SAMPLE = 100_000
"""Maximum number of rows from which quantiles are computed."""


@dataclass(frozen=True)
class Quantiles:
    """Monotone, piecewise linear map of each feature to [-1, 1]; quantile q maps to 2q - 1."""

    knots: np.ndarray  # (F, Q) float32, ascending feature values
    places: np.ndarray  # (F, Q) float32, the value in [-1, 1] that each knot maps to

    @classmethod
    def fit(cls, x: np.ndarray, *, rng: np.random.Generator) -> "Quantiles":
        """Fit the knots on (R, F) features; on a random sample if there are more than SAMPLE."""
        if len(x) > SAMPLE:
            x = x[np.sort(rng.choice(len(x), size=SAMPLE, replace=False))]
        share = np.linspace(0, 1, NUM_KNOTS)
        edges = np.quantile(x, share, axis=0).astype(np.float32)  # (Q, F)
        knots = np.empty((x.shape[1], NUM_KNOTS), dtype=np.float32)
        places = np.empty_like(knots)
        for feature, column in enumerate(edges.T):
            # A value that spans several quantiles (often a count of 0) maps to their mean.
            values, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
            middle = np.bincount(inverse, weights=2 * share - 1) / counts
            pad = NUM_KNOTS - len(values)
            knots[feature] = np.pad(values, (0, pad), mode="edge")
            places[feature] = np.pad(middle, (0, pad), mode="edge")
        return cls(knots, places)

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Transform (R, F) float32 features to [-1, 1].

        Values outside the range of the knots are treated as the nearest knot.
        """
        out = np.empty(x.shape, dtype=np.float32)
        for feature, (knots, places) in enumerate(zip(self.knots, self.places, strict=True)):
            out[:, feature] = np.interp(x[:, feature], knots, places)
        return out


LIMIT = 4.0
"""Largest absolute value of a standardised logarithm."""


@dataclass(frozen=True)
class Logarithms:
    """Standardised logarithm of each feature: sign(x) log(1 + |x|), limited to +-LIMIT.

    Source: Qin et al. 2021, "Are Neural Rankers still Outperformed by Gradient Boosted Decision
    Trees?".
    """

    mean: np.ndarray  # (F,) float32
    deviation: np.ndarray  # (F,) float32

    @classmethod
    def fit(cls, x: np.ndarray) -> "Logarithms":
        """Fit mean and deviation on (R, F) features."""
        values = _signed_log(x)
        deviation = values.std(0, dtype=np.float64)
        return cls(
            values.mean(0, dtype=np.float64).astype(np.float32),
            np.maximum(deviation, 1e-6).astype(np.float32),
        )

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Transform (R, F) float32 features."""
        z = (_signed_log(x) - self.mean) / self.deviation
        return np.clip(z, -LIMIT, LIMIT).astype(np.float32)


def _signed_log(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x))
