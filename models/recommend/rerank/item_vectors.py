"""Item vectors for re-ranking, including items that were added after training.

Shapes: N items that the source knows, V items after them, D dim, K categories.
"""

import numpy as np

from models.recommend.cold_start.new_items import vectors_at
from shortlist.items.catalogue import Catalogue


class ItemVectors:
    """Vectors of the current catalogue's items, based on the item vectors of one source."""

    def __init__(self, known: np.ndarray, catalogue: Catalogue, *, new: np.ndarray | None):
        """
        Args:
            known: (N + 1, D) vectors of the items that the source was trained on.
            catalogue: the current catalogue; the items of `known` come first in it.
            new: (V, D) vectors of the items after them. If None, each of these items gets the mean
                vector of its categories. Without a known category, it gets the mean vector of all
                items.
        """
        self.known = known
        num_new = catalogue.num_items + 1 - len(self.known)
        if new is None and num_new > 0:
            new = _by_categories(self.known, catalogue)
        self.new = new

    def __call__(self, item_idx: np.ndarray) -> np.ndarray:
        """Return the vectors of items: (C,) item_idx -> (C, D) float32."""
        return vectors_at(self.known, self.new, item_idx)


def _by_categories(known: np.ndarray, catalogue: Catalogue) -> np.ndarray:
    """Return the vectors of new items, (V, D) float32: means of their categories' mean vectors."""
    has = catalogue.category_matrix
    old, new = has[1 : len(known)], has[len(known) :]
    count = old.sum(0)
    centre = old.T @ known[1:] / np.maximum(count, 1)[:, None]
    used = new * (count > 0)
    weight = used.sum(1, keepdims=True)
    mean = np.where(weight > 0, used @ centre / np.maximum(weight, 1), known[1:].mean(0))
    return mean.astype(np.float32)
