"""Audience model: collaborative vectors of items, predicted from attributes for new items.

Known items get vectors from a truncated SVD of the user-item matrix (Halko et al. 2011). A ridge
regression predicts these vectors from an item's categories, brand and period of publication, so an
item without events gets the vector of the audience that such items have (Gantner et al. 2010,
"Learning Attribute-to-Feature Mappings for Cold-Start Recommendations"). Fitting takes seconds and
needs no text encoder.

Shapes: B requests, C candidates, N items, F attributes, D dim.
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from models.baselines.dense import at_candidates, check_catalogue
from models.data import TrainingData, Validation
from models.queries import Candidates, Queries, mask_left_out, newest, top_k
from shortlist import columns as c
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.config import Config
from shortlist.features.finalize import MAX_HISTORY
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.training import TrainingOptions

PERIOD = 5 * 365.25 * MICROSECONDS_PER_DAY
"""Length of a publication period in microseconds."""
MIN_ITEMS = 2
"""An attribute needs this many items."""
ABOUT, ARRAYS = "about.json", "arrays.safetensors"


class AudienceConfig(Config):
    """Hyperparameters of the audience model."""

    kind: Literal["audience"] = "audience"
    dim: int = Field(48, ge=1)
    ridge: float = Field(5.0, gt=0)
    """Penalty of the regression from attributes to vectors."""
    min_events: int = Field(5, ge=1)
    """Items with fewer training events get the predicted vector."""
    max_history: int = Field(200, ge=1, le=MAX_HISTORY)


class Audience:
    """Candidate source that scores an item by the sum of its similarities to the history."""

    name = "audience"

    def __init__(
        self,
        *,
        item_vectors: np.ndarray,
        weights: np.ndarray,
        attributes: list[str],
        max_history: int,
    ):
        """
        Args:
            item_vectors: (N + 1, D); row 0 is zeros.
            weights: (F, D) regression from attributes to vectors.
            attributes: names of the F attributes, see `attributes_of`.
            max_history: number of newest events that a query reads.
        """
        self.item_vectors = item_vectors
        self.weights = weights
        self.attributes = attributes
        self.max_history = max_history

    def query_vectors(self, queries: Queries) -> np.ndarray:
        """Return the sum of the vectors of each history, (B, D)."""
        history = newest(queries.history, max_history=self.max_history)
        return self.item_vectors[history].sum(1)

    def predicted(self, catalogue: Catalogue, item_idx: np.ndarray) -> np.ndarray:
        """Return the vectors that the attributes of the items predict: (M,) -> (M, D)."""
        rows = [attributes_of(catalogue, int(item)) for item in item_idx]
        return attribute_matrix(rows, self.attributes) @ self.weights

    def retrieve(self, queries: Queries, items: ItemState, *, k: int) -> Candidates:
        scores = self.query_vectors(queries) @ self.item_vectors.T
        scores[queries.lengths == 0] = -np.inf
        return top_k(mask_left_out(scores, queries), k)

    def score(self, queries: Queries, items: ItemState, candidates: np.ndarray) -> np.ndarray:
        scores = self.query_vectors(queries) @ self.item_vectors.T
        return at_candidates(scores, candidates)

    def save(self, folder: Path) -> None:
        save_file({"item_vectors": self.item_vectors, "weights": self.weights}, folder / ARRAYS)
        about = {"attributes": self.attributes, "max_history": self.max_history}
        (folder / ABOUT).write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, catalogue: Catalogue) -> "Audience":
        arrays, about = load_file(folder / ARRAYS), json.loads((folder / ABOUT).read_text())
        check_catalogue(folder, rows=len(arrays["item_vectors"]), catalogue=catalogue)
        return cls(**arrays, **about)


def fit_audience(
    config: AudienceConfig,
    data: TrainingData,
    validation: Validation,
    options: "TrainingOptions",
) -> Audience:
    """Fit vectors and regression. `validation` is ignored: nothing is tuned."""
    vectors = svd_vectors(data, dim=config.dim, rng=options.rng("audience"))
    rows = [attributes_of(data.catalogue, item) for item in range(1, data.num_items + 1)]
    counts = Counter(name for row in rows for name in row)
    attributes = sorted(name for name, count in counts.items() if count >= MIN_ITEMS)
    x = attribute_matrix(rows, attributes)
    known = data.item_counts[1:] >= config.min_events
    gram = x[known].T @ x[known] + config.ridge * np.eye(len(attributes))
    weights = np.linalg.solve(gram, x[known].T @ vectors[1:][known]).astype(np.float32)
    vectors[1:][~known] = x[~known] @ weights
    return Audience(
        item_vectors=vectors,
        weights=weights,
        attributes=attributes,
        max_history=config.max_history,
    )


def svd_vectors(data: TrainingData, *, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Return the right singular vectors of the user-item matrix: (N + 1, D) float32.

    D is smaller than `dim` for a small matrix.
    """
    matrix, num_columns = data.matrix, data.num_items + 1
    width = min(dim + 8, data.num_users, num_columns)
    basis = rng.normal(size=(num_columns, width)).astype(np.float32)
    for _ in range(4):
        basis, _ = np.linalg.qr(matrix.T @ (matrix @ basis))
    _, _, turned = np.linalg.svd(matrix @ basis, full_matrices=False)
    return np.ascontiguousarray(basis @ turned.T[:, :dim], dtype=np.float32)


def attributes_of(catalogue: Catalogue, item: int) -> list[str]:
    """Return the names of an item's attributes: categories, brand, period of publication."""
    names = ["any", *(f"category:{name}" for name in catalogue.category_lists[item])]
    brand = catalogue.items.column(c.BRAND)[item - 1].as_py()
    if brand:
        names.append(f"brand:{brand}")
    published = int(catalogue.published_at[item])
    if published:
        names.append(f"period:{int(published // PERIOD)}")
    return names


def attribute_matrix(rows: list[list[str]], attributes: list[str]) -> np.ndarray:
    """Return (M, F) float32: 1 where the item has the attribute."""
    column_of = {name: column for column, name in enumerate(attributes)}
    matrix = np.zeros((len(rows), len(attributes)), dtype=np.float32)
    for row, names in zip(matrix, rows, strict=True):
        row[[column_of[name] for name in names if name in column_of]] = 1
    return matrix
