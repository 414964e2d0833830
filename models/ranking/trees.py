"""Code shared by tree rankers: scoring, saving, merging of models, reproducible training.

Shapes: R candidates, F features.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np

from models.training import TrainingOptions

MODELS = "model-*.txt"
SMALL_BATCH = 5_000
"""Rows up to which one thread is faster than several."""


ROUGH_SHARE = 0.1
"""Share of the trees that give the rough score."""
MIN_ROUGH_TREES = 15
"""If ROUGH_SHARE is fewer trees than this, a ranker has no rough score."""


class TreeRanker:
    """Ranker whose score is the mean score of one or more LightGBM boosters."""

    def __init__(self, *boosters: lgb.Booster):
        self.boosters = boosters
        self._together = boosters[0] if len(boosters) == 1 else _merged(boosters)
        """All trees in one model, because a LightGBM call costs as much as 100 small trees."""

    def predict(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Score candidates: x (R, F) float32 -> (R,) float32. `item_idx` is unused."""
        if len(x) == 0:
            return np.zeros(0, dtype=np.float32)
        total = self._predict(x, num_trees=-1)
        return (np.asarray(total) / len(self.boosters)).astype(np.float32)

    def rough(self, x: np.ndarray, item_idx: np.ndarray) -> np.ndarray | None:
        """Return rough scores by the first ROUGH_SHARE of the trees: x (R, F) -> (R,) float32.

        None if these are fewer than MIN_ROUGH_TREES: the extra call would cost more than it saves.
        """
        num_trees = int(ROUGH_SHARE * self._together.num_trees())
        if num_trees < MIN_ROUGH_TREES:
            return None
        return self._predict(x, num_trees=num_trees).astype(np.float32)

    def _predict(self, x: np.ndarray, *, num_trees: int) -> np.ndarray:
        """Return the summed scores of the first `num_trees` trees; -1: all."""
        scores = self._together.predict(
            x,
            num_iteration=num_trees,
            raw_score=True,
            num_threads=1 if len(x) <= SMALL_BATCH else 0,  # pyright: ignore[reportArgumentType]
        )
        return np.asarray(scores)

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


def _merged(boosters: Sequence[lgb.Booster]) -> lgb.Booster:
    """Return one model with the trees of all boosters; its raw score is the sum of theirs.

    Edits LightGBM's text format, which consists of a header, the trees, and further text. LightGBM
    infers the number of trees from `tree_sizes` in the header.
    """
    texts = [_trees_of(booster) for booster in boosters]
    header, _, end = texts[0]
    # Take trees from the boosters in turn, so that `rough` uses the first trees of each.
    turns = zip_longest(*(trees for _, trees, _ in texts))
    trees = [tree for turn in turns for tree in turn if tree is not None]
    numbered = [f"Tree={n}\n{tree.partition(chr(10))[2]}" for n, tree in enumerate(trees)]
    sizes = " ".join(str(len(tree.encode())) for tree in numbered)
    lines = [
        f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line
        for line in header.split("\n")
    ]
    return lgb.Booster(model_str="\n".join(lines) + "".join(numbered) + end)


def _trees_of(booster: lgb.Booster) -> tuple[str, list[str], str]:
    """Split a model's text into header, one text per tree, and the rest."""
    text = booster.model_to_string()
    header, _, rest = text.partition("Tree=0\n")
    body, marker, end = rest.partition("end of trees")
    trees = ("Tree=0\n" + body).split("Tree=")[1:]
    return header, [f"Tree={tree}" for tree in trees], marker + end


def reproducible(options: TrainingOptions, *, name: str) -> dict[str, Any]:
    """Return LightGBM parameters that make training reproducible.

    Args:
        name: name of the random stream that the seed comes from.
    """
    return {
        "seed": int(options.rng(name).integers(2**31)),
        "num_threads": options.num_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
