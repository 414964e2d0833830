"""Code shared by tree rankers: scoring, LightGBM's text format, reproducible training.

Shapes: R candidates, F features.
"""

from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np

from models.training import TrainingOptions

MODELS = "model-*.txt"
SMALL_BATCH = 5_000
"""Rows up to which one thread is faster than several."""


class TreeRanker:
    """One or more trained boosters whose scores are averaged."""

    def __init__(self, *boosters: lgb.Booster):
        self.boosters = boosters

    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """(R, F) float32, item_idx (R,) (unused) -> (R,) float32 scores."""
        if len(x) == 0:
            return np.zeros(0, dtype=np.float32)
        threads = 1 if len(x) <= SMALL_BATCH else 0  # 0 is LightGBM's default
        total = np.zeros(len(x))
        for booster in self.boosters:
            scores = booster.predict(x, num_threads=threads)  # pyright: ignore[reportArgumentType]
            total += np.asarray(scores)
        return (total / len(self.boosters)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write LightGBM's text format, one file per booster."""
        for n, booster in enumerate(self.boosters):
            booster.save_model(folder / MODELS.replace("*", f"{n:02}"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load; raises FileNotFoundError if the folder has no model."""
        found = sorted(folder.glob(MODELS))
        if not found:
            raise FileNotFoundError(f"{folder}: no {MODELS}")
        return cls(*(lgb.Booster(model_file=file) for file in found))


def reproducible(options: TrainingOptions, *, name: str) -> dict[str, Any]:
    """LightGBM parameters that make training repeatable for a seed, in any thread."""
    return {
        "seed": int(options.rng(name).integers(2**31)),
        "num_threads": options.num_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
