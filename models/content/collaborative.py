"""Collaborative vectors of items: what their audience has in common.

Shapes: U users, N items, D dim.
"""

import numpy as np
from scipy.sparse import diags_array

from models.content.vectors import unit_rows
from models.data import TrainingData

MIN_EVENTS = 3
"""Items with fewer users have no vector, because it would be mostly noise."""


def collaborative_vectors(data: TrainingData, *, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors from a truncated SVD of the user-item matrix: (N + 1, D) float32.

    Rows and columns are scaled by 1 / sqrt(count). Items with fewer than MIN_EVENTS users have
    zeros. D is smaller than `dim` for a small matrix.
    """
    matrix = data.matrix
    users = np.asarray(matrix.sum(axis=1)).ravel()
    items = np.asarray(matrix.sum(axis=0)).ravel()
    scaled = diags_array(np.maximum(users, 1) ** -0.5) @ matrix
    scaled = (scaled @ diags_array(np.maximum(items, 1) ** -0.5)).astype(np.float32)
    dim = max(min(dim, *(size - 1 for size in scaled.shape)), 1)
    width = min(dim + 8, *scaled.shape)
    # Randomised subspace iteration (Halko et al. 2011), with 8 additional directions.
    basis = rng.normal(size=(scaled.shape[1], width)).astype(np.float32)
    for _ in range(5):
        basis, _ = np.linalg.qr(scaled.T @ (scaled @ basis))
    _, strength, turned = np.linalg.svd(scaled @ basis, full_matrices=False)
    vectors = basis @ (turned.T * strength)[:, :dim]
    vectors[items < MIN_EVENTS] = 0
    return unit_rows(np.asarray(vectors, dtype=np.float32))
