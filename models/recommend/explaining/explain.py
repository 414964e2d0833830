"""Reasons: one sentence for each shown item that explains why it is shown.

A reason is a statement about the data and is only given if it is true. It doesn't depend on random
numbers or the clock. The first reason of this list that applies is used:

1. Exploration drew the item, or it is new in the catalogue.
2. The user consumed it before.
3. It is popular. This reason is only used for items of the popularity sources, and for users
   without history.
4. One history item contributes at least MIN_SHARE of the item's ItemKNN score. The reason names it.
5. It shares categories with the newest history items.
6. Its description is similar to that of a history item.
7. People have used it together with history items.
8. A sequence model expects it next.

Shapes: N items, L history, S shown items, V new items, D dim.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from models.recommend.cold_start.new_items import CONTENT, NEW, vectors_at
from shortlist.contracts import EVENT_TYPES
from shortlist.features.pack import ItemState
from shortlist.items.catalogue import Catalogue

RECENT = 10
"""Number of newest history items that reasons call 'last' or 'latest', regardless of their age."""
RECENT_DAYS = 7
"""Number of most recent days whose events decide whether an item is 'chosen often lately'."""
MIN_SHARE = 0.25
"""A history item is named if its contribution is at least this share of all contributions."""
MIN_CATEGORY_SHARE = 0.4
"""A category is named if at least this share of the newest RECENT history items has it."""
MAX_NAMED = 2
"""Maximum number of categories that a reason names."""
MOST, MOST_SHARE, MIN_EVENTS = 10, 0.1, 3
"""An item is popular if it is among the n items with the most events, where n is the larger one of
MOST and MOST_SHARE of all items. It must also have MIN_EVENTS events, and more events than the
average item.
"""
ALIKE = 0.9
"""Two descriptions are similar if their cosine is above this quantile of the cosines between the
history item and the catalogue's items."""
SAMPLED = 256
"""Approximate number of catalogue items from which that quantile is estimated."""

JUST_ADDED = "new in the catalogue"
FILLED = "more from the catalogue"
EXPLORED = "picked at random, to show something else"
EXPLORE = "explore"
"""Source name of items that exploration drew from all allowed items."""
FILL = "fill"
"""Source name of popular items that fill a list if all other sources find too few."""
RULES = "rules"
"""Source name of items that only a business rule added. The stage that applies soft rules has the
same name."""
POPULAR = "chosen often"
POPULAR_LATELY = "chosen often lately"
UNKNOWN_TASTE = "a first suggestion"
TASTE = "fits your taste"
SEQUENTIAL = ("sasrec", "bsarec", "gru", "average")
VERBS = {
    "view": "viewed",
    "click": "clicked",
    "add_to_cart": "put in your cart",
    "purchase": "bought",
    "rating": "rated",
    "review": "reviewed",
    "like": "liked",
    "watch": "watched",
}
"""Event type -> verb in the past tense. The run's setting `[data] wording` overrides it."""


class ItemToItem(Protocol):
    """An item-item model whose scores are sums of contributions of the history items.

    A contribution is above 0 if people have used both items.
    """

    def contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Return how much each history item adds to each score: (L,), (S,) -> (S, L) float32."""
        ...


@dataclass(frozen=True)
class Wording:
    """The verbs that reasons use for events, for example "bought" for a purchase."""

    target_events: tuple[str, ...] = ()
    verbs: Mapping[str, str] = field(default_factory=dict)
    """{event type: verb in the past tense}; overrides VERBS."""

    @cached_property
    def _verbs(self) -> dict[str, str]:
        return VERBS | dict(self.verbs)

    def did(self, codes: np.ndarray) -> str | None:
        """Return the verb of (L,) EVENT_CODEs; None if they differ, are unknown or have no verb."""
        if len(set(codes.tolist())) != 1 or codes[0] == 0:
            return None
        return self._verbs.get(EVENT_TYPES[codes[0] - 1])

    @cached_property
    def others_did(self) -> str:
        """Past-tense verb for what other users did with an item.

        "chose" if the run's target events don't share a verb, or are additions to the cart.
        """
        names = {self._verbs.get(one) for one in self.target_events}
        name = names.pop() if len(names) == 1 else None
        return name if name and name != VERBS["add_to_cart"] else "chose"


@dataclass(frozen=True)
class Popular:
    """Which items are popular (see MOST), of all time and in the last RECENT_DAYS.

    Two (N + 1,) bool arrays, as of one feature pack (the item features of the whole catalogue).
    """

    ever: np.ndarray
    lately: np.ndarray

    @classmethod
    def of(cls, items: ItemState) -> "Popular":
        recent = items.state["item_day_counts"][:, -RECENT_DAYS:].sum(1)
        return cls(ever=_most(items.state["item_events"]), lately=_most(recent))


def _most(counts: np.ndarray) -> np.ndarray:
    """Return which items are popular (see MOST): (N + 1,) event counts -> (N + 1,) bool."""
    n = len(counts) - 1
    most = min(max(MOST, int(MOST_SHARE * n)), n)
    if most == 0:
        return np.zeros(n + 1, dtype=bool)
    least = np.partition(counts[1:], n - most)[n - most]
    popular = (counts >= max(least, MIN_EVENTS)) & (counts > counts[1:].mean())
    popular[0] = False
    return popular


class Descriptions:
    """Finds items with similar descriptions, by the cosine of the content source's vectors."""

    def __init__(self, known: np.ndarray, new: np.ndarray | None):
        """
        Args:
            known: (N + 1, D) vectors of the items that the content source was trained on.
            new: (V, D) vectors of the items after them.
        """
        self.known, self.new = known, new
        step = max(1, len(known) // SAMPLED)
        self.sample = _unit(known[1::step])

    def most_like(self, history: np.ndarray, item_idx: int) -> int | None:
        """Return the history item with the description most similar to the item's.

        None if it isn't similar enough (ALIKE). Ties go to the newest.

        Args:
            history: (L,) item_idx, oldest first.
        """
        own = _unit(vectors_at(self.known, self.new, np.array([item_idx])))
        theirs = _unit(vectors_at(self.known, self.new, history))
        cosine = theirs @ own[0]
        best = int(len(cosine) - 1 - cosine[::-1].argmax())
        usual = _quantile(self.sample @ theirs[best], ALIKE)
        return int(history[best]) if cosine[best] > max(usual, 0) else None


def _quantile(values: np.ndarray, share: float) -> float:
    """Return a quantile of (N,) values. `np.quantile` takes five times as long for few values."""
    place = share * (len(values) - 1)
    below = int(place)
    ordered = np.sort(values)
    above = min(below + 1, len(values) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


@dataclass(frozen=True)
class _Past:
    """A user's history, as reasons need it."""

    items: np.ndarray  # (L,) item_idx, oldest first
    types: np.ndarray  # (L,) EVENT_CODE, 0 where unknown
    lately: dict[str, float]  # result of `_frequent_categories`
    did: str | None  # verb of the newest RECENT events; None if they have no common verb


class Explainer:
    """Gives reasons for the items of one catalogue.

    If `item_knn` or `descriptions` is None, the reasons that need it aren't given. Items after the
    first `num_known` were added after training. If `num_known` is None, there are no such items.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        item_knn: ItemToItem | None,
        *,
        items: ItemState,
        num_known: int | None = None,
        descriptions: Descriptions | None = None,
        wording: Wording = Wording(),
    ):
        self.catalogue = catalogue
        self.item_knn = item_knn
        self.popular = Popular.of(items)
        self.num_known = catalogue.num_items if num_known is None else num_known
        self.descriptions = descriptions
        self.wording = wording

    def with_items(self, items: ItemState) -> "Explainer":
        """Return a copy that uses newer item states."""
        explainer = copy.copy(self)
        explainer.popular = Popular.of(items)
        return explainer

    def reasons(
        self,
        history: np.ndarray,
        types: np.ndarray,
        item_idx: Sequence[int],
        sources: Sequence[str],
    ) -> list[str]:
        """Return the reason of each shown item, one sentence each.

        Args:
            history: (L,) item_idx, oldest first, padded with 0 on the right: a row of
                `Queries.history`.
            types: (L,) EVENT_CODE of each history item, 0 where unknown.
            item_idx: the items shown.
            sources: for each shown item, the source that ranked it best.
        """
        known, types = history[history > 0], types[history > 0]
        items = np.asarray(item_idx, dtype=np.int64)
        past = _Past(
            items=known,
            types=types,
            lately=self._frequent_categories(known[-RECENT:]),
            did=self.wording.did(types[-RECENT:]) if len(known) else None,
        )
        added = self._contributions(known, items)
        helped = np.any(added, axis=1).tolist()
        repeated = np.any(items[:, None] == known, axis=1).tolist()
        because = self._because(past, added)
        return [
            self._reason(
                past, item, source, repeated=repeated[n], because=because[n], helped=helped[n]
            )
            for n, (item, source) in enumerate(zip(item_idx, sources, strict=True))
        ]

    def _reason(
        self, past: "_Past", item: int, source: str, *, repeated: bool, because: str, helped: bool
    ) -> str:
        """Return the reason of one item.

        Args:
            repeated: whether the history has the item.
            because: the reason that names a history item; empty if there is none.
            helped: whether a history item contributes to the ItemKNN score.
        """
        if source == EXPLORE:
            return EXPLORED
        if source == NEW:
            return JUST_ADDED
        if repeated:  # only if the run allows repeats
            before = np.flatnonzero(past.items == item)
            did = self.wording.did(past.types[before[-1:]])
            return f"you {did} it before" if did else "you had it before"
        nobody = len(past.items) == 0
        filled = source in (FILL, RULES)
        if nobody or filled or "popular" in source:
            if popular := self._popularity(item, source):
                return popular
            if filled:
                return FILLED
        if nobody:
            return UNKNOWN_TASTE
        if because:
            return because
        recent = f"what you {past.did} last" if past.did else "your latest items"
        shared = [name for name in past.lately if name in self.catalogue.category_lists[item]]
        if shared:
            return f"like {recent}: {', '.join(shared[:MAX_NAMED])}"
        if source == CONTENT and self.descriptions is not None:
            alike = self.descriptions.most_like(past.items[-RECENT:], item)
            if alike is not None:
                return f"described like '{self.catalogue.titles[alike]}'"
        if helped:
            others = self.wording.others_did
            return f"people who {others} the same as you {others} it too"
        if source in SEQUENTIAL:
            return f"expected next after {recent}"
        return self._popularity(item, source) or TASTE

    def _popularity(self, item: int, source: str) -> str | None:
        """Return a true statement about the item's popularity; None if it isn't popular.

        For items of the source `popularity`, which counts all events, the statement about all time
        is tried first. For others, the statement about the last days is.
        """
        claims = [(POPULAR_LATELY, self.popular.lately[item]), (POPULAR, self.popular.ever[item])]
        if source == "popularity":
            claims.reverse()
        return next((says for says, holds in claims if holds), None)

    def _contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Return what each history item adds to each item's ItemKNN score: (S, L) float32.

        0 if either item was added after training, and everywhere if there is no ItemKNN source.
        """
        added = np.zeros((len(item_idx), len(history)), dtype=np.float32)
        old, known = history <= self.num_known, item_idx <= self.num_known
        if self.item_knn is not None and old.any() and known.any():
            given = self.item_knn.contributions(history[old], item_idx[known])
            added[np.ix_(known, old)] = np.maximum(given, 0)
        return added

    def _because(self, past: "_Past", added: np.ndarray) -> list[str]:
        """Return, for each item, a reason that names the history item with the largest
        contribution; empty if the contribution is less than MIN_SHARE of the sum.

        Args:
            added: (S, L) contributions.
        """
        if added.shape[1] == 0:
            return [""] * len(added)
        best = added.shape[1] - 1 - added[:, ::-1].argmax(1)  # ties go to the newest
        largest = added[np.arange(len(added)), best]
        named = (largest > 0) & (largest >= MIN_SHARE * added.sum(1))
        reasons = []
        for place, is_named in zip(best.tolist(), named.tolist(), strict=True):
            if not is_named:
                reasons.append("")
                continue
            title = self.catalogue.titles[past.items[place]]
            did = self.wording.did(past.types[place : place + 1])
            reasons.append(f"because you {did} '{title}'" if did else f"because of '{title}'")
        return reasons

    def _frequent_categories(self, recent: np.ndarray) -> dict[str, float]:
        """Return {category: share of the items that have it}, for shares from MIN_CATEGORY_SHARE.

        Sorted by share, highest first, then by name.

        Args:
            recent: item_idx of the newest history items.
        """
        if len(recent) == 0:
            return {}
        share = self.catalogue.category_matrix[recent].mean(0)
        names = self.catalogue.category_names
        places = np.flatnonzero(share >= MIN_CATEGORY_SHARE).tolist()
        frequent = [(names[place], float(share[place])) for place in places]
        return dict(sorted(frequent, key=lambda pair: (-pair[1], pair[0])))
