"""Compiled loops of ranking features. They replace chains of numpy calls on small arrays.

Importing this module imports numba, which takes a second, so callers import it inside functions.

Shapes: B requests, C candidates, S sources, R rows, M newest items of a history.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def standardise(
    score: np.ndarray, real: np.ndarray, filled: np.ndarray, standardised: np.ndarray
) -> None:
    """Write scores without gaps, and their z-scores; both (S, B, C) float64.

    A missing score is replaced by the lowest one of its source and request. Missing candidates have
    z-score 0. A source without scores for a request has 0 in both results.

    Args:
        score: (S, B, C) float32; NaN or infinite if missing.
        real: (B, C) bool, False for padding.
    """
    num_sources, num_requests, width = score.shape
    for source in range(num_sources):
        for row in range(num_requests):
            values = score[source, row]
            lowest, total, count = np.inf, 0.0, 0
            for place in range(width):
                value = np.float64(values[place])
                if real[row, place] and np.isfinite(value):
                    lowest = min(lowest, value)
                    total += value
                    count += 1
            if count == 0:
                filled[source, row] = 0
                standardised[source, row] = 0
                continue
            mean, squares = total / count, 0.0
            for place in range(width):
                value = np.float64(values[place])
                if real[row, place] and np.isfinite(value):
                    squares += (value - mean) ** 2
                else:
                    value = lowest
                filled[source, row, place] = value
            deviation = np.sqrt(squares / count)
            # A smaller deviation is rounding error: all scores are equal.
            spread = deviation > 1e-6 * max(abs(mean), 1e-6)
            for place in range(width):
                centred = filled[source, row, place] - mean
                standardised[source, row, place] = centred / deviation if spread else 0.0


@numba.njit(cache=True, nogil=True)
def shares_of_places(values: np.ndarray, order: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the place of each value from the highest, as a share: (R, C) float32.

    Equal values share the better place. Padding has 1.

    Args:
        values: (R, C).
        order: (R, C) int64 positions by descending value, padding last.
        real: (R, C) bool, False for padding.
    """
    num_rows, width = values.shape
    out = np.ones((num_rows, width), dtype=np.float32)
    for row in range(num_rows):
        count = 0
        for place in range(width):
            count += real[row, place]
        first = 0
        for number in range(count):
            place = order[row, number]
            if number > 0 and values[row, place] != values[row, order[row, number - 1]]:
                first = number
            out[row, place] = first / count
    return out


@numba.njit(cache=True, nogil=True)
def overlap_figures(cosines: np.ndarray, num_last: np.ndarray, few: int) -> np.ndarray:
    """Return figures of the cosines between candidates and newest items: (5, B, C) float32.

    1. share of the newest `few` items with a cosine above 0
    2. share of all M items with a cosine above 0
    3. cosine with the newest item
    4. largest cosine with the newest `few` items, at least 0
    5. mean cosine with the newest `few` items

    Args:
        cosines: (B, C, M) float32, newest item first; 0 for padding.
        num_last: (B,) int64 number of the M items that aren't padding.
    """
    num_requests, width, length = cosines.shape
    out = np.zeros((5, num_requests, width), dtype=np.float32)
    for row in range(num_requests):
        count = max(num_last[row], 1)
        count_few = min(count, few)
        for place in range(width):
            above = above_few = 0
            total, largest = 0.0, np.float32(0)
            for item in range(length):
                cosine = cosines[row, place, item]
                above += cosine > 0
                if item < few:
                    above_few += cosine > 0
                    total += cosine
                    largest = max(largest, cosine)
            out[0, row, place] = above_few / count_few
            out[1, row, place] = above / count
            out[2, row, place] = cosines[row, place, 0] if length else 0
            out[3, row, place] = largest
            out[4, row, place] = total / count_few
    return out
