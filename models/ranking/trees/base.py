"""Code shared by tree rankers: scoring, files, reproducible training.

A ranker keeps its models in LightGBM's text format and scores them without LightGBM. So a service
doesn't import LightGBM, which imports pandas and scikit-learn (2 s of processor time).

Shapes: R candidates, F features.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.ranking.requests import Requests
from models.ranking.trees.scores import TreeScores
from models.training import TrainingOptions

if TYPE_CHECKING:
    import lightgbm as lgb

MODELS = "model-*.txt"


class TreeRanker:
    """Ranker whose score is the mean score of one or more LightGBM boosters."""

    def __init__(self, *boosters: "lgb.Booster | str"):
        """
        Args:
            boosters: models, or their text.

        Raises:
            UnsupportedTreeError: a booster has trees that `TreeScores` can't score.
        """
        self.texts = [
            booster if isinstance(booster, str) else booster.model_to_string()
            for booster in boosters
        ]
        self._scores = TreeScores.parse(self.texts)

    @cached_property
    def boosters(self) -> "list[lgb.Booster]":
        import lightgbm as lgb

        return [lgb.Booster(model_str=text) for text in self.texts]

    def predict(
        self, x: np.ndarray, item_idx: np.ndarray, requests: Requests | None = None
    ) -> np.ndarray:
        """Score candidates: x (R, F) float32 -> (R,) float32. Other arguments are not used."""
        return (self._scores(x) / len(self.texts)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write one file per booster, in LightGBM's text format."""
        for n, text in enumerate(self.texts):
            (folder / MODELS.replace("*", f"{n:02}")).write_text(text)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a saved ranker; raises FileNotFoundError if the folder has no model."""
        found = sorted(folder.glob(MODELS))
        if not found:
            raise FileNotFoundError(f"{folder}: no {MODELS}")
        return cls(*(file.read_text() for file in found))


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


def rows_in_batches(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> "lgb.Sequence":
    """Return chosen rows and columns of (R, F) features, as a data set of LightGBM reads them.

    LightGBM copies an array before it bins it; a `Sequence` is read in batches, so that no copy of
    the features is made.
    """
    import lightgbm as lgb

    class Rows(lgb.Sequence):
        batch_size = 8192

        def __getitem__(self, which: Any) -> np.ndarray:
            return x[rows[which]][..., columns].astype(np.float64)

        def __len__(self) -> int:
            return len(rows)

    return Rows()
