"""Vectors that were made elsewhere: the catalogue's `vector_<modality>` columns, and their check.

Sequence models add a learned projection of text and these vectors to their item embeddings.

Shapes: N items, F content features.
"""

import numpy as np
import pyarrow as pa

from models.content.text import text_vectors
from models.training import TrainingOptions, limited_threads
from shortlist import columns as c
from shortlist.items.catalogue import Catalogue

MAX_NORM = 1e6
"""Longer vectors are refused: real encoders give lengths of about 1 to 100."""
NAMED = 3
"""Number of items that an error names."""


class ContentError(ValueError):
    """A content column can't be used; the message names the column, items, and what is right."""


def content_vectors(catalogue: Catalogue, *, options: TrainingOptions) -> np.ndarray:
    """Return (N + 1, F) float32: each item's text vector and catalogue vectors, concatenated.

    Each part is a unit vector; missing vectors and row 0 are zeros.

    Raises:
        ContentError: a `vector_<modality>` column is not valid.
        TextEncoderError: the text encoder is not installed.
    """
    with limited_threads(options.num_threads):
        texts = text_vectors(catalogue.texts, cache=options.cache, device=options.device)
    given = [given_vectors(catalogue, name) for name in vector_columns(catalogue)]
    return np.concatenate([texts, *given], axis=1)


def vector_columns(catalogue: Catalogue) -> list[str]:
    """Return the names of the `vector_<modality>` columns, sorted."""
    return sorted(name for name in catalogue.items.column_names if name.startswith("vector_"))


def given_vectors(catalogue: Catalogue, name: str) -> np.ndarray:
    """Return the unit vectors of one `vector_<modality>` column, (N + 1, F) float32.

    Missing vectors, vectors of zeros and row 0 are zeros.

    Raises:
        ContentError: vectors differ in length, or have numbers that are not finite or too large.
    """
    column = catalogue.items.column(name).combine_chunks()
    lengths, rows, values = _numbers(column)
    if not len(rows):
        return np.zeros((catalogue.num_items + 1, 0), dtype=np.float32)
    found, number = np.unique(lengths, return_counts=True)
    if len(found) > 1:
        usual = found[number.argmax()]
        raise ContentError(
            f"items: {name} has vectors of {found.tolist()} numbers, want one length; most items"
            f" have {usual}, {_named(catalogue, rows[lengths != usual])} differ"
        )
    matrix = values.reshape(-1, int(found[0]))
    if (bad := ~np.isfinite(matrix).all(axis=1)).any():
        raise ContentError(
            f"items: {name} of {_named(catalogue, rows[bad])} has NaN, null or infinite numbers;"
            " want finite numbers, or no vector (null) where there is none"
        )
    if (bad := np.linalg.norm(matrix, axis=1) > MAX_NORM).any():
        raise ContentError(
            f"items: {name} of {_named(catalogue, rows[bad])} is longer than {MAX_NORM:g};"
            " want the encoder's output, whose length is about 1 to 100"
        )
    vectors = np.zeros((catalogue.num_items + 1, matrix.shape[1]), dtype=np.float32)
    vectors[rows + 1] = matrix
    return unit_rows(vectors)


def vectors_of_items(
    catalogue: Catalogue, name: str, item_idx: np.ndarray, *, dim: int
) -> np.ndarray:
    """Return the unit vectors of some items, (V, dim); zeros where the vector is not usable.

    For new items in a service: one wrong vector must not stop it.
    """
    vectors = np.zeros((len(item_idx), dim), dtype=np.float32)
    if name not in catalogue.items.column_names:
        return vectors
    column = catalogue.items.column(name).combine_chunks().take(pa.array(item_idx - 1))
    for row, numbers in zip(vectors, column.to_pylist(), strict=True):
        if numbers is None or len(numbers) != dim or None in numbers:
            continue
        given = np.array(numbers, dtype=np.float64)
        if np.isfinite(given).all() and np.linalg.norm(given) <= MAX_NORM:
            row[:] = given
    return unit_rows(vectors)


def _numbers(column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the lengths of the vectors that are not null or empty, their rows, and all numbers."""
    every = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(every > 0)
    flat = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)  # null becomes NaN
    return every[rows], rows, flat


def _named(catalogue: Catalogue, rows: np.ndarray) -> str:
    """Return the ids of the first items of `rows` and the number of the others."""
    ids = catalogue.items.column(c.ITEM_ID).take(pa.array(rows[:NAMED])).to_pylist()
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    return f"item {', '.join(ids)}{more}"


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Return the rows of (M, F), scaled to length 1; rows of zeros stay zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)
