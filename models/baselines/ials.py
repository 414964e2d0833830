"""iALS: implicit alternating least squares (Hu, Koren & Volinsky 2008), regularised by frequency
(Rendle 2022).

Tuned on validation: the penalty and the weight of what was not seen. A request's user is folded in
from its history, so that somebody who came after training has factors too.

Shapes: U users, N items, D dim.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_array

from models.baselines import dense
from models.data import TrainingData, Validation
from models.queries import Candidates, Queries
from shortlist.catalogue import Catalogue
from shortlist.config import Config
from shortlist.pack import ItemState

if TYPE_CHECKING:
    from models.training import TrainingOptions


FOLD_IN_STEPS = 12
"""Conjugate-gradient steps from nothing; more change the ranking no longer."""
TRAINING_STEPS = 4
"""The same where the last iteration's factors are the start."""


class IalsConfig(Config):
    kind: Literal["ials"] = "ials"
    embedding_dim: int = 48
    num_iterations: int = 8
    l2: tuple[float, ...] = (0.003, 0.01, 0.03)
    unseen_weight: tuple[float, ...] = (0.3,)


class Ials:
    """Scores are inner products of item factors and the factors folded in from a history."""

    name = "ials"

    def __init__(
        self, factors: np.ndarray, *, l2: float, unseen_weight: float, chosen: dict[str, float]
    ):
        """
        Args:
            factors: (N + 1, D) float32, row 0 is zero.
        """
        self.factors = factors
        self.l2 = l2
        self.unseen_weight = unseen_weight
        self.chosen = chosen

    def query_vectors(self, queries: Queries) -> np.ndarray:
        """(B, D) float32: the least-squares user of each history; zero without one."""
        matrix = dense.history_weights(queries, decay=1.0, num_items=len(self.factors) - 1)
        return solve_side(
            matrix,
            self.factors,
            l2=self.l2,
            unseen_weight=self.unseen_weight,
            steps=FOLD_IN_STEPS,
        ).astype(np.float32)

    def scores(self, queries: Queries) -> np.ndarray:
        """(B, N + 1) float32."""
        return self.query_vectors(queries) @ self.factors.T

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        return dense.best(self.scores(queries), queries, k=k)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        return dense.at_candidates(self.scores(queries), candidates)

    def save(self, folder: Path) -> None:
        about = {"l2": self.l2, "unseen_weight": self.unseen_weight, "chosen": self.chosen}
        dense.save(folder, {"factors": self.factors}, about)

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Ials":
        arrays, about = dense.load(folder)
        return cls(arrays["factors"], **about)


def fit_ials(
    config: IalsConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Ials:
    """Alternate for every combination of the grid and keep the best on validation."""
    best: tuple[float, Ials] | None = None
    by_item = csr_array(data.matrix.T.tocsr())
    for l2 in config.l2:
        for unseen_weight in config.unseen_weight:
            rng = options.rng("ials")
            scale = 1 / np.sqrt(config.embedding_dim)
            items = rng.normal(scale=scale, size=(data.num_items + 1, config.embedding_dim))
            items[0] = 0
            users: np.ndarray | None = None
            chosen = {"l2": l2, "unseen_weight": unseen_weight}
            for _ in range(config.num_iterations):
                users = solve_side(data.matrix, items, **chosen, steps=TRAINING_STEPS, start=users)
                items = solve_side(by_item, users, **chosen, steps=TRAINING_STEPS, start=items)
            model = Ials(items.astype(np.float32), **chosen, chosen=chosen)
            figure = validation.ndcg(model)
            if best is None or figure > best[0]:
                best = figure, model
    assert best is not None, "the config's grid is not empty"
    return best[1]


def solve_side(
    matrix: csr_array,
    other: np.ndarray,
    *,
    l2: float,
    unseen_weight: float,
    steps: int,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """One half step: rows (R, M) of 0/1, factors of the other side (M, D) -> (R, D) float64.

    Minimises, for each row, the squared error over what was seen plus `unseen_weight` times the
    squared prediction over everything, plus l2 * (seen + unseen_weight * M) * |x|^2 (Rendle 2022).
    All rows at once by conjugate gradients (Takács, Pilászy & Tikk 2011): no D x D system is built.
    """
    other = other.astype(np.float64)
    gram = unseen_weight * other.T @ other
    seen = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), seen)
    seen_factors = other[matrix.indices]  # (E, D)
    penalty = (l2 * (seen + unseen_weight * len(other)))[:, None]

    def apply(x: np.ndarray) -> np.ndarray:
        dots = np.einsum("ed,ed->e", x[rows], seen_factors)
        weighted = csr_array((dots, matrix.indices, matrix.indptr), shape=matrix.shape)
        return x @ gram + weighted @ other + penalty * x

    ones = csr_array((np.ones(len(rows)), matrix.indices, matrix.indptr), shape=matrix.shape)
    solution = np.zeros((matrix.shape[0], other.shape[1])) if start is None else start.copy()
    residual = ones @ other - apply(solution)
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
    return solution
