"""Arranges one list under pins, caps and quotas.

A pin fixes the position of an item. A cap is a maximum number of items of a group, for example of
one brand. A quota is a minimum number of items that match a condition. Caps and quotas apply to the
first positions of the list, their window.

Positions are filled from the first to the last. At each position:

1. If an item is pinned to the position, it is shown there.
2. Otherwise the best-ranked item that breaks no cap is shown. If every remaining item breaks a cap,
   the best-ranked of those that break the fewest is shown, so a cap never shortens a list.
3. If a quota can only be met by using all remaining positions of its window, the quota is due. Then
   step 2 only chooses among items that match it. So a quota changes the list as late as possible,
   and never breaks more caps than necessary.

Pinned items count for caps and quotas. Shapes: R items in the order of rank, J values per item, S
shown items.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Limit:
    """A cap, resolved for the R items of one list."""

    name: str
    codes: np.ndarray  # (R, J) codes of each item's groups, 0 for none
    num_groups: int
    at_most: int
    first: int  # the window: positions 1 to `first`


@dataclass(frozen=True)
class Need:
    """A quota, resolved for the R items of one list."""

    name: str
    match: np.ndarray  # (R,) bool: the item matches the quota
    at_least: int
    first: int  # the window: positions 1 to `first`


@dataclass
class Arranged:
    """An arranged list, and the names of the rules that changed it."""

    places: np.ndarray  # (S,) int64 index of each shown item, in order
    kept_by: dict[int, list[str]] = field(default_factory=dict)
    """Index of an item -> names of the quotas for which it was chosen."""
    capped: list[str] = field(default_factory=list)
    """Names of the caps that passed over a better-ranked item, in the order of first effect."""


def arrange(
    pins: Sequence[tuple[int, int]],
    limits: Sequence[Limit],
    needs: Sequence[Need],
    *,
    free: np.ndarray,
    k: int,
) -> Arranged:
    """Choose and order at most k of R items.

    Args:
        pins: (index, position from 1); of two pins for one position, the earlier one gets it.
        free: (R,) bool: items that may be shown without being pinned.
        k: maximum length of the list.
    """
    slots = place_pins(pins, free=free, k=k)
    length = min(k, int(free.sum()) + sum(not free[index] for index in slots.values()))
    left = free.copy()
    left[list(slots.values())] = False
    fill = _Fill(slots, limits, needs, length=length, num_items=len(free))
    places = np.zeros(length, dtype=np.int64)
    done = Arranged(places)
    for position in range(1, length + 1):
        if position in slots:
            places[position - 1] = slots[position]
            continue
        if fill.is_over(position):  # no rule applies from here on
            open_slots = [p - 1 for p in range(position, length + 1) if p not in slots]
            places[open_slots] = np.flatnonzero(left)[: len(open_slots)]
            for slot, index in slots.items():
                places[slot - 1] = index
            break
        places[position - 1] = fill.choose(position, left, done)
    return done


def place_pins(pins: Sequence[tuple[int, int]], *, free: np.ndarray, k: int) -> dict[int, int]:
    """Return {position: index of the pinned item} for the pins that get a position.

    If several pins ask for the same position, the first one gets it. The others get the next
    positions that no pin asked for. A pin beyond k has no effect. A pin beyond the end of a shorter
    list gets the last position that no other pin has.
    """
    wanted: dict[int, int] = {}
    moved: list[tuple[int, int]] = []
    seen: set[int] = set()
    for index, position in pins:
        if index in seen or position > k:
            continue
        seen.add(index)
        if position in wanted:
            moved.append((index, position))
        else:
            wanted[position] = index
    for index, position in moved:
        while position in wanted:
            position += 1
        if position <= k:
            wanted[position] = index
    length = min(k, int(free.sum()) + sum(not free[index] for index in wanted.values()))
    slots = {position: index for position, index in wanted.items() if position <= length}
    beyond = sorted(position for position in wanted if position > length)
    unused = [position for position in range(1, length + 1) if position not in slots]
    ends = unused[len(unused) - len(beyond) :]
    return slots | {end: wanted[position] for end, position in zip(ends, beyond, strict=True)}


class _Fill:
    """State of the caps and quotas while a list is filled from the first position to the last.

    For speed, arrays over all items change only when a group becomes full or a cap's window ends.
    """

    def __init__(
        self,
        slots: dict[int, int],
        limits: Sequence[Limit],
        needs: Sequence[Need],
        *,
        length: int,
        num_items: int,
    ):
        self.slots, self.limits, self.needs, self.length = slots, limits, needs, length
        self.counts = [np.zeros(limit.num_groups + 1, dtype=np.int64) for limit in limits]
        # Per cap: whether a group of the item is full.
        self.over = [np.zeros(num_items, dtype=bool) for _ in limits]
        # Number of caps that each item would break.
        self.broken = np.zeros(num_items, dtype=np.int16)
        self.have = [
            sum(bool(need.match[i]) for p, i in slots.items() if p <= need.first) for need in needs
        ]
        self.last = max([rule.first for rule in (*limits, *needs)], default=0)
        self.active = list(range(len(limits)))
        for n, (limit, count) in enumerate(zip(limits, self.counts, strict=True)):
            for position, index in slots.items():
                if position <= limit.first:
                    np.add.at(count, limit.codes[index], 1)
            full = count >= limit.at_most
            full[0] = False
            if full.any():
                self._add_over(n, any_column(full[limit.codes]))

    def is_over(self, position: int) -> bool:
        """Return whether the windows of all caps and quotas end before this position."""
        return position > self.last

    def choose(self, position: int, left: np.ndarray, done: Arranged) -> int:
        """Choose the item for a position, count it for the rules and remove it from `left`.

        Args:
            left: (R,) bool: items that are not placed yet.
            done: the result so far; names of effective rules are added to it.
        """
        for n in [n for n in self.active if position > self.limits[n].first]:
            self.active.remove(n)
            self.broken -= self.over[n]
        natural = by_rank = int(left.argmax())
        fewest = int(self.broken[natural])
        if fewest:
            fewest = int(self.broken[left].min())
            by_rank = int((left & (self.broken == fewest)).argmax())
        choice = self._for_quotas(position, left, by_rank, fewest, done)
        if by_rank != natural:
            for n in self.active:
                if self.over[n][natural] and self.limits[n].name not in done.capped:
                    done.capped.append(self.limits[n].name)
        self._count(position, choice)
        left[choice] = False
        return choice

    def _for_quotas(
        self, position: int, left: np.ndarray, by_rank: int, fewest: int, done: Arranged
    ) -> int:
        """Return the item that matches the most due quotas.

        Args:
            by_rank: best item without quotas; the result if no quota needs another one.
            fewest: number of caps that this item breaks.
        """
        if not self._may_be_due(position):
            return by_rank
        valid = left & (self.broken == fewest)
        due = self._due(position, valid, within_caps=fewest == 0)
        if not due:
            return by_rank
        matched = np.sum([self.needs[n].match for n in due], axis=0)
        matched[~valid] = 0
        choice = int(matched.argmax())
        if matched[choice] == 0 or choice == by_rank:
            return by_rank
        done.kept_by[choice] = [self.needs[n].name for n in due if self.needs[n].match[choice]]
        return choice

    def _may_be_due(self, position: int) -> bool:
        """Return False if no quota can be due at this position; cheaper than `_due`.

        Assumes that enough items match each quota.
        """
        return bool(self._due_of({n: self._missing(n) for n in self._open(position)}, position))

    def _due(self, position: int, valid: np.ndarray, *, within_caps: bool) -> list[int]:
        """Return the due quotas (see `_due_of`), counting only items that can still be chosen.

        Args:
            valid: (R,) bool: items that may be chosen for this position.
            within_caps: count only as many items as the active caps allow together.
        """
        missing = {}
        for n in self._open(position):
            rows = np.flatnonzero(self.needs[n].match & valid)
            exist = self._possible(rows) if within_caps else len(rows)
            missing[n] = min(self._missing(n), exist)
        return self._due_of(missing, position)

    def _due_of(self, missing: dict[int, int], position: int) -> list[int]:
        """Return the quotas that together need every free position up to the end of a window.

        If this is true of several windows, the one that ends first is used.

        Args:
            missing: {quota: number of matching items that it still needs}.
        """
        wanted = {n: count for n, count in missing.items() if count > 0}
        for end in sorted({self.needs[n].first for n in wanted}):
            inside = [n for n in wanted if self.needs[n].first <= end]
            last = min(end, self.length)
            free = last - position + 1 - sum(position <= p <= last for p in self.slots)
            if free <= sum(wanted[n] for n in inside):
                return inside
        return []

    def _open(self, position: int) -> list[int]:
        """Return the quotas that aren't met yet and whose window includes the position."""
        return [
            n
            for n, need in enumerate(self.needs)
            if self.have[n] < need.at_least and position <= need.first
        ]

    def _missing(self, n: int) -> int:
        return self.needs[n].at_least - self.have[n]

    def _possible(self, rows: np.ndarray) -> int:
        """Return a lower bound of the number of these items that fit the active caps together."""
        for n in self.active if len(rows) > 1 else ():
            limit = self.limits[n]
            codes = limit.codes[rows]
            number = self.counts[n][codes] + number_in_group(codes)
            rows = rows[((number < limit.at_most) | (codes == 0)).all(axis=1)]
        return len(rows)

    def _count(self, position: int, choice: int) -> None:
        for n in self.active:
            limit, count = self.limits[n], self.counts[n]
            for code in limit.codes[choice].tolist():
                if code == 0:
                    continue
                count[code] += 1
                if count[code] == limit.at_most:
                    self._add_over(n, any_column(limit.codes == code))
        for n, need in enumerate(self.needs):
            if position <= need.first and need.match[choice]:
                self.have[n] += 1

    def _add_over(self, n: int, items: np.ndarray) -> None:
        self.broken += items & ~self.over[n]
        self.over[n] |= items


def any_column(flags: np.ndarray) -> np.ndarray:
    """Return whether any flag of a row is set: (R, J) -> (R,). Faster than `any` for small J."""
    found = flags[:, 0]
    for place in range(1, flags.shape[1]):
        found = found | flags[:, place]
    return found


def number_in_group(codes: np.ndarray) -> np.ndarray:
    """Return how many earlier entries have the same code: (R, J) -> (R, J) int64; -1 for code 0."""
    flat = codes.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    start = np.searchsorted(ordered, ordered)
    number = np.empty(len(flat), dtype=np.int64)
    number[order] = np.arange(len(flat)) - start
    number[flat == 0] = -1
    return number.reshape(codes.shape)
