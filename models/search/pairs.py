"""Pairs of a search and an item that the user chose after it, from which query vectors learn."""

from dataclasses import dataclass

import numpy as np

MAX_PAIRS = 50_000
"""Number of newest pairs that models learn from."""


@dataclass(frozen=True)
class SearchPairs:
    """P pairs, oldest first. A search with several chosen items has several pairs."""

    queries: list[str]
    item_idx: np.ndarray  # (P,) int64

    def __len__(self) -> int:
        return len(self.queries)

    def newest(self, limit: int) -> "SearchPairs":
        start = max(len(self) - limit, 0)
        return SearchPairs(self.queries[start:], self.item_idx[start:])

    @property
    def distinct(self) -> list[str]:
        """The distinct queries, sorted."""
        return sorted(set(self.queries))
