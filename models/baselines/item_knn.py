"""ItemKNN, a candidate source: item-to-item cosine similarity over users, with shrinkage.

Paper: Deshpande & Karypis 2004. Each item keeps only its most similar items (neighbours). Tuned on
validation: number of neighbours, shrinkage, and the decay of older events in a history.

Shapes: B queries, S items, L history, N items of the catalogue.
"""

import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt
from scipy.sparse import csr_array

from models.baselines import dense
from models.data import TrainingData, Validation
from models.queries import Candidates, OncePerBatch, Queries, best_places, top_k
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions


class ItemKnnConfig(Config):
    """Grid of hyperparameters; validation chooses one combination."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: tuple[PositiveInt, ...] = Field((20, 100, 200), min_length=1)
    shrinkage: tuple[NonNegativeFloat, ...] = Field((0.0, 10.0, 100.0), min_length=1)
    decay: dense.Decays = (0.5, 0.7, 0.9, 1.0)


class ItemKNN:
    """Candidate source that scores an item by its similarity to the history's items.

    The score is the sum of the similarities, each times the decayed weight of the history's event.
    """

    name = "item_knn"

    def __init__(self, similarity: csr_array, *, decay: float, chosen: dict[str, float]):
        """
        Args:
            similarity: (N + 1, N + 1) float32; row i contains the similarities of item i's
                neighbours.
            decay: weight of an event relative to that of the next newer one.
            chosen: the hyperparameters chosen on validation.
        """
        self.similarity = similarity
        self.decay = decay
        self.chosen = chosen
        self._of_thread = threading.local()
        self._rows = OncePerBatch(self._compute_rows)
        """For each query of a batch, the items that have a score (ascending) and the scores."""

    @property
    def num_items(self) -> int:
        return len(self.similarity.indptr) - 2

    def _compute_rows(self, queries: Queries) -> list[tuple[np.ndarray, np.ndarray]]:
        if len(queries) == 1:
            return [self._row(queries.history[0])]
        weights = dense.history_weights(queries, decay=self.decay, num_items=self.num_items)
        scores = weights @ self.similarity
        scores.sort_indices()
        indices, data = np.asarray(scores.indices), np.asarray(scores.data)
        ends = np.asarray(scores.indptr).tolist()
        return [(indices[start:end], data[start:end]) for start, end in pairwise(ends)]

    def _row(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return items and scores of one history, without the overhead of sparse matrices."""
        # Imported here, because importing numba takes a second that many commands don't need.
        from models.baselines.item_kernels import add_rows

        items, weights = dense.weighted_items(history, decay=self.decay)
        scores = self._scratch()
        written = add_rows(*self._arrays, items, weights, scores)
        item_idx = np.sort(written)
        found = scores[item_idx]
        scores[item_idx] = 0
        return item_idx, found

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The similarity matrix in the CSR format."""
        matrix = self.similarity
        return matrix.indptr, matrix.indices, matrix.data  # pyright: ignore[reportReturnType]

    def _scratch(self) -> np.ndarray:
        """Return (N + 1,) float32 zeros that belong to the calling thread.

        A new array per request would cost more than the sums.
        """
        scores = getattr(self._of_thread, "scores", None)
        if scores is None:
            scores = self._of_thread.scores = np.zeros(self.num_items + 1, dtype=np.float32)
        return scores

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        k = min(k, self.num_items)
        found = np.zeros((len(queries), k), dtype=np.int64)
        score = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for row, (item_idx, values) in enumerate(self._rows(queries)):
            kept = queries.allowed(row, self.num_items)[item_idx] & (values != 0)
            item_idx, values = item_idx[kept], values[kept]
            best = best_places(values, min(k, len(values)))
            found[row, : len(best)], score[row, : len(best)] = item_idx[best], values[best]
        return Candidates(found, score)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        out = np.full(candidates.shape, -np.inf, dtype=np.float32)
        for row, (item_idx, values) in enumerate(self._rows(queries)):
            real = candidates[row] > 0
            out[row, real] = 0
            if len(item_idx):
                index = np.minimum(np.searchsorted(item_idx, candidates[row]), len(item_idx) - 1)
                scored = real & (item_idx[index] == candidates[row])
                out[row, scored] = values[index[scored]]
        return out

    def similar(self, item_idx: np.ndarray, k: int) -> Candidates:
        """Return the k most similar items of each of (S,) items, padded if there are fewer."""
        scores = self.similarity[item_idx].toarray()
        scores[scores == 0] = -np.inf
        return top_k(scores, k)

    def contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Return the contribution of each event of a history to the score of each item.

        An item's score is the sum of its contributions.

        (L,) history, (S,) item_idx -> (S, L) float32.
        """
        from models.baselines.item_kernels import pick

        weights = dense.place_weights(history[None], decay=self.decay)[0]
        return weights * pick(*self._arrays, history, item_idx)

    def save(self, folder: Path) -> None:
        matrix = self.similarity
        arrays = {
            "data": matrix.data,
            "indices": matrix.indices.astype(np.int32),
            "indptr": matrix.indptr.astype(np.int64),
        }
        dense.save(folder, arrays, {"decay": self.decay, "chosen": self.chosen})

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "ItemKNN":
        """Load a saved source; raises ValueError if the catalogue has another size."""
        arrays, about = dense.load(folder)
        size = len(arrays["indptr"]) - 1
        dense.check_catalogue(folder, rows=size, catalogue=catalogue)
        matrix = csr_array(
            (arrays["data"], arrays["indices"], arrays["indptr"]), shape=(size, size)
        )
        return cls(matrix, decay=about["decay"], chosen=about["chosen"])


def fit_item_knn(
    config: ItemKnnConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> ItemKNN:
    """Return the source with the best validation nDCG among all combinations of the grid."""
    together = (data.matrix.T @ data.matrix).tocsr().astype(np.float64)
    count = together.diagonal()
    best: tuple[float, ItemKNN] | None = None
    for shrinkage in config.shrinkage:
        kept = _cosine(together, count, shrinkage)
        for neighbours in sorted(config.neighbours, reverse=True):
            kept = keep_largest(kept, neighbours)  # descending: fewer neighbours are a subset
            for decay in config.decay:
                chosen = {"neighbours": neighbours, "shrinkage": shrinkage, "decay": decay}
                model = ItemKNN(kept, decay=decay, chosen=chosen)
                figure = validation.ndcg(model)
                if best is None or figure > best[0]:
                    best = figure, model
    assert best is not None, "the config's grid is not empty"
    return best[1]


def _cosine(together: csr_array, count: np.ndarray, shrinkage: float) -> csr_array:
    """Return item similarities: common users / (sqrt(users of i * users of j) + shrinkage).

    Args:
        together: (N + 1, N + 1) numbers of common users.
        count: (N + 1,) number of users of each item.
    """
    matrix = together.tocoo()
    norm = np.sqrt(count[matrix.row] * count[matrix.col]) + shrinkage
    value = np.where(matrix.row == matrix.col, 0, matrix.data / norm).astype(np.float32)
    cosine = csr_array((value, (matrix.row, matrix.col)), shape=matrix.shape)
    cosine.eliminate_zeros()
    return cosine


def keep_largest(matrix: csr_array, k: int) -> csr_array:
    """Return a matrix with only the k largest values of each row."""
    starts = np.asarray(matrix.indptr)
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((-np.asarray(matrix.data, dtype=np.float32), rows))
    rank = np.arange(len(rows)) - starts[rows]
    kept = np.sort(order[rank < k])
    return csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
