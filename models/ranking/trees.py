"""Code shared by tree rankers: scoring, files, reproducible training.

Shapes: R candidates, F features.
"""

from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np

from models.ranking.tree_scores import TreeScores
from models.training import TrainingOptions

MODELS = "model-*.txt"


class TreeRanker:
    """Ranker whose score is the mean score of one or more LightGBM boosters."""

    def __init__(self, *boosters: lgb.Booster):
        """
        Raises:
            UnsupportedTreeError: a booster has trees that `TreeScores` can't score.
        """
        self.boosters = boosters
        self._scores = TreeScores.parse(booster.model_to_string() for booster in boosters)

    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Score candidates: x (R, F) float32 -> (R,) float32. `item_idx` is not used."""
        return (self._scores(x) / len(self.boosters)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write one file per booster, in LightGBM's text format."""
        for n, booster in enumerate(self.boosters):
            booster.save_model(folder / MODELS.replace("*", f"{n:02}"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a saved ranker; raises FileNotFoundError if the folder has no model."""
        found = sorted(folder.glob(MODELS))
        if not found:
            raise FileNotFoundError(f"{folder}: no {MODELS}")
        return cls(*(lgb.Booster(model_file=file) for file in found))


def reproducible(options: TrainingOptions, *, name: str) -> dict[str, Any]:
    """Return LightGBM parameters that make training reproducible.

    Args:
        name: name of the random stream of `options` that the seed is drawn from.
    """
    return {
        "seed": int(options.rng(name).integers(2**31)),
        "num_threads": options.num_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
