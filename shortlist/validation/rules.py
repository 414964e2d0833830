"""Rules on rows: the class `Rule`, functions that build rules, and changes by users.

A rule is a check of one column. A rule that applies to some rows only checks a derived column: an
SQL expression that is NULL for all other rows, and null values pass. From a rule two things are
built: the SQL that selects bad rows, and the expectation of Great Expectations.
`interaction_rules.py` and `row_rules.py` define the rules.
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
"""{required column: rule that reports an unreadable value}. Rows that break it don't also break the
`.required` rule of that column.
"""
FILLED = (c.EVENT_ORDER, c.INGESTED_AT, c.SOURCE)
"""Required columns that ingest fills."""


@dataclass(frozen=True)
class Rule:
    """A rule on the rows of a table."""

    table: str
    name: str
    check: Check
    reason: str
    """One sentence for users: what is wrong and what would be right."""
    value: str | None = None
    """SQL expression of the checked column if it is derived; None: it is a column of the table."""
    action: Action = "quarantine"
    budget: float | None = None
    """Maximum share of values that may break the rule; with more the batch is refused. None: no
    limit.
    """
    query: str | None = None
    """SQL that creates the table of rows found by a user's query; None for all other rules."""

    @property
    def bad(self) -> str:
        """SQL condition that is true for prepared rows that break the rule; never NULL."""
        return self.check.bad


def derived(
    table: str, name: str, column: str, value: str, reason: str, *, action: Action = "quarantine"
) -> Rule:
    """Return a rule on a derived column: a row breaks the rule if `value` is not NULL.

    Args:
        column: name of the derived column.
        value: SQL expression of the derived column.
    """
    return Rule(table, name, empty(column), reason, value, action)


def own_rules(config: ValidateConfig) -> list[Rule]:
    """Return the rules of the row conditions in the run's TOML."""
    return [
        Rule(
            expectation.table,
            expectation.name,
            empty(f"breaks {expectation.name}"),
            f"{expectation.name}: want {expectation.row}",
            f"CASE WHEN NOT coalesce(({expectation.row}), true) THEN true END",
            expectation.action or "quarantine",
            expectation.budget,
        )
        for expectation in config.expectations
        if expectation.row is not None
    ]


def changed(rules: list[Rule], changes: Mapping[str, RuleChange]) -> list[Rule]:
    """Return the rules with the user's changes of actions and budgets.

    Args:
        changes: {rule: change}.

    Raises:
        ConfigError: a change sets the action of a required rule to warn.
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
    """Return the rule with the limits that a user changed in its suite.

    Raises:
        ConfigError: a limit has another type than the rule's limits, or no limit is left.
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
    """Return whether the rule is required: the lake can't store a row that breaks it."""
    return rule.name.endswith(".required") or rule.name in ("line.json", *EXPLAINED.values())


def required(table: str) -> list[Rule]:
    """Return a rule for each required column of a table.

    The item_id of events has a separate rule, `item_required`.
    """
    # A deletion needs only the event_id.
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
    """Return the rule that an event has an item_id, unless its type is in WITHOUT_ITEM."""
    without = ", ".join(quoted(event_type) for event_type in WITHOUT_ITEM)
    excused = f"{c.EVENT_TYPE} IN ({without}) OR list_contains(faults, 'line.json')"
    return _needed("interactions", c.ITEM_ID, f"{excused} OR operation = '{DELETE}'")


def _needed(table: str, column: str, excused: str) -> Rule:
    """Return the rule that `column` has a value, except in rows that meet the SQL condition
    `excused`.
    """
    return Rule(
        table,
        f"{column}.required",
        present(f"required_{column}"),
        f"{column} is missing; want a value",
        f"CASE WHEN {column} IS NOT NULL OR coalesce({excused}, false) THEN true END",
    )


def ids(table: str, column: str) -> list[Rule]:
    """Return the rules on an id column. They refuse the same ids as `shortlist.ids.id_problem`."""
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
            f"{column} is a placeholder for a missing id (NaN, null); want an id",
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
    """Return the rule that `operation` is one of OPERATIONS."""
    return Rule(
        table,
        "operation.known",
        one_of("operation", OPERATIONS),
        f"operation is none of {', '.join(OPERATIONS)}",
    )


def once(table: str, column: str, thing: str) -> Rule:
    """Return the rule that a batch doesn't have several rows of an id with different content.

    Args:
        column: id column of the table.
        thing: word for the rows in the message, such as "an item".
    """
    return derived(
        table,
        f"{column}.once",
        f"ambiguous_{column}",
        f"CASE WHEN id_conflict THEN {column} END",
        f"the same {column} is there with different contents; want {thing} once",
    )


def fault(table: str, name: str, reason: str) -> Rule:
    """Return the rule for a fault found by the mapping: the value of a cell could not be read.

    Args:
        name: name of the rule, which the mapping put into the column `faults`.
    """
    value = f"CASE WHEN list_contains(faults, '{name}') THEN true END"
    return derived(table, name, f"unreadable_{name.split('.')[0]}", value, reason)
