"""iALS, a candidate source: implicit ALS with frequency-scaled regularisation.

ALS is alternating least squares. Papers: Hu, Koren & Volinsky 2008; Rendle 2022. Tuned on
validation: the penalty, the weight of unseen items, and the decay of older events in a history.
User factors are computed for each request from its history (fold-in), so users without training
events have factors too.

Shapes: N items, D dim, B queries, L history; R rows, M columns and E entries of a sparse matrix.
"""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import PositiveInt
from scipy.sparse import csr_array

from models.baselines import dense
from models.data import TrainingData, Validation
from models.queries import Candidates, OncePerBatch, Queries
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions


TRAINING_STEPS = 4
"""Conjugate-gradient steps per solution. Few suffice, because each solution starts from the factors
of the previous iteration."""
MAX_ENTRIES = 500_000
"""Maximum number of matrix entries per block of rows; each entry needs 2 * D float64 of memory."""


class IalsConfig(Config):
    """Hyperparameters. Tuples are grids, of which validation chooses one combination."""

    kind: Literal["ials"] = "ials"
    embedding_dim: PositiveInt = 48
    num_iterations: PositiveInt = 5
    l2: dense.Penalties = (0.003, 0.01, 0.03)
    unseen_weight: dense.Penalties = (0.3, 1.0, 3.0)
    decay: dense.Decays = (0.6, 0.8, 1.0)


class Ials:
    """Candidate source: scores are inner products of item factors and folded-in user factors."""

    name = "ials"

    def __init__(
        self,
        factors: np.ndarray,
        *,
        l2: float,
        unseen_weight: float,
        decay: float,
        chosen: dict[str, float],
    ):
        """
        Args:
            factors: (N + 1, D) float32 item factors; row 0 is zero.
            l2: penalty of the fold-in, as in `solve_side`.
            unseen_weight: weight of unseen items in the fold-in, as in `solve_side`.
            decay: weight of an event relative to that of the next newer one.
            chosen: the hyperparameters chosen on validation.
        """
        self.factors = factors
        self.l2 = l2
        self.unseen_weight = unseen_weight
        self.decay = decay
        self.chosen = chosen
        self.scores = OncePerBatch(self._scores)
        exact = factors.astype(np.float64)
        self._gram = unseen_weight * exact.T @ exact
        """(D, D) part of the normal equations that is the same for all requests."""

    def query_vectors(self, queries: Queries) -> np.ndarray:
        """Return the least-squares user factors of each history: (B, D) float32.

        An empty history has zeros.
        """
        weights = dense.place_weights(queries.history, decay=self.decay)
        rows = zip(queries.history, weights, strict=True)
        return np.stack([self._fold_in(*row) for row in rows]).astype(np.float32)

    def _fold_in(self, history: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the exact minimum of `solve_side`'s objective for one user.

        (L,) history, (L,) weights -> (D,) float64.
        """
        kept = weights > dense.NEGLIGIBLE
        seen, weight = self.factors[history[kept]].astype(np.float64), weights[kept, None]
        penalty = self.l2 * (weight.sum(dtype=np.float64) + self.unseen_weight * len(self.factors))
        system = self._gram + seen.T @ (weight * seen)
        system[np.diag_indices_from(system)] += penalty
        return np.linalg.solve(system, seen.T @ weight[:, 0])

    def _scores(self, queries: Queries) -> np.ndarray:
        """Return dense scores, (B, N + 1) float32."""
        return self.query_vectors(queries) @ self.factors.T

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        return dense.best(self.scores(queries), queries, k=k)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        return dense.at_candidates(self.scores(queries), candidates)

    def save(self, folder: Path) -> None:
        about = {
            "l2": self.l2,
            "unseen_weight": self.unseen_weight,
            "decay": self.decay,
            "chosen": self.chosen,
        }
        dense.save(folder, {"factors": self.factors}, about)

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Ials":
        """Load a saved source; raises ValueError if the catalogue has another size."""
        arrays, about = dense.load(folder)
        dense.check_catalogue(folder, rows=len(arrays["factors"]), catalogue=catalogue)
        return cls(arrays["factors"], **about)


def fit_ials(
    config: IalsConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Ials:
    """Return the source with the best validation nDCG among all combinations of the grid."""
    best: tuple[float, Ials] | None = None
    for l2, unseen_weight in product(config.l2, config.unseen_weight):
        factors = _alternate(
            config, data, l2=l2, unseen_weight=unseen_weight, rng=options.rng("ials")
        )
        for decay in config.decay:  # affects only the fold-in: no retraining
            chosen = {"l2": l2, "unseen_weight": unseen_weight, "decay": decay}
            model = Ials(factors, **chosen, chosen=chosen)
            figure = validation.ndcg(model)
            if best is None or figure > best[0]:
                best = figure, model
    assert best is not None, "the config's grid is not empty"
    return best[1]


def _alternate(
    config: IalsConfig,
    data: TrainingData,
    *,
    l2: float,
    unseen_weight: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Train by alternating least squares; return the item factors, (N + 1, D) float32."""
    scale = 1 / np.sqrt(config.embedding_dim)
    items = rng.normal(scale=scale, size=(data.num_items + 1, config.embedding_dim))
    items[0] = 0
    users: np.ndarray | None = None
    by_item = csr_array(data.matrix.T.tocsr())
    weights = {"l2": l2, "unseen_weight": unseen_weight}
    for _ in range(config.num_iterations):
        users = solve_side(data.matrix, items, **weights, steps=TRAINING_STEPS, start=users)
        items = solve_side(by_item, users, **weights, steps=TRAINING_STEPS, start=items)
    return items.astype(np.float32)


def solve_side(
    matrix: csr_array,
    other: np.ndarray,
    *,
    l2: float,
    unseen_weight: float,
    steps: int,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Return the factors of the rows, with the factors of the columns fixed: (R, D) float64.

    The objective of each row x has three parts (Rendle 2022): the weighted squared error over seen
    columns, `unseen_weight` times the squared predictions of all columns, and the penalty
    l2 * (sum of the row's weights + unseen_weight * M) * |x|^2.

    All rows of a block are solved together by conjugate gradients (Takács, Pilászy & Tikk 2011), so
    no D x D system is built per row.

    Args:
        matrix: (R, M) weights of seen entries.
        other: (M, D) factors of the columns.
        steps: number of conjugate-gradient steps.
        start: (R, D) initial factors; None: zeros.
    """
    other = other.astype(np.float64)
    gram = unseen_weight * other.T @ other
    starts = np.asarray(matrix.indptr)
    num_rows = len(starts) - 1
    solution = np.zeros((num_rows, other.shape[1])) if start is None else start.copy()
    first = 0
    while first < num_rows:
        full = int(np.searchsorted(starts, starts[first] + MAX_ENTRIES, "right")) - 1
        last = max(full, first + 1)  # a row with more than MAX_ENTRIES entries is a block by itself
        _conjugate_gradients(
            matrix[first:last], other, gram, solution[first:last], l2, unseen_weight, steps
        )
        first = last
    return solution


def _conjugate_gradients(
    matrix: csr_array,
    other: np.ndarray,
    gram: np.ndarray,
    solution: np.ndarray,
    l2: float,
    unseen_weight: float,
    steps: int,
) -> None:
    """Improve the factors `solution` (R, D) of a block of rows in place, by `steps` iterations.

    See `solve_side` for the other arguments; `gram` is the part of the system that all rows share.
    """
    rows = np.repeat(np.arange(len(solution)), np.diff(matrix.indptr))
    seen_factors = other[matrix.indices]  # (E, D)
    seen = matrix.sum(1).astype(np.float64)
    penalty = (l2 * (seen + unseen_weight * len(other)))[:, None]

    def apply(x: np.ndarray) -> np.ndarray:
        dots = matrix.data * np.einsum("ed,ed->e", x[rows], seen_factors)
        weighted = csr_array((dots, matrix.indices, matrix.indptr), shape=matrix.shape)
        return x @ gram + weighted @ other + penalty * x

    residual = matrix @ other - apply(solution)
    direction = residual.copy()
    error = (residual**2).sum(1, keepdims=True)
    for _ in range(steps):
        image = apply(direction)
        curvature = (direction * image).sum(1, keepdims=True)
        step = np.divide(error, curvature, out=np.zeros_like(error), where=curvature > 0)
        solution += step * direction
        residual -= step * image
        smaller = (residual**2).sum(1, keepdims=True)
        turn = np.divide(smaller, error, out=np.zeros_like(error), where=error > 0)
        direction = residual + turn * direction
        error = smaller
