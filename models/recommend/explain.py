"""One sentence why an item is shown, from what the models really used: co-use, categories,
popularity.

Reasons are tried in the order of how much they tell: an item of the history that speaks for it (the
ItemKNN model's own contributions), categories it shares with what was used lately, the source that
found it, popularity. No random numbers, no clock: the same query gives the same sentence.

Shapes: L history, K categories.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from shortlist.catalogue import Catalogue

RECENT = 10
"""Newest history items whose categories count as 'lately'."""
MIN_SHARE = 0.25
"""An item of the history is named if it carries at least this share of all contributions."""
MIN_CATEGORY_SHARE = 0.4
"""A category is named if at least this share of the recent items has it."""
MAX_NAMED = 2

SOURCE_REASONS = {
    "popularity": "popular with everybody",
    "recent_popularity": "popular lately",
    "content": "its description is like what you watched",
    "sasrec": "often comes next after what you watched lately",
    "new": "just added",
    "gru": "often comes next after what you watched lately",
}
FALLBACK = "people like you watched it"
NEWCOMER = "popular right now"


class ItemToItem(Protocol):
    """The part of an item-item model that explains: how much each history item adds to a
    candidate's score.
    """

    def contribution(self, history: np.ndarray, item_idx: int) -> np.ndarray:
        """(L,) item_idx, one candidate -> (L,) float32."""
        ...


class Explainer:
    """Reasons for the items of one catalogue; `item_knn` None leaves out reasons by co-use.

    Items beyond `num_known` came after the models were trained; None: there are none.
    """

    def __init__(
        self, catalogue: Catalogue, item_knn: ItemToItem | None, *, num_known: int | None = None
    ):
        self.catalogue = catalogue
        self.item_knn = item_knn
        self.num_known = catalogue.num_items if num_known is None else num_known

    def reasons(
        self, history: np.ndarray, item_idx: Sequence[int], sources: Sequence[str]
    ) -> list[str]:
        """One sentence an item.

        Args:
            history: (L,) item_idx, oldest first, padded with 0 on the right: a row of
                `Queries.history`.
            item_idx: the items shown.
            sources: for each of them the source that ranked it best.
        """
        known = history[history > 0]
        lately = self._frequent_categories(known[-RECENT:])
        return [
            self._reason(known, lately, item, source)
            for item, source in zip(item_idx, sources, strict=True)
        ]

    def _reason(self, history: np.ndarray, lately: dict[str, float], item: int, source: str) -> str:
        if source == "new":
            return SOURCE_REASONS[source]
        if len(history) == 0:
            return SOURCE_REASONS.get(source, NEWCOMER) if "popular" in source else NEWCOMER
        if "popular" in source:
            return SOURCE_REASONS.get(source, NEWCOMER)
        because = self._because(history, item)
        if because:
            return because
        shared = [name for name in lately if name in self.catalogue.category_lists[item]]
        if shared:
            return f"like what you watched lately: {', '.join(shared[:MAX_NAMED])}"
        return SOURCE_REASONS.get(source, FALLBACK)

    def _because(self, history: np.ndarray, item: int) -> str:
        """Names the history item with the largest contribution, if it stands out."""
        if self.item_knn is None or item > self.num_known:
            return ""
        history = history[history <= self.num_known]
        if len(history) == 0:
            return ""
        added = np.maximum(self.item_knn.contribution(history, item), 0)
        best = int(len(added) - 1 - added[::-1].argmax())  # the newest of equals
        if added[best] <= 0 or added[best] < MIN_SHARE * added.sum():
            return ""
        return f"because you watched '{self.catalogue.titles[history[best]]}'"

    def _frequent_categories(self, recent: np.ndarray) -> dict[str, float]:
        """Categories of at least MIN_CATEGORY_SHARE of the items, most frequent first, then by
        name.
        """
        if len(recent) == 0:
            return {}
        share = self.catalogue.category_matrix[recent].mean(0)
        named = zip(self.catalogue.category_names, share.tolist(), strict=True)
        frequent = [(name, part) for name, part in named if part >= MIN_CATEGORY_SHARE]
        return dict(sorted(frequent, key=lambda pair: (-pair[1], pair[0])))
