"""Inspection of one list: what each source found, and where the ranker placed each candidate.

It repeats the retrieval and the ranking of a request, so it costs as much as the request. The
console of the service uses it; requests of clients don't.

Shapes: C candidates, N items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.queries import Queries
from models.recommend.merge import merge
from models.recommend.recommender import Recommender
from shortlist.contracts import EVENT_TYPES
from shortlist.features.finalize import RequestRows
from shortlist.http.api import RecommendRequest


@dataclass(frozen=True)
class Past:
    """One event of a user's history, as the models see it."""

    item_id: str
    title: str
    event_type: str
    """Empty if unknown."""
    at: int
    value: float | None
    known: bool
    """Whether the catalogue has the item; the models ignore other items."""


@dataclass(frozen=True)
class Inspection:
    """Candidates of a request before business rules, re-ranking and exploration arrange them."""

    rows: RequestRows
    queries: Queries
    ranks: Mapping[str, Mapping[int, int]]
    """Source -> {item_idx: rank from 1}."""
    places: Mapping[int, int]
    """item_idx -> place from 1 by the ranker's score among all candidates."""

    def found(self, item_idx: int) -> dict[str, int]:
        """Return {source: rank} of the sources that found an item, best rank first."""
        found = {name: own[item_idx] for name, own in self.ranks.items() if item_idx in own}
        return dict(sorted(found.items(), key=lambda pair: pair[1]))

    def best(self, source: str, k: int) -> list[int]:
        """Return the k best item_idx of a source."""
        return sorted(self.ranks.get(source, {}), key=lambda idx: self.ranks[source][idx])[:k]


def inspect(recommender: Recommender, request: RecommendRequest, *, at: int) -> Inspection:
    """Retrieve and rank the candidates of a request again; see `Inspection`."""
    rows, queries = recommender.query(request, at=at)
    view = recommender.view
    found = view.chain.retrieve(queries, view.items, k=request.k)
    ranks = {
        name: {int(idx): place for place, idx in enumerate(each.item_idx[0], start=1) if idx > 0}
        for name, each in found.items()
    }
    places: dict[int, int] = {}
    if any(ranks.values()):
        merged = merge(found)
        ranked = view.chain.rank_candidates(
            queries, view.items, merged, k=merged.item_idx.shape[1], rerank=False
        ).row(0)
        places = {int(idx): place for place, idx in enumerate(ranked.item_idx[0], start=1)}
    return Inspection(rows, queries, ranks, places)


def history_of(recommender: Recommender, rows: RequestRows) -> list[Past]:
    """Return the history of the only user of `rows`, newest first."""
    catalogue = recommender.catalogue
    past = []
    for item_id, at, value, code in zip(
        rows.history_items[0],
        rows.history_times[0].tolist(),
        rows.history_values[0].tolist(),
        rows.history_types[0].tolist(),
        strict=True,
    ):
        idx = catalogue.vocab.idx(item_id)
        past.append(
            Past(
                item_id=item_id,
                title=catalogue.titles[idx] if idx else item_id,
                event_type=EVENT_TYPES[code - 1] if code else "",
                at=at,
                value=None if np.isnan(value) else value,
                known=idx > 0,
            )
        )
    return past[::-1]
