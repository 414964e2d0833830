"""Rules on rows: what a rule is, how settings change it, and the rules of a run together.

A rule asks one thing of one column. Where a rule concerns only some rows, its column is derived:
it is NULL for the other rows, and a null value passes. From a rule come the SQL that takes bad rows
out and the expectation that Great Expectations judges; the rules themselves are in `row_rules.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from shortlist import columns as c
from shortlist.config import ConfigError
from shortlist.contracts import INTERACTIONS, ITEMS, USERS, WITHOUT_ITEM
from shortlist.ids import ANONYMOUS, CHARACTERS, MAX_ID, MISSING_ID_WORDS
from shortlist.lake.engine import quoted
from shortlist.lake.operations import DELETE, OPERATIONS
from shortlist.validation.checks import Check, empty, length, none_of, one_of, present
from shortlist.validation.config import Action, RuleChange, ValidateConfig

SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}
EXPLAINED = {c.EVENT_TIMESTAMP: "event_timestamp.readable", c.AVAILABLE: "available.flag"}
"""Faults because of which a required column is empty: one reason is enough."""
FILLED = (c.EVENT_ORDER, c.INGESTED_AT, c.SOURCE)
"""Required columns that ingest itself fills."""


@dataclass(frozen=True)
class Rule:
    """One rule on the rows of a table."""

    table: str
    name: str
    check: Check
    reason: str
    """What is wrong and what would be right, in one plain sentence."""
    value: str | None = None
    """SQL of the checked column where the table has no such column."""
    action: Action = "quarantine"
    budget: float | None = None
    """Share of the values that may break the rule; more refuses the batch. None: no such limit."""
    query: str | None = None
    """SQL that makes the table of the rows that a user's own query finds."""

    @property
    def bad(self) -> str:
        """SQL over the prepared relation: true for the rows that break the rule, never NULL."""
        return self.check.bad


def derived(
    table: str, name: str, column: str, value: str, reason: str, *, action: Action = "quarantine"
) -> Rule:
    """A rule that is broken wherever the SQL expression `value` gives a value."""
    return Rule(table, name, empty(column), reason, value, action)


def own_rules(config: ValidateConfig) -> list[Rule]:
    """The conditions on rows that the user has written in the run's TOML."""
    return [
        Rule(
            one.table,
            one.name,
            empty(f"breaks {one.name}"),
            f"{one.name}: want {one.row}",
            f"CASE WHEN NOT coalesce(({one.row}), true) THEN true END",
            one.action or "quarantine",
            one.budget,
        )
        for one in config.expectations
        if one.row is not None
    ]


def changed(rules: list[Rule], changes: Mapping[str, RuleChange]) -> list[Rule]:
    """Rules with the actions and budgets that the user has set.

    Raises:
        ConfigError: a rule that the contract needs is to warn only.
    """
    return [_changed(rule, changes.get(rule.name)) for rule in rules]


def _changed(rule: Rule, change: RuleChange | None) -> Rule:
    if change is None:
        return rule
    if change.action == "warn" and is_needed(rule):
        raise ConfigError(
            f"validation.rules.{rule.name}: the contract requires it; want quarantine"
        )
    budget = rule.budget if change.budget is None else change.budget
    return replace(rule, action=change.action or rule.action, budget=budget)


def with_limits(rule: Rule, limits: Mapping[str, Any]) -> Rule:
    """The rule with the limits that a user has edited in its suite.

    Raises:
        ConfigError: a limit is of another type than the rule's own, or none is left.
    """
    if not limits:
        return rule
    try:
        check = rule.check.edited(dict(limits))
    except ValueError as error:
        raise ConfigError(
            f"great_expectations, suite '{rule.table}': '{rule.name}': {error}"
        ) from None
    listed = ", ".join(f"{limit} = {value}" for limit, value in sorted(limits.items()))
    return replace(rule, check=check, reason=f"{rule.reason} (in the suite: {listed})")


def is_needed(rule: Rule) -> bool:
    """Whether the lake cannot take a row that breaks the rule."""
    return rule.name.endswith(".required") or rule.name in ("line.json", *EXPLAINED.values())


def required(table: str) -> list[Rule]:
    """The contract's required values are there, the item's apart."""
    # Which event is to go its id says.
    spared = f" OR operation = '{DELETE}'" if table == "interactions" else ""
    return [
        _needed(
            table,
            field.name,
            f"list_has_any(faults, ['line.json', '{EXPLAINED.get(field.name)}'])"
            + (spared if field.name != c.EVENT_ID else ""),
        )
        for field in SCHEMAS[table]
        if not field.nullable and field.name not in FILLED and not pa.types.is_list(field.type)
    ]


def item_required() -> Rule:
    """An event names its item, unless its type may have none."""
    without = ", ".join(quoted(one) for one in WITHOUT_ITEM)
    excused = f"{c.EVENT_TYPE} IN ({without}) OR list_contains(faults, 'line.json')"
    return _needed("interactions", c.ITEM_ID, f"{excused} OR operation = '{DELETE}'")


def _needed(table: str, column: str, excused: str) -> Rule:
    """A value is there, except in rows for which the SQL condition `excused` holds."""
    return Rule(
        table,
        f"{column}.required",
        present(f"required_{column}"),
        f"{column} is missing; want a value",
        f"CASE WHEN {column} IS NOT NULL OR coalesce({excused}, false) THEN true END",
    )


def ids(table: str, column: str) -> list[Rule]:
    """What `shortlist.ids.id_problem` says of a posted id."""
    words = (*MISSING_ID_WORDS, ANONYMOUS) if column == c.USER_ID else MISSING_ID_WORDS
    short = f"length({column}) <= {max(map(len, words))} AND strlen({column}) = length({column})"
    return [
        Rule(
            table,
            f"{column}.length",
            length(column, 1, MAX_ID),
            f"{column}: want 1 to {MAX_ID} characters",
        ),
        Rule(
            table,
            f"{column}.placeholder",
            none_of(f"lower_case_{column}", words),
            f"{column} is a word for nobody or nothing (NaN, null); want an id",
            f"CASE WHEN {short} THEN lower({column}) END",
        ),
        derived(
            table,
            f"{column}.characters",
            f"odd_{column}",
            f"CASE WHEN regexp_matches({column}, {quoted(CHARACTERS)}) THEN {column} END",
            f"{column} has control characters, or blanks around it",
        ),
        fault(
            table,
            f"{column}.text",
            f"{column} is a number with a fraction, or a list; want text or a whole number"
            " (missing ids became NaN?)",
        ),
    ]


def operation_known(table: str) -> Rule:
    """A correction or deletion is named by a word of ours."""
    return Rule(
        table,
        "operation.known",
        one_of("operation", OPERATIONS),
        f"operation is none of {', '.join(OPERATIONS)}",
    )


def once(table: str, column: str, thing: str) -> Rule:
    """A batch has one content of an item or user."""
    return derived(
        table,
        f"{column}.once",
        f"ambiguous_{column}",
        f"CASE WHEN id_conflict THEN {column} END",
        f"the same {column} is there with different contents; want {thing} once",
    )


def fault(table: str, name: str, reason: str) -> Rule:
    """A rule that mapping has judged already: the cell could not be read."""
    value = f"CASE WHEN list_contains(faults, '{name}') THEN true END"
    return derived(table, name, f"unreadable_{name.split('.')[0]}", value, reason)
