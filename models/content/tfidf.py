"""Text vectors without a transformer: hashed TF-IDF reduced by a truncated SVD.

Deerwester et al. 1990 (latent semantic analysis); Weinberger et al. 2009 (hashing). Words are
hashed to buckets, so that the fitted state has no vocabulary and is stored without pickle.

Shapes: T texts, K used buckets, D dim.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from models.content.vectors import unit_rows

BUCKETS = 1 << 18
MAX_CHARACTERS = 20_000
"""Longer texts are cut, so that a text of a megabyte doesn't dominate the catalogue."""
WORD = re.compile(r"\w+")


class Tfidf(nn.Module):
    """A fitted TF-IDF and SVD. Its buffers are the whole state."""

    buckets: Tensor
    idf: Tensor
    components: Tensor

    def __init__(self, *, num_buckets: int, dim: int):
        super().__init__()
        self.register_buffer("buckets", torch.zeros(num_buckets, dtype=torch.int64))
        self.register_buffer("idf", torch.zeros(num_buckets))
        self.register_buffer("components", torch.zeros(num_buckets, dim))

    def sizes(self) -> dict[str, int]:
        return {"num_buckets": len(self.buckets), "dim": self.components.shape[1]}

    @classmethod
    def fit(cls, texts: Sequence[str], *, dim: int, rng: np.random.Generator) -> "Tfidf":
        """Fit on texts. The vectors have at most `dim` dimensions, fewer for few or short texts."""
        rows, found, counts = _counts(texts)
        buckets, column = np.unique(found, return_inverse=True)
        shape = (len(texts), len(buckets))
        frequency = np.bincount(column, minlength=len(buckets))
        idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
        weighted = _weighted(rows, column, counts, idf, shape=shape)
        dim = min(dim, max(min(shape) - 1, 0))
        fitted = cls(num_buckets=len(buckets), dim=dim)
        fitted.buckets.copy_(torch.from_numpy(buckets))
        fitted.idf.copy_(torch.from_numpy(idf))
        if dim:
            fitted.components.copy_(torch.from_numpy(_right_singular(weighted, dim=dim, rng=rng)))
        return fitted

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, (T, D) float32; zeros for texts without a known word."""
        rows, found, counts = _counts(texts)
        buckets = self.buckets.numpy()
        column = np.searchsorted(buckets, found)
        known = np.zeros(len(found), dtype=bool)
        if len(buckets):
            column = np.minimum(column, len(buckets) - 1)
            known = buckets[column] == found
        weighted = _weighted(
            rows[known],
            column[known],
            counts[known],
            self.idf.numpy(),
            shape=(len(texts), len(buckets)),
        )
        return unit_rows(np.asarray(weighted @ self.components.numpy(), dtype=np.float32))


def _counts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (text, bucket, count) of each distinct word of each text: three arrays."""
    rows, buckets, counts = [], [], []
    for row, text in enumerate(texts):
        words = [
            zlib.crc32(word.encode(errors="replace")) % BUCKETS
            for word in WORD.findall(text[:MAX_CHARACTERS].lower())
        ]
        bucket, number = np.unique(np.array(words, dtype=np.int64), return_counts=True)
        rows.append(np.full(len(bucket), row))
        buckets.append(bucket)
        counts.append(number)
    none = [np.empty(0, dtype=np.int64)]
    return tuple(np.concatenate(parts or none) for parts in (rows, buckets, counts))  # pyright: ignore[reportReturnType]


def _weighted(
    rows: np.ndarray,
    column: np.ndarray,
    counts: np.ndarray,
    idf: np.ndarray,
    *,
    shape: tuple[int, int],
) -> csr_array:
    """Return the (T, K) matrix of (1 + log count) * idf with rows of length 1."""
    values = (1 + np.log(counts)) * idf[column]
    length = np.sqrt(np.bincount(rows, weights=values**2, minlength=shape[0]))
    values = values / np.maximum(length[rows], 1e-12)
    return csr_array((values.astype(np.float32), (rows, column)), shape=shape)


def _right_singular(matrix: Any, *, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Return the first right singular vectors of a matrix: (K, dim) float32.

    Randomised subspace iteration (Halko et al. 2011), with 8 additional directions.
    """
    width = min(dim + 8, *matrix.shape)
    basis = rng.normal(size=(matrix.shape[1], width)).astype(np.float32)
    for _ in range(5):
        basis, _ = np.linalg.qr(np.asarray(matrix.T @ (matrix @ basis)))
    _, _, turned = np.linalg.svd(np.asarray(matrix @ basis), full_matrices=False)
    return np.asarray(basis @ turned.T[:, :dim], dtype=np.float32)
