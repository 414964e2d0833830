"""Applies the soft business rules of one request: pins, moves, caps and quotas.

A move is a boost (up) or a bury (down) by a number of places. Hard rules are applied earlier: the
items that they exclude are blocked before retrieval.

Shapes: N items, C candidates of the single request, R of them re-ranked, S shown items.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.queries import Queries
from models.recommend.business_rules.arrange import Limit, Need, arrange
from models.recommend.business_rules.compiled import Cap, CompiledRules, Move, Pin, Quota
from models.recommend.business_rules.missing import missing_for_caps, missing_for_quotas
from models.recommend.explaining.explain import RULES
from models.recommend.merge import Shortlist

DEPTH = 3
"""Number of candidates to retrieve per position of the list if there are caps or quotas."""
MANY_GROUPS = 20_000
"""If a cap has more groups in the catalogue, only the groups of the list's items are numbered, so
that the counts per group stay small."""


class ListRules:
    """Applies soft rules to the list of one request, and records what they did."""

    def __init__(
        self,
        parts: Sequence[CompiledRules],
        *,
        k: int,
        at: int,
        refused: np.ndarray,
        number_before: int = 0,
    ):
        """
        Args:
            parts: compiled rule sets. If two pins want the same position, the earlier set wins.
            k: length of the list.
            at: time of the request in microseconds.
            refused: item_idx that the user refused; pins don't show them.
            number_before: number of items on earlier pages of the list. Positions of pins count
                from the first page; caps and quotas apply to each page.
        """
        self.k, self.at = k, at
        self._refused = set(refused.tolist())
        self._pins: list[Pin] = [
            replace(pin, position=pin.position - number_before)
            for part in parts
            for pin in part.pins
            if 0 < pin.position - number_before <= k
        ]
        self._moves: list[Move] = [move for part in parts for move in part.moves]
        self._caps: list[Cap] = [cap for part in parts for cap in part.caps]
        self._quotas: list[Quota] = [quota for part in parts for quota in part.quotas]
        # Items that the user has seen. They are shown at the position of their pin or not at all.
        self._only_pinned: set[int] = set()
        self._names: defaultdict[int, list[str]] = defaultdict(list)
        self.list_names: list[str] = []
        """Names of the caps that passed over a better-ranked item; set by `arrange`."""

    @classmethod
    def of(
        cls,
        parts: Sequence[CompiledRules],
        *,
        k: int,
        at: int,
        refused: np.ndarray,
        number_before: int = 0,
    ) -> "ListRules | None":
        """Return the soft rules for a request (see the constructor); None if the sets have none."""
        parts = [part for part in parts if not part.is_hard_only]
        if not parts:
            return None
        return cls(parts, k=k, at=at, refused=refused, number_before=number_before)

    @property
    def depth(self) -> int:
        """Number of candidates that each source retrieves for the request."""
        return self.k * DEPTH if self._caps or self._quotas else self.k

    def names(self, shown: np.ndarray) -> list[list[str]]:
        """Return the names of the rules that pinned, kept or moved each of (S,) shown items."""
        names = [list(self._names.get(item, ())) for item in shown.tolist()]
        for move in self._moves if len(shown) else ():
            for place in np.flatnonzero(move.match(shown, self.at)):
                names[place].append(move.name)
        return names

    def with_missing(
        self, shortlist: Shortlist, queries: Queries, popularity: np.ndarray
    ) -> Shortlist:
        """Append the items that the rules need and that no candidate source found.

        These are pinned items, and popular items that quotas and caps need (missing.py).

        Args:
            popularity: (N + 1,) float32; the most popular items are added for quotas and caps.
        """
        assert len(queries) == 1, "rules are applied to one request at a time"
        if not (self._pins or self._caps or self._quotas):
            return shortlist
        found = shortlist.item_idx[0]
        found = found[found > 0]
        allowed = queries.allowed(0, len(popularity) - 1)
        pinned = self._pinned(queries, allowed, found)
        given = {"allowed": allowed, "popularity": popularity, "k": self.k, "at": self.at}
        added = np.concatenate([found, pinned])
        quotas = missing_for_quotas(self._quotas, self._caps, added, **given)
        added = np.concatenate([added, quotas])
        added = np.concatenate([added, missing_for_caps(self._caps, added, **given)])
        return with_rules(shortlist, added[len(found) :])

    def _pinned(self, queries: Queries, allowed: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return the pinned items that may be shown and aren't candidates yet: (E,) item_idx."""
        known, blocked = set(found.tolist()), queries.blocked
        added: dict[int, None] = {}
        for pin in self._pins:
            item = pin.item_idx
            if item in known:
                continue
            if not allowed[item]:
                seen = pin.even_if_seen and item not in self._refused
                if not seen or (blocked is not None and blocked[item]):
                    continue
                self._only_pinned.add(item)
            added[item] = None
        return np.fromiter(added, dtype=np.int64, count=len(added))

    def moved(
        self, item_idx: np.ndarray, order: np.ndarray, score: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply boosts and buries to the ranker's order.

        Args:
            item_idx: (1, C).
            order: (1, C) indices of the candidates, best score first.
            score: (1, C) scores of the candidates by the ranker.

        Returns:
            (1, C) indices in the new order, and (1, C) scores of the candidates that match this
            order: the item at rank r gets the r-th best score. So re-ranking reads the same
            sequence of scores as without rules.
        """
        if not self._moves:
            return order, score
        places = np.zeros(item_idx.shape[1], dtype=np.int64)  # number of places up, per rank
        ranked = item_idx[0, order[0]]
        for move in self._moves:
            places += np.where(move.match(ranked, self.at), move.places, 0)
        places[ranked == 0] = 0
        rank = np.arange(len(ranked))
        # Padding stays last. Of two items that move to the same rank, the one that moves up by more
        # places comes first.
        keys = (rank, -places, rank - places, ranked == 0)
        moved = order[:, np.lexsort(keys)]
        scores = np.empty_like(score)
        scores[0, moved[0]] = score[0, order[0]]
        return moved, scores

    def arrange(self, item_idx: np.ndarray, every: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Choose and order the items of the list under pins, caps and quotas.

        Args:
            item_idx: (1, C).
            every: (1, C) indices of all candidates, best first.
            order: (1, R) indices of the candidates that re-ranking put first.

        Returns:
            (1, min(k, C)) indices of the candidates to show, in order; padding comes last.
        """
        if not (self._pins or self._caps or self._quotas):
            return order[:, : self.k]
        chosen = np.zeros(item_idx.shape[1], dtype=bool)
        chosen[order[0]] = True
        places = np.concatenate([order[0], every[0][~chosen[every[0]]]])
        real = places[item_idx[0, places] > 0]
        items = item_idx[0, real]
        only_pinned = np.isin(items, list(self._only_pinned)) if self._only_pinned else None
        pins, pin_of = self._usable_pins(items)
        done = arrange(
            pins,
            [self._limit(cap, items) for cap in self._caps],
            [
                Need(quota.name, quota.match(items, self.at), quota.at_least, quota.first)
                for quota in self._quotas
            ],
            free=np.ones(len(items), dtype=bool) if only_pinned is None else ~only_pinned,
            k=self.k,
        )
        self._record(items, done.places, done.kept_by, pin_of)
        self.list_names = done.capped
        out = real[done.places]
        padding = places[item_idx[0, places] == 0]
        return np.concatenate([out, padding])[None, : self.k]

    def _usable_pins(self, items: np.ndarray) -> tuple[list[tuple[int, int]], dict[int, Pin]]:
        """Return the pins of candidates as (index in `items`, position), and {index: pin}."""
        pins: list[tuple[int, int]] = []
        pin_of: dict[int, Pin] = {}
        for pin in self._pins:
            if pin.item_idx in self._only_pinned and not pin.even_if_seen:
                continue
            (place,) = np.nonzero(items == pin.item_idx)
            if len(place) and int(place[0]) not in pin_of:
                pins.append((int(place[0]), pin.position))
                pin_of[int(place[0])] = pin
        return pins, pin_of

    def _limit(self, cap: Cap, items: np.ndarray) -> Limit:
        codes, num_groups = cap.groups(items, self.at)
        if num_groups > MANY_GROUPS:
            groups, local = np.unique(np.append(codes.ravel(), 0), return_inverse=True)
            codes, num_groups = local[:-1].reshape(codes.shape), len(groups) - 1
        return Limit(cap.name, codes, num_groups, cap.at_most, cap.first)

    def _record(
        self,
        items: np.ndarray,
        places: np.ndarray,
        kept_by: dict[int, list[str]],
        pin_of: dict[int, Pin],
    ) -> None:
        for index in places.tolist():
            if index in pin_of:
                self._names[int(items[index])].append(pin_of[index].name)
            self._names[int(items[index])] += kept_by.get(index, [])


def with_rules(shortlist: Shortlist, added: np.ndarray) -> Shortlist:
    """Append (E,) items as candidates, in this order, with RULES as the name of their source."""
    if len(added) == 0:
        return shortlist
    old = shortlist.item_idx.shape[1]
    ranks = {
        name: np.pad(each, ((0, 0), (0, len(added)))) for name, each in shortlist.ranks.items()
    }
    own = np.zeros((1, old + len(added)), dtype=np.float32)
    own[0, old:] = np.arange(1, len(added) + 1)
    return Shortlist(
        item_idx=np.concatenate([shortlist.item_idx, added[None]], axis=1),
        ranks=ranks | {RULES: own},
    )
