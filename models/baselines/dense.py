"""Code shared by the item-to-item and factor baselines: history weights, dense scores, saving.

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
"""Grid of decays: the weight of an event relative to that of the next newer one."""
Penalties = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

NEGLIGIBLE = 2.0**-24
"""Weights up to this are lost in float32 rounding beside the newest event's weight of 1."""

ARRAYS, ABOUT = "arrays.safetensors", "about.json"


def place_weights(history: np.ndarray, *, decay: float) -> np.ndarray:
    """(B, L) histories -> (B, L) float32 weights: decay^n, n events after it; the newest has 1.

    With decay 1 a history is a set of items. Padding has weight 0. If an item occurs several times,
    only its newest event has a weight, because a repeat is not evidence of another user.
    """
    real = history > 0
    age = real.sum(1, keepdims=True) - np.cumsum(real, axis=1)
    row, column = np.nonzero(real)
    # One integer per (row, item) pair: sorting integers takes a tenth of the time of sorting rows.
    pair = row * (history.max(initial=0) + 1) + history[row, column]
    _, newest_first = np.unique(pair[::-1], return_index=True)
    newest = len(row) - 1 - newest_first
    row, column = row[newest], column[newest]
    weights = np.zeros(history.shape, dtype=np.float32)
    weights[row, column] = decay ** age[row, column]
    return weights


def history_weights(queries: Queries, *, decay: float, num_items: int) -> csr_array:
    """(B, N + 1) float32: `place_weights` of each item in each history, as a sparse matrix.

    Weights too small to change a float32 sum are left out, so strong decay makes long histories
    cheap.
    """
    weights = place_weights(queries.history, decay=decay)
    row, column = np.nonzero(weights > NEGLIGIBLE)
    entries = (weights[row, column], (row, queries.history[row, column]))
    return csr_array(entries, shape=(len(queries), num_items + 1))


def best(scores: np.ndarray, queries: Queries, *, k: int) -> Candidates:
    """Dense (B, N + 1) scores -> the k best unseen items; items with score 0 are left out."""
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
    """Read what `save` wrote."""
    return load_file(folder / ARRAYS), json.loads((folder / ABOUT).read_text())


def check_catalogue(folder: Path, *, rows: int, catalogue: Catalogue) -> None:
    """Raise ValueError if the number of item rows (with padding) doesn't match the catalogue."""
    if rows != catalogue.num_items + 1:
        raise ValueError(
            f"{folder}: fitted on {rows - 1} items, this catalogue has {catalogue.num_items};"
            " want the catalogue of its release"
        )
