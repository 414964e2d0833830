"""EASE, a candidate source: item-to-item weights from a ridge regression in closed form.

Paper: Steck 2019, "Embarrassingly Shallow Autoencoders". Tuned on validation: the L2 penalty, and
the decay of older events in a history.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from models.baselines import dense
from models.data import TrainingData, Validation
from models.queries import Candidates, OncePerBatch, Queries
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions

MAX_ITEMS = 20_000
"""Maximum number of items. The inverse is dense: 20,000 items take 3 GB in float64."""


class EaseConfig(Config):
    """Grid of hyperparameters; validation chooses one combination."""

    kind: Literal["ease"] = "ease"
    l2: dense.Penalties = (200.0, 1_000.0, 5_000.0, 20_000.0)
    decay: dense.Decays = (0.5, 0.7, 0.9, 1.0)


class Ease:
    """Candidate source: scores are the weights of the history's events times item-item weights."""

    name = "ease"

    def __init__(self, weights: np.ndarray, *, decay: float, chosen: dict[str, float]):
        """
        Args:
            weights: (N + 1, N + 1) float32; item i of a history adds [i, j] to the score of item j.
            decay: weight of an event relative to that of the next newer one.
            chosen: the hyperparameters chosen on validation.
        """
        self.weights = weights
        self.decay = decay
        self.chosen = chosen
        self.scores = OncePerBatch(self._scores)

    def _scores(self, queries: Queries) -> np.ndarray:
        """Return dense scores, (B, N + 1) float32."""
        if len(queries) == 1:  # without a sparse matrix, whose construction takes longer
            items, weights = dense.weighted_items(queries.history[0], decay=self.decay)
            return (weights @ self.weights[items])[None]
        num_items = len(self.weights) - 1
        history = dense.history_weights(queries, decay=self.decay, num_items=num_items)
        return history @ self.weights

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        return dense.best(self.scores(queries), queries, k=k)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        return dense.at_candidates(self.scores(queries), candidates)

    def save(self, folder: Path) -> None:
        dense.save(folder, {"weights": self.weights}, {"decay": self.decay, "chosen": self.chosen})

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Ease":
        """Load a saved source; raises ValueError if the catalogue has another size."""
        arrays, about = dense.load(folder)
        dense.check_catalogue(folder, rows=len(arrays["weights"]), catalogue=catalogue)
        return cls(arrays["weights"], decay=about["decay"], chosen=about["chosen"])


def fit_ease(
    config: EaseConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Ease:
    """Return the source with the best validation nDCG among all combinations of the grid.

    Raises:
        ValueError: the catalogue is too large for a dense inverse.
    """
    if data.num_items > MAX_ITEMS:
        raise ValueError(
            f"ease: {data.num_items:,} items, want at most {MAX_ITEMS:,} (its inverse is dense);"
            " leave it out of [train] sources"
        )
    gram = (data.matrix.T @ data.matrix).toarray().astype(np.float64)
    best: tuple[float, Ease] | None = None
    for l2 in config.l2:
        weights = solve(gram, l2)
        for decay in config.decay:
            model = Ease(weights, decay=decay, chosen={"l2": l2, "decay": decay})
            figure = validation.ndcg(model)
            if best is None or figure > best[0]:
                best = figure, model
    assert best is not None, "the config's grid is not empty"
    return best[1]


def solve(gram: np.ndarray, l2: float) -> np.ndarray:
    """Return the EASE weights of a Gram matrix, (N + 1, N + 1) float32 (Steck 2019, eq. 8).

    The regularised matrix is symmetric and positive definite, so Cholesky inverts it in
    half the time of a general inverse. The diagonal of the weights is zero.
    """
    regularised = gram.copy()
    regularised[np.diag_indices_from(regularised)] += l2
    factor, failed = dpotrf(regularised, lower=True, overwrite_a=True)
    assert failed == 0, "a Gram matrix plus a positive diagonal is positive definite"
    inverse, failed = dpotri(factor, lower=True, overwrite_c=True)
    assert failed == 0
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    weights[0] = weights[:, 0] = 0
    return weights.astype(np.float32)
