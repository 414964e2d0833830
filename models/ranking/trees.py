"""What rankers of boosted trees share: scoring, LightGBM's text format, reproducible boosting.

Shapes: R candidates, F features.
"""

from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np

from models.training import TrainingOptions

MODEL = "model.txt"
SMALL_BATCH = 5_000
"""Rows up to which one thread is faster than waking more."""


class TreeRanker:
    """A trained ensemble; `booster` holds the rounds that score."""

    def __init__(self, booster: lgb.Booster):
        self.booster = booster

    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """(R, F) float32, (R,) int64 (not read) -> (R,) float32."""
        if len(x) == 0:
            return np.zeros(0, dtype=np.float32)
        threads = 1 if len(x) <= SMALL_BATCH else 0  # 0 is LightGBM's default
        scores = self.booster.predict(x, num_threads=threads)  # pyright: ignore[reportArgumentType]
        return np.asarray(scores, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write LightGBM's text format."""
        self.booster.save_model(folder / MODEL)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(lgb.Booster(model_file=folder / MODEL))


def reproducible(options: TrainingOptions, *, name: str) -> dict[str, Any]:
    """LightGBM parameters under which the same seed gives the same trees, in any thread."""
    return {
        "seed": int(options.rng(name).integers(2**31)),
        "num_threads": options.num_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
