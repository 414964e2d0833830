"""The compiled loop of `TreeScores` (models/ranking/trees/scores.py).

Shapes: R candidates, F features, T trees.
"""

from typing import Any

import numba
import numpy as np

BLOCK = 512
"""Number of candidates scored at a time. Their features then stay in the processor's cache."""
MAGIC: dict[Any, int] = {np.uint32: 0x077CB531, np.uint64: 0x03F79D71B4CB0A89}
"""De Bruijn sequence of each mask type. The top bits of `bit * magic` give the position of the
single set bit in `bit` (Leiserson, Prokop and Randall 1998, "Using de Bruijn sequences to index a 1
in a computer word")."""
SHIFT: dict[Any, int] = {np.uint32: 27, np.uint64: 58}
"""Right shift that leaves only these top bits."""


def _positions(kind: Any) -> np.ndarray:
    """Return a lookup table: top bits of `bit * magic` -> position of the set bit in `bit`."""
    bits = 8 * kind().itemsize
    table = np.zeros(bits, dtype=np.int64)
    for position in range(bits):
        table[((MAGIC[kind] << position) % (1 << bits)) >> SHIFT[kind]] = position
    return table


POSITIONS = {kind: _positions(kind) for kind in MAGIC}


@numba.njit(cache=True, nogil=True)
def scores(
    columns: np.ndarray,
    first_node: np.ndarray,
    feature: np.ndarray,
    threshold: np.ndarray,
    nan_right: np.ndarray,
    words: np.ndarray,
    category_bits: np.ndarray,
    keep: np.ndarray,
    leaf_value: np.ndarray,
    magic: np.ndarray,
    shift: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray:
    """Return raw scores, the sums of leaf values: (F, R) float32 features -> (R,) float64.

    The arguments from `first_node` to `leaf_value` are the fields of `TreeScores`. The last three
    are the values of MAGIC, SHIFT and POSITIONS for the type of its masks.
    """
    num_rows = columns.shape[1]
    total = np.zeros(num_rows)
    left, lowest = np.empty((2, BLOCK), dtype=keep.dtype)
    every = ~(keep.dtype.type(0))
    for begin in range(0, num_rows, BLOCK):
        size = min(BLOCK, num_rows - begin)
        for tree in range(len(first_node) - 1):
            left[:size] = every
            for node in range(first_node[tree], first_node[tree + 1]):
                x = columns[feature[node], begin : begin + size]
                kept = keep[node]
                first, end = words[node]
                if end > first:
                    for row in range(size):
                        value = x[row]
                        goes_left = False
                        if value >= 0 and value < 32 * (end - first):
                            category = np.int64(value)
                            word = category_bits[first + category // 32]
                            goes_left = (word >> np.uint32(category % 32)) & np.uint32(1) == 1
                        if not goes_left:
                            left[row] &= kept
                    continue
                limit = threshold[node]
                if nan_right[node]:
                    for row in range(size):
                        left[row] &= every if x[row] <= limit else kept
                else:
                    for row in range(size):
                        left[row] &= kept if x[row] > limit else every
            values = leaf_value[tree]
            for row in range(size):
                bits = left[row]
                # Stored in an array, because the product of 32-bit masks must wrap around. Numba's
                # scalars have 64 bits.
                lowest[row] = bits & (~bits + keep.dtype.type(1))
                lowest[row] *= magic
                total[begin + row] += values[positions[lowest[row] >> shift]]
    return total
