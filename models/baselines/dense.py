"""What the item-to-item and factor baselines share: weights of a history, dense scores, saving.

Shapes: B queries, L history, N items.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from models.queries import Candidates, Queries, mask_seen, top_k

ARRAYS, ABOUT = "arrays.safetensors", "about.json"


def history_weights(queries: Queries, *, decay: float, num_items: int) -> csr_array:
    """(B, N + 1) float32: `decay` to the power of how many events ago, newest 1.

    Decay 1 is the plain set of items; an item that comes twice counts with its newest place.
    """
    history = queries.history
    lengths = queries.lengths
    age = lengths[:, None] - 1 - np.arange(history.shape[1])
    real = history > 0
    weight = (decay ** np.maximum(age, 0))[real].astype(np.float32)
    rows = np.broadcast_to(np.arange(len(history))[:, None], history.shape)[real]
    weights = csr_array((weight, (rows, history[real])), shape=(len(history), num_items + 1))
    weights.sum_duplicates()
    np.minimum(weights.data, 1, out=weights.data)
    return weights


def best(scores: np.ndarray, queries: Queries, *, k: int) -> Candidates:
    """Dense (B, N + 1) scores -> the k best unseen; items without any score are not candidates."""
    scores = scores.astype(np.float32)
    scores[scores == 0] = -np.inf
    return top_k(mask_seen(scores, queries.seen), k)


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
    return load_file(folder / ARRAYS), json.loads((folder / ABOUT).read_text())
