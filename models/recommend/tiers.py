"""Extends lists beyond the candidates that the sources find at their usual depth.

The usual depth is `candidates_per_source`. The first tier of a list consists of the merged
candidates of all sources at this depth. The next tier consists of those that the sources find if
the first tier is excluded, and so on. When the sources find no more items, the next tiers are
popular items. Each tier is ranked as a whole, and no tier depends on the length k of the list. So a
long list starts with every shorter one, and pages of any size fit together.

Shapes: B requests, W places, S sources, F features, C candidates.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.queries import Queries
from models.recommend.explaining.explain import FILL
from models.recommend.merge import merge
from models.recommend.stages import Run
from shortlist.features.pack import ItemState

if TYPE_CHECKING:
    from models.recommend.chain import Chain


@dataclass(frozen=True)
class Ranked:
    """The best k of B queries, best first, padded with item_idx 0 and score -inf."""

    item_idx: np.ndarray  # (B, k) int64
    score: np.ndarray  # (B, k) float32, by the ranker
    source: np.ndarray  # (B, k) int64: index in `Chain.source_names` of the source that ranked best
    found_by: np.ndarray  # (B, k, S) bool: sources that retrieved the item
    features: np.ndarray  # (B, k, F) float32, as the ranker read them
    propensity: np.ndarray  # (B, k) float64 probability of the item at its position (new_positions)
    candidates: np.ndarray  # (B, C) int64: the whole shortlist, in no particular order

    def row(self, number: int) -> "Ranked":
        """Return one query's list without padding."""
        real = self.item_idx[number] > 0
        candidates = self.candidates[number]
        return Ranked(
            **{name: getattr(self, name)[number][real][None] for name in PER_PLACE},
            candidates=candidates[candidates > 0][None],
        )

    def select(self, places: np.ndarray) -> "Ranked":
        """Return the given places of a single query's list, in the given order."""
        return replace(self, **{name: getattr(self, name)[:, places] for name in PER_PLACE})


PER_PLACE = ("item_idx", "score", "source", "found_by", "features", "propensity")
PADDING = {"score": -np.inf, "propensity": 1}


def deepened(
    chain: "Chain", first: Ranked, queries: Queries, items: ItemState, *, k: int, run: Run
) -> Ranked:
    """Append further tiers to lists with fewer than k items, while more items may be shown.

    Args:
        first: the first tier, cut to k items.
    """
    lengths = (first.item_idx > 0).sum(1)
    if len(lengths) == 0 or (lengths >= k).all():
        return first
    rows = [first.row(number) for number in range(len(queries))]
    for number in np.flatnonzero(lengths < k):
        one = queries.take(slice(number, number + 1))
        rows[number] = _longer(chain, rows[number], one, items, k=k, run=run)
    return _stacked(rows)


def _longer(
    chain: "Chain", ranked: Ranked, query: Queries, items: ItemState, *, k: int, run: Run
) -> Ranked:
    """Extend the list of one query by further tiers, up to k items."""
    depth = chain.config.candidates_per_source
    tier, seen = ranked, query.seen[0]
    sources_left = True
    while ranked.item_idx.shape[1] < k:
        seen = np.concatenate([seen, tier.item_idx[0]])
        rest = replace(query, seen=[seen])
        # A source can have more items only if it found `depth` items. Then the tier has at least
        # `depth` candidates.
        sources_left = sources_left and tier.candidates.shape[1] >= depth
        found = chain.retrieve(rest, items, run=run) if sources_left else {}
        if not any((each.item_idx > 0).any() for each in found.values()):
            sources_left = False
            found = {FILL: chain.popular.retrieve(rest, items, k=depth)}
        tier = chain.rank_candidates(rest, items, merge(found), k=k, rerank=False, run=run)
        tier = tier.row(0)
        if tier.item_idx.shape[1] == 0:
            break
        ranked = _joined(ranked, tier)
    return ranked.select(np.arange(min(k, ranked.item_idx.shape[1])))


def _joined(ranked: Ranked, tier: Ranked) -> Ranked:
    """Join two parts of one query's list. Features that one part lacks are dropped from both."""
    width = min(ranked.features.shape[2], tier.features.shape[2])
    parts = [replace(each, features=each.features[..., :width]) for each in (ranked, tier)]
    return Ranked(
        **{
            name: np.concatenate([getattr(each, name) for each in parts], axis=1)
            for name in (*PER_PLACE, "candidates")
        }
    )


def _stacked(rows: list[Ranked]) -> Ranked:
    """Combine lists of one query each into a batch, padded on the right."""
    if len(rows) == 1:
        return rows[0]
    width = min(row.features.shape[2] for row in rows)
    rows = [replace(row, features=row.features[..., :width]) for row in rows]

    def padded(name: str) -> np.ndarray:
        arrays = [getattr(row, name) for row in rows]
        longest = max(array.shape[1] for array in arrays)
        shape = (len(rows), longest, *arrays[0].shape[2:])
        out = np.full(shape, PADDING.get(name, 0), dtype=arrays[0].dtype)
        for place, array in zip(out, arrays, strict=True):
            place[: array.shape[1]] = array[0]
        return out

    return Ranked(**{name: padded(name) for name in (*PER_PLACE, "candidates")})
