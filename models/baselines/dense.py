"""Functions shared by the baselines: history weights, dense scores, saving and loading.

A baseline is a simple candidate source, that is, a model that retrieves candidates.

Shapes: B queries, L history, C candidates, N items.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from models.queries import Candidates, Queries, mask_left_out, top_k
from shortlist.items.catalogue import Catalogue

Decays = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
"""Decays to try on validation. A decay is the weight of an event relative to the next newer one."""
Penalties = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
"""Regularisation penalties or loss weights to try on validation; all positive."""

NEGLIGIBLE = 2.0**-24
"""Event weights up to this are ignored: added to the newest event's weight of 1, they are lost in
float32 rounding."""

ARRAYS, ABOUT = "arrays.safetensors", "about.json"


def place_weights(history: np.ndarray, *, decay: float) -> np.ndarray:
    """Return the weight of each event of (B, L) histories: (B, L) float32.

    The weight is decay^n for an event with n newer events. Padding has weight 0. If an item occurs
    several times, only its newest event has a weight. The baselines are trained on which users have
    an item, so repeats by one user add no evidence. With decay 1, a history is a set of items.
    """
    weights = np.zeros(history.shape, dtype=np.float32)
    if len(history) == 1:
        length = int(np.count_nonzero(history))
        _, age = np.unique(history[0, :length][::-1], return_index=True)
        weights[0, length - 1 - age] = decay**age
        return weights
    real = history > 0
    age = real.sum(1, keepdims=True) - np.cumsum(real, axis=1)
    row, column = np.nonzero(real)
    # Encode (row, item) as one integer: sorting integers takes a tenth of the time of pairs.
    pair = row * (history.max(initial=0) + 1) + history[row, column]
    _, newest_first = np.unique(pair[::-1], return_index=True)
    newest = len(row) - 1 - newest_first
    row, column = row[newest], column[newest]
    weights[row, column] = decay ** age[row, column]
    return weights


def history_weights(queries: Queries, *, decay: float, num_items: int) -> csr_array:
    """Return the `place_weights` of histories as a sparse matrix over items, (B, N + 1) float32.

    Weights up to NEGLIGIBLE are left out. With strong decay, long histories then cost no more than
    short ones.
    """
    weights = place_weights(queries.history, decay=decay)
    row, column = np.nonzero(weights > NEGLIGIBLE)
    entries = (weights[row, column], (row, queries.history[row, column]))
    return csr_array(entries, shape=(len(queries), num_items + 1))


def weighted_items(history: np.ndarray, *, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct items of one history (L,), ascending, and their `place_weights`.

    Items whose weight is NEGLIGIBLE are left out.
    """
    history = history[history > 0]
    items, newest_first = np.unique(history[::-1], return_index=True)
    weights = (decay**newest_first).astype(np.float32)
    kept = weights > NEGLIGIBLE
    return items[kept], weights[kept]


def best(scores: np.ndarray, queries: Queries, *, k: int) -> Candidates:
    """Return the k best items by dense (B, N + 1) scores.

    Leaves out items with score 0, items that the user has seen, and blocked items.
    """
    scores = scores.astype(np.float32)
    scores[scores == 0] = -np.inf
    return top_k(mask_left_out(scores, queries), k)


def at_candidates(scores: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Pick the scores of candidates (B, C) from dense (B, N + 1) scores: (B, C) float32.

    Padding has score -inf.
    """
    picked = np.take_along_axis(scores, candidates, axis=1).astype(np.float32)
    return np.where(candidates > 0, picked, np.float32(-np.inf))


def save(folder: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write `arrays` as safetensors and `about` as JSON. No pickle."""
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS
    )
    (folder / ABOUT).write_text(json.dumps(about, indent=1))


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the `arrays` and `about` that `save` wrote to `folder`."""
    return load_file(folder / ARRAYS), json.loads((folder / ABOUT).read_text())


def check_catalogue(folder: Path, *, rows: int, catalogue: Catalogue) -> None:
    """Raise ValueError if a source's number of item rows doesn't fit the catalogue.

    Args:
        rows: number of rows of the saved source, including padding.
    """
    if rows != catalogue.num_items + 1:
        raise ValueError(
            f"{folder}: fitted on {rows - 1} items, this catalogue has {catalogue.num_items};"
            " want the catalogue of its release"
        )
