"""What the item-to-item and factor baselines share: weights of a history, dense scores, saving.

Shapes: B queries, L history, N items.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from models.queries import Candidates, Queries, mask_left_out, top_k
from shortlist.catalogue import Catalogue

Decays = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
"""Grid of how fast a history fades: the weight of an event relative to the next newer one."""
Penalties = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

NEGLIGIBLE = 2.0**-24
"""Weight beside the newest event's 1 that is lost in the rounding of a float32."""

ARRAYS, ABOUT = "arrays.safetensors", "about.json"


def place_weights(history: np.ndarray, *, decay: float) -> np.ndarray:
    """(B, L) histories -> (B, L) float32: `decay` to the power of how many events ago, newest 1.

    Decay 1 is the plain set of items. Padding has weight 0, and so has every place of an item but
    its newest: who watched a film twice is not two people who watched it.
    """
    real = history > 0
    age = real.sum(1, keepdims=True) - np.cumsum(real, axis=1)
    row, column = np.nonzero(real)
    # One whole number a pair: sorting those takes a tenth of the time of sorting rows.
    pair = row * (history.max(initial=0) + 1) + history[row, column]
    _, newest_first = np.unique(pair[::-1], return_index=True)
    newest = len(row) - 1 - newest_first
    row, column = row[newest], column[newest]
    weights = np.zeros(history.shape, dtype=np.float32)
    weights[row, column] = decay ** age[row, column]
    return weights


def history_weights(queries: Queries, *, decay: float, num_items: int) -> csr_array:
    """(B, N + 1) float32: `place_weights` of each item in each history, without what is too old to
    change a sum of float32: a fast fading makes a long history cheap.
    """
    weights = place_weights(queries.history, decay=decay)
    row, column = np.nonzero(weights > NEGLIGIBLE)
    entries = (weights[row, column], (row, queries.history[row, column]))
    return csr_array(entries, shape=(len(queries), num_items + 1))


def best(scores: np.ndarray, queries: Queries, *, k: int) -> Candidates:
    """Dense (B, N + 1) scores -> the k best unseen; items without any score are not candidates."""
    scores = scores.astype(np.float32)
    scores[scores == 0] = -np.inf
    return top_k(mask_left_out(scores, queries), k)


def at_candidates(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Dense (B, N + 1) scores at (B, C) item_idx -> (B, C) float32; padding is -inf."""
    picked = np.take_along_axis(scores, candidates, axis=1).astype(np.float32)
    return np.where(candidates > 0, picked, np.float32(-np.inf))


def save(folder: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write arrays as safetensors and the rest as JSON. No pickle."""
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS
    )
    (folder / ABOUT).write_text(json.dumps(about, indent=1))


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save` wrote."""
    return load_file(folder / ARRAYS), json.loads((folder / ABOUT).read_text())


def check_catalogue(folder: Path, *, rows: int, catalogue: Catalogue) -> None:
    """Raises ValueError if arrays of `rows` item rows (padding included) are of other items."""
    if rows != catalogue.num_items + 1:
        raise ValueError(
            f"{folder}: fitted on {rows - 1} items, this catalogue has {catalogue.num_items};"
            " want the catalogue of its release"
        )
