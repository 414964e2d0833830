"""The shortlist: distinct candidates of all sources, merged into one list per query.

Shapes: B queries, C distinct candidates, S sources, K candidates per source.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.queries import Candidates


@dataclass(frozen=True)
class Shortlist:
    """Candidates of B queries, padded with item_idx 0, in no particular order."""

    item_idx: np.ndarray  # (B, C) int64
    ranks: dict[str, np.ndarray]  # source -> (B, C) float32, rank from 1, 0 if not found

    def found_by(self) -> np.ndarray:
        """Return which sources found each candidate: (B, C, S) bool, in the order of `ranks`."""
        return np.stack([ranks > 0 for ranks in self.ranks.values()], axis=-1)

    def take(self, rows: slice) -> "Shortlist":
        """Return the candidates of the queries `rows`."""
        return Shortlist(
            self.item_idx[rows], {name: ranks[rows] for name, ranks in self.ranks.items()}
        )


def merge(found: Mapping[str, Candidates]) -> Shortlist:
    """Return, for each query, the union of the candidates of all sources, sorted by item_idx.

    The width C is the largest number of distinct candidates that a query in the batch has.

    Args:
        found: {source: (B, K) candidates, best first}.
    """
    widest = max(candidates.item_idx.shape[1] for candidates in found.values())
    num_queries = len(next(iter(found.values())).item_idx)
    num_sources, k = len(found), widest
    stacked = np.zeros((num_queries, num_sources, k), dtype=np.int64)
    for number, candidates in enumerate(found.values()):
        # A source may return fewer than K columns: the catalogue can be smaller than k.
        stacked[:, number, : candidates.item_idx.shape[1]] = candidates.item_idx
    unions = []
    places = []
    for row in range(num_queries):
        items, inverse = np.unique(stacked[row].ravel(), return_inverse=True)
        offset = int(len(items) > 0 and items[0] == 0)  # padding sorts first
        unions.append(items[offset:])
        places.append(inverse.reshape(num_sources, k) - offset)
    width = max((len(items) for items in unions), default=0)
    item_idx = np.zeros((num_queries, width), dtype=np.int64)
    ranks = np.zeros((num_sources, num_queries, width), dtype=np.float32)
    rank_of = np.broadcast_to(np.arange(1, k + 1, dtype=np.float32), (num_sources, k))
    source_of = np.broadcast_to(np.arange(num_sources)[:, None], (num_sources, k))
    for row, (items, place) in enumerate(zip(unions, places, strict=True)):
        item_idx[row, : len(items)] = items
        real = place >= 0
        real &= stacked[row] > 0
        ranks[source_of[real], row, place[real]] = rank_of[real]
    return Shortlist(item_idx=item_idx, ranks=dict(zip(found, ranks, strict=True)))
