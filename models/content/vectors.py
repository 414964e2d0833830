"""Content vectors of items: text vectors and the catalogue's `vector_<modality>` columns.

Sequence models add a learned projection of these vectors to their item embeddings.

Shapes: N items, F content features.
"""

import numpy as np

from models.content.text import text_vectors
from models.training import TrainingOptions, limited_threads
from shortlist.catalogue import Catalogue


def content_vectors(catalogue: Catalogue, *, options: TrainingOptions) -> np.ndarray:
    """Return (N + 1, F) float32: each item's text vector and catalogue vectors, concatenated.

    Each part is a unit vector; missing vectors and row 0 are zeros.

    Raises:
        ValueError: the vectors of a modality differ in length.
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

    Missing vectors and row 0 are zeros.

    Raises:
        ValueError: the vectors differ in length.
    """
    rows = catalogue.items.column(name).to_pylist()
    lengths = {len(row) for row in rows if row}
    if len(lengths) > 1:
        raise ValueError(f"items: {name} has vectors of {sorted(lengths)} numbers, want one length")
    vectors = np.zeros((catalogue.num_items + 1, *(lengths or (0,))), dtype=np.float32)
    for item_idx, row in enumerate(rows, start=1):
        if row:
            vectors[item_idx] = row
    return unit_rows(np.nan_to_num(vectors, posinf=0, neginf=0))


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Return the rows of (M, F), scaled to length 1; rows of zeros stay zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)
