"""Compiled loops over the rows of an item-to-item matrix, for single requests.

Importing this module imports numba, which takes a second, so callers import it inside functions.

Shapes: N items, S items, L history, E stored similarities of the history's items.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def add_rows(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    items: np.ndarray,
    weights: np.ndarray,
    scores: np.ndarray,
) -> np.ndarray:
    """Add the weighted rows of `items` to `scores`; return the places written.

    Args:
        indptr, indices, data: an (N + 1, N + 1) matrix in the CSR format, without values <= 0.
        items: (L,) rows of the matrix.
        weights: (L,) float32 weight of each row, above 0.
        scores: (N + 1,) float32; zeros, and zeros again where the result says.

    Returns:
        (E,) int64 at most, in the order of their first use.
    """
    most = 0
    for item in items:
        most += indptr[item + 1] - indptr[item]
    written, count = np.empty(most, dtype=np.int64), 0
    for place in range(len(items)):
        for entry in range(indptr[items[place]], indptr[items[place] + 1]):
            column = indices[entry]
            if scores[column] == 0:
                written[count] = column
                count += 1
            scores[column] += data[entry] * weights[place]
    return written[:count]


@numba.njit(cache=True, nogil=True)
def pick(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return the matrix entries of all pairs of `rows` (L,) and `columns` (S,): (S, L) float32."""
    out = np.zeros((len(columns), len(rows)), dtype=np.float32)
    # Most entries are of other columns. The last byte tells most of them apart.
    wanted = np.zeros(256, dtype=np.bool_)
    for column in columns:
        wanted[column & 255] = True
    for place in range(len(rows)):
        for entry in range(indptr[rows[place]], indptr[rows[place] + 1]):
            if not wanted[indices[entry] & 255]:
                continue
            for number in range(len(columns)):
                if indices[entry] == columns[number]:
                    out[number, place] = data[entry]
    return out
