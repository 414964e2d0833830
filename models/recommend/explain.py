"""One sentence why an item is shown. Each is a claim about the data, and said only where it holds.

Tried in order: that it was had before, popularity for items of the popularity sources, an item of
the history that speaks for it (ItemKNN's own contributions), categories shared with the newest
items, a description like one of the history's, co-use, the order of the history. No random numbers,
no clock.

Shapes: N items, L history, K categories, D dim.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from models.recommend.new_items import CONTENT, NEW
from shortlist.catalogue import Catalogue
from shortlist.contracts import EVENT_TYPES
from shortlist.features.pack import ItemState

RECENT = 10
"""Newest history items that count as 'last'. They may be old, so no reason calls them recent."""
RECENT_DAYS = 7
"""Days of events that count as 'lately' for an item."""
MIN_SHARE = 0.25
"""An item of the history is named if it carries at least this share of all contributions."""
MIN_CATEGORY_SHARE = 0.4
"""A category is named if at least this share of the recent items has it."""
MAX_NAMED = 2
MOST, MOST_SHARE, MIN_EVENTS = 10, 0.1, 3
"""Popular are the first ten items or the first tenth, whichever are more, with three events or more
and more than an item has on average.
"""
ALIKE = 0.9
"""A description is like another if at most a tenth of the catalogue's are more like that one."""
SAMPLED = 256

JUST_ADDED = "new in the catalogue"
FILLED = "more from the catalogue"
EXPLORED = "picked at random, to show something else"
EXPLORE = "explore"
"""Name of the source of an item that exploration drew from all allowed items."""
FILL = "fill"
"""Name of the source that fills lists with popular items if all other sources find too few."""
RULES = "rules"
"""Name of the source of items that only a business rule asked for; also the stage of the rules."""
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
"""What somebody did, in the past; a run's `[data] wording` may say it otherwise."""


class ItemToItem(Protocol):
    """The part of an item-item model that explains: how much each history item adds to a
    candidate's score. More than 0 if people have used both.
    """

    def contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """(L,) item_idx of a history, (S,) candidates -> (S, L) float32."""
        ...


@dataclass(frozen=True)
class Wording:
    """How the data's events are called."""

    target_events: tuple[str, ...] = ()
    verbs: Mapping[str, str] = field(default_factory=dict)
    """{event type: past tense}, over VERBS."""

    def did(self, codes: np.ndarray) -> str | None:
        """The verb that all these EVENT_CODEs share; None without one."""
        if len(set(codes.tolist())) != 1 or codes[0] == 0:
            return None
        return (VERBS | dict(self.verbs)).get(EVENT_TYPES[codes[0] - 1])

    @property
    def others_did(self) -> str:
        """Return the past-tense verb for what other users did with an item.

        "chose" if the run's target events have no single verb.
        """
        names = {(VERBS | dict(self.verbs)).get(one) for one in self.target_events}
        name = names.pop() if len(names) == 1 else None
        return name if name and name != VERBS["add_to_cart"] else "chose"


@dataclass(frozen=True)
class Popular:
    """(N + 1,) bool: items that are popular, as of one pack."""

    ever: np.ndarray
    lately: np.ndarray

    @classmethod
    def of(cls, items: ItemState) -> "Popular":
        recent = items.state["item_day_counts"][:, -RECENT_DAYS:].sum(1)
        return cls(ever=_most(items.state["item_events"]), lately=_most(recent))


def _most(counts: np.ndarray) -> np.ndarray:
    """(N + 1,) bool; row 0 is padding."""
    n = len(counts) - 1
    most = min(max(MOST, int(MOST_SHARE * n)), n)
    if most == 0:
        return np.zeros(n + 1, dtype=bool)
    least = np.partition(counts[1:], n - most)[n - most]
    popular = (counts >= max(least, MIN_EVENTS)) & (counts > counts[1:].mean())
    popular[0] = False
    return popular


class Descriptions:
    """Which items have descriptions alike, by the content source's vectors."""

    def __init__(self, known: np.ndarray, new: np.ndarray | None):
        """(N + 1, D) of the items that the source knows, and (V, D) of those after them."""
        self.known, self.new = known, new
        step = max(1, len(known) // SAMPLED)
        self.sample = _unit(known[1::step])

    def most_like(self, history: np.ndarray, item_idx: int) -> int | None:
        """Of (L,) item_idx the one whose description is most like the item's, if it is ALIKE."""
        own = _unit(self._vectors(np.array([item_idx])))
        theirs = _unit(self._vectors(history))
        cosine = theirs @ own[0]
        best = int(len(cosine) - 1 - cosine[::-1].argmax())
        usual = np.quantile(self.sample @ theirs[best], ALIKE)
        return int(history[best]) if cosine[best] > max(usual, 0) else None

    def _vectors(self, item_idx: np.ndarray) -> np.ndarray:
        old = item_idx < len(self.known)
        out = self.known[np.where(old, item_idx, 0)]
        if self.new is not None and not old.all():
            out[~old] = self.new[item_idx[~old] - len(self.known)]
        return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


class Explainer:
    """Reasons for the items of one catalogue; parts that are None leave out their reasons.

    Items beyond `num_known` came after the models were trained; None: there are none.
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
        """The same over newer item states."""
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
        """One sentence an item.

        Args:
            history: (L,) item_idx, oldest first, padded with 0 on the right: a row of
                `Queries.history`.
            types: (L,) EVENT_CODE of each, 0 where unknown.
            item_idx: the items shown.
            sources: for each of them the source that ranked it best.
        """
        known, types = history[history > 0], types[history > 0]
        lately = self._frequent_categories(known[-RECENT:])
        contributions = self._contributions(known, np.asarray(item_idx, dtype=np.int64))
        return [
            self._reason(known, types, lately, added, item, source)
            for added, item, source in zip(contributions, item_idx, sources, strict=True)
        ]

    def _reason(
        self,
        history: np.ndarray,
        types: np.ndarray,
        lately: dict[str, float],
        added: np.ndarray,
        item: int,
        source: str,
    ) -> str:
        if source == EXPLORE:
            return EXPLORED
        if source == NEW:
            return JUST_ADDED
        before = np.flatnonzero(history == item)
        if len(before):  # only where people come back for the same
            did = self.wording.did(types[before[-1:]])
            return f"you {did} it before" if did else "you had it before"
        popular = self._popularity(item, source)
        if popular and ("popular" in source or len(history) == 0):
            return popular
        if source in (FILL, RULES):
            return popular or FILLED
        if len(history) == 0:
            return UNKNOWN_TASTE
        did = self.wording.did(types[-RECENT:])
        recent = f"what you {did} last" if did else "your latest items"
        because = self._because(history, types, added)
        if because:
            return because
        shared = [name for name in lately if name in self.catalogue.category_lists[item]]
        if shared:
            return f"like {recent}: {', '.join(shared[:MAX_NAMED])}"
        if source == CONTENT and self.descriptions is not None:
            alike = self.descriptions.most_like(history[-RECENT:], item)
            if alike is not None:
                return f"described like '{self.catalogue.titles[alike]}'"
        if added.any():
            others = self.wording.others_did
            return f"people who {others} the same as you {others} it too"
        if source in SEQUENTIAL:
            return f"expected next after {recent}"
        return popular or TASTE

    def _popularity(self, item: int, source: str) -> str | None:
        """What is true of the item's popularity; the source's own claim first."""
        claims = [(POPULAR_LATELY, self.popular.lately[item]), (POPULAR, self.popular.ever[item])]
        if source == "popularity":
            claims.reverse()
        return next((says for says, holds in claims if holds), None)

    def _contributions(self, history: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """(S, L) what each history item adds to each item; 0 if ItemKNN lacks either of them."""
        added = np.zeros((len(item_idx), len(history)), dtype=np.float32)
        old, known = history <= self.num_known, item_idx <= self.num_known
        if self.item_knn is not None and old.any() and known.any():
            given = self.item_knn.contributions(history[old], item_idx[known])
            added[np.ix_(known, old)] = np.maximum(given, 0)
        return added

    def _because(self, history: np.ndarray, types: np.ndarray, added: np.ndarray) -> str:
        """Names the history item with the largest contribution, if it stands out."""
        best = int(len(added) - 1 - added[::-1].argmax())  # the newest of equals
        if added[best] <= 0 or added[best] < MIN_SHARE * added.sum():
            return ""
        title, did = self.catalogue.titles[history[best]], self.wording.did(types[best : best + 1])
        return f"because you {did} '{title}'" if did else f"because of '{title}'"

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
