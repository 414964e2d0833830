"""Compiles sets of business rules for a catalogue.

Compiling converts the ids and values in the rules to integer codes, once per catalogue. Hard rules
(filter, include, exclude) remove items. Soft rules (pins, moves, caps, quotas) arrange the list.

Shapes: N items, C candidates, J values per item.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.recommend.business_rules.conditions import ALL, Match, compile_conditions
from models.recommend.business_rules.item_columns import Codes, ItemColumns
from shortlist.http.rule_config import FilterRule, RuleSet
from shortlist.items.catalogue import Catalogue

KEPT = 16
"""Number of compiled rule sets kept per catalogue, because requests often repeat the same rules."""


@dataclass(frozen=True)
class Pin:
    name: str
    item_idx: int
    position: int
    even_if_seen: bool


@dataclass(frozen=True)
class Move:
    name: str
    match: Match
    places: int
    """Number of places to move; above 0: up, below 0: down."""


@dataclass(frozen=True)
class Cap:
    name: str
    at_most: int
    first: int
    by: Codes | None
    match: Match | None

    def groups(self, rows: np.ndarray, at: int) -> tuple[np.ndarray, int]:
        """Return the groups in which each item counts: (C,) item_idx -> (C, J) codes, 0 for none.

        Also returns the number of groups, without 0.
        """
        if self.by is None:
            codes, num_groups = np.ones((len(rows), 1), dtype=np.int32), 1
        else:
            codes, num_groups = self.by.codes[rows], self.by.num_codes
        if self.match is not None:
            codes = np.where(self.match(rows, at)[:, None], codes, 0)
        return codes, num_groups


@dataclass(frozen=True)
class Quota:
    name: str
    at_least: int
    first: int
    match: Match


@dataclass(frozen=True)
class CompiledRules:
    """One rule set, compiled for one catalogue."""

    digest: str
    blocked: np.ndarray | None
    """(N + 1,) bool: items that hard rules exclude at any time; None without such rules."""
    blocking: tuple[str, ...]
    """Names of the rules behind `blocked` that exclude at least one item."""
    moving: tuple[tuple[str, Match, bool], ...]
    """Filters that depend on the time of the request, as (name, conditions, kept). `kept` is True
    if only matching items may be shown, False if matching items are excluded."""
    pins: tuple[Pin, ...]
    moves: tuple[Move, ...]
    caps: tuple[Cap, ...]
    quotas: tuple[Quota, ...]
    unknown: tuple[str, ...] = field(default=())
    """Messages about ids and values that no item of the catalogue has."""

    @property
    def is_hard_only(self) -> bool:
        """Whether all rules of the set are hard: they exclude items and don't arrange the list."""
        return not (self.pins or self.moves or self.caps or self.quotas)

    def block(self, blocked: np.ndarray, *, at: int) -> list[str]:
        """Set `blocked` to True, in place, for the items that the hard rules exclude.

        Args:
            blocked: (N + 1,) bool.
            at: time of the request, microseconds.

        Returns:
            Names of the rules that exclude at least one item of the catalogue.
        """
        names = list(self.blocking)
        if self.blocked is not None:
            blocked |= self.blocked
        for name, match, kept in self.moving:
            out = match(ALL, at) != kept
            if out[1:].any():
                names.append(name)
                blocked |= out
        return names


def compile_rules(rules: RuleSet, columns: ItemColumns) -> CompiledRules:
    """Compile a rule set for a catalogue.

    Ids and values that no item has are no error; `CompiledRules.unknown` lists them.
    """
    unknown: list[str] = []

    def match(name: str, conditions: Sequence) -> Match:
        found = compile_conditions(conditions, columns)
        unknown.extend(f"{name}: {message}" for message in found.unknown)
        return found

    def indices(name: str, item_ids: Sequence[str]) -> np.ndarray:
        found = columns.catalogue.vocab.encode(item_ids)
        missing = [item for item, idx in zip(item_ids, found, strict=True) if idx == 0]
        unknown.extend(f"{name}: no item has item_id '{item}'" for item in missing[:3])
        return found[found > 0]

    static: list[tuple[str, np.ndarray]] = []
    moving: list[tuple[str, Match, bool]] = []
    for rule in rules.filter:
        found = match(rule.name, _conditions(rule))
        kept = rule.keep is not None
        if found.moving:
            moving.append((rule.name, found, kept))
        else:
            static.append((rule.name, found(ALL, 0) != kept))
    for rules_of_ids, kept in ((rules.include, True), (rules.exclude, False)):
        for rule in rules_of_ids:
            out = np.full(columns.num_items + 1, kept)
            out[indices(rule.name, rule.item_ids)] = not kept
            static.append((rule.name, out))
    pins = [
        Pin(rule.name, int(idx), rule.position, rule.even_if_seen)
        for rule in rules.pin
        for idx in indices(rule.name, [rule.item_id])
    ]
    moves = [
        Move(rule.name, match(rule.name, rule.where), sign * rule.places)
        for group, sign in ((rules.boost, 1), (rules.bury, -1))
        for rule in group
    ]
    caps = [
        Cap(
            rule.name,
            rule.at_most,
            rule.first,
            by=None if rule.by is None else columns.codes(rule.by),
            match=None if rule.where is None else match(rule.name, rule.where),
        )
        for rule in rules.cap
    ]
    quotas = [
        Quota(rule.name, rule.at_least, rule.first, match(rule.name, rule.where))
        for rule in rules.quota
    ]
    return CompiledRules(
        digest=rules.digest,
        blocked=np.logical_or.reduce([out for _, out in static]) if static else None,
        blocking=tuple(name for name, out in static if out[1:].any()),
        moving=tuple(moving),
        pins=tuple(pins),
        moves=tuple(moves),
        caps=tuple(caps),
        quotas=tuple(quotas),
        unknown=tuple(unknown),
    )


def _conditions(rule: FilterRule) -> Sequence:
    conditions = rule.keep if rule.keep is not None else rule.drop
    assert conditions is not None, "the schema wants one of both"
    return conditions


class RuleCompiler:
    """Compiles rule sets for one catalogue and keeps the last KEPT of them. Thread-safe."""

    def __init__(self, catalogue: Catalogue):
        self.columns = ItemColumns(catalogue)
        self._kept: OrderedDict[str, CompiledRules] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, rules: RuleSet) -> CompiledRules:
        """Return the compiled rule set; compile it if it isn't kept."""
        with self._lock:
            found = self._kept.get(rules.digest)
            if found is not None:
                self._kept.move_to_end(rules.digest)
                return found
        compiled = compile_rules(rules, self.columns)  # without the lock: it may take long
        with self._lock:
            self._kept[rules.digest] = compiled
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return compiled

    def in_force(self, *given: RuleSet | None) -> tuple[CompiledRules, ...]:
        """Return the compiled form of each given set, in order, without None and empty sets."""
        return tuple(self(rules) for rules in given if rules is not None and rules.rules)
