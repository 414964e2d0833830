"""The items that count as new in a chain, and the candidates among them.

They are the items that were added after training (new_items.py), and items that the models know
but that were published lately and have hardly any events. The audience model scores them by their
attributes; without it, the content model does.

Shapes: B requests, V new items, D dim, N items.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from models.content.audience import Audience
from models.queries import Candidates, Queries, Source, top_k
from models.recommend.cold_start.new_items import AUDIENCE, CONTENT, NewItems, vectors_at
from models.recommend.cold_start.new_positions import NewItemsConfig
from models.vector_source import VectorSource
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

if TYPE_CHECKING:
    from models.recommend.chain import Chain

BEST = 25
"""Number of new items with the best scores that become candidates of each request."""

Scorer = Audience | VectorSource
"""A source that scores new items by the inner product of query and item vectors."""


class FreshItems:
    """The available items that count as new, as of the item features."""

    def __init__(
        self,
        config: NewItemsConfig | None,
        catalogue: Catalogue,
        *,
        num_known: int,
        new: NewItems | None,
    ):
        """
        Args:
            config: None: only items that were added after training count as new.
            num_known: number of items that the models know.
            new: the items that were added after training.
        """
        self.config = config
        self.catalogue = catalogue
        self.num_known = num_known
        self.new = new
        self._predicted: np.ndarray | None = None
        self._last: tuple[ItemState, np.ndarray] | None = None

    def at(self, items: ItemState) -> np.ndarray:
        """Return the item_idx of the new items, (V,), ascending; computed once per `items`."""
        last = self._last
        if last is None or last[0] is not items:
            added = np.arange(self.num_known + 1, self.catalogue.num_items + 1)
            found = np.concatenate([self._young(items), added])
            last = self._last = (items, found[self.catalogue.available[found]])
        return last[1]

    def _young(self, items: ItemState) -> np.ndarray:
        """Return the known items that were published lately and have hardly any events."""
        if self.config is None:
            return np.empty(0, dtype=np.int64)
        published = self.catalogue.published_at[: self.num_known + 1]
        since = items.as_of - self.config.days * MICROSECONDS_PER_DAY
        events = items.state["item_events"][: self.num_known + 1]
        young = (published > 0) & (published > since)
        return np.flatnonzero(young & (events <= self.config.max_events))

    def best(
        self, scorer: Scorer, queries: Queries, known: Queries, items: ItemState
    ) -> Candidates | None:
        """Return the BEST new items with the highest scores; None if there are none.

        Args:
            scorer: the source that scores new items.
            known: the requests without items that were added after training.
        """
        fresh = self.at(items)
        added = self._vectors_of_added(scorer)
        if added is None:
            fresh = fresh[fresh <= self.num_known]
        if len(fresh) == 0:
            return None
        vectors = vectors_at(scorer.item_vectors, added, fresh)
        scores = scorer.query_vectors(known) @ vectors.T
        for number, row in enumerate(scores):
            row[~queries.allowed(number, self.catalogue.num_items)[fresh]] = -np.inf
        best = top_k(scores, BEST)
        found = np.where(np.isneginf(best.score), 0, fresh[best.item_idx])
        return Candidates(found, best.score)

    def _vectors_of_added(self, scorer: Scorer) -> np.ndarray | None:
        """Return the vectors of the items that were added after training; None if they have none.

        Those of an Audience are predicted once.
        """
        if self.new is None:
            return None
        if not isinstance(scorer, Audience):
            return self.new.vectors
        if self._predicted is None:
            self._predicted = scorer.predicted(self.catalogue, self.new.item_idx)
        return self._predicted


def scorer_of(sources: Mapping[str, Source]) -> Scorer | None:
    """Return the source that scores new items: the audience model, else the content model."""
    audience, content = sources.get(AUDIENCE), sources.get(CONTENT)
    if isinstance(audience, Audience):
        return audience
    return content if isinstance(content, VectorSource) else None


def new_candidates(
    chain: "Chain", queries: Queries, known: Queries, items: ItemState
) -> Candidates | None:
    """Return new items: if the chain keeps positions for them, the best for the user first; then
    the newest that were added after training. None if there are none.
    """
    newest = None if chain.new is None else chain.new.newest(queries)
    scorer = scorer_of(chain.sources)
    if not chain.keeps_positions or scorer is None:
        return newest
    best = chain.fresh.best(scorer, queries, known, items)
    if best is None or newest is None:
        return newest if best is None else best
    return followed_by(best, newest)


def followed_by(first: Candidates, second: Candidates) -> Candidates:
    """Return the candidates of `first`, then those of `second` that `first` lacks.

    The scores are 0, -1, -2, ..., because those of the two lists aren't comparable.
    """
    twice = (second.item_idx[:, :, None] == first.item_idx[:, None, :]).any(-1)
    both = np.concatenate([first.item_idx, np.where(twice, 0, second.item_idx)], axis=1)
    order = np.argsort(both == 0, axis=1, kind="stable")  # padding last
    item_idx = np.take_along_axis(both, order, axis=1)
    rank = np.arange(item_idx.shape[1], dtype=np.float32)
    return Candidates(item_idx, np.where(item_idx > 0, -rank, np.float32(-np.inf)))
