"""Row rules, compiled from the contracts and the run's limits to DuckDB predicates.

A predicate is true for the rows that break the rule and never NULL, so that it can be counted over
all rows in one scan, and the same text parts good rows from bad.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from shortlist import columns as c
from shortlist.config import ConfigError
from shortlist.contracts import (
    EVENT_TYPES,
    INTERACTIONS,
    ITEMS,
    MAX_VALUE,
    MEASURED,
    USERS,
    WITHOUT_ITEM,
)
from shortlist.datasets.config import UNITS
from shortlist.lake.engine import quoted
from shortlist.lake.operations import DELETE, OPERATIONS
from shortlist.validation.config import Action, ValidateConfig

MAX_ID = 256
MAX_EVENT_ID = 512
NOTHING = ("nan", "null", "none", "undefined", "n/a", "<na>")
"""What programs write for a missing id."""
SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}
EXPLAINED = {c.EVENT_TIMESTAMP: "event_timestamp.readable", c.AVAILABLE: "available.flag"}
"""Faults because of which a required column is empty: one reason is enough."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_2100 = datetime(2100, 1, 1, tzinfo=UTC)
DERIVED = (c.EVENT_ORDER, c.INGESTED_AT, c.SOURCE)
"""Required columns that ingest itself fills."""


@dataclass(frozen=True)
class Rule:
    """One expectation on rows."""

    table: str
    name: str
    bad: str
    reason: str
    """What would be right, for whoever reads the quarantine."""
    action: Action = "quarantine"
    budget: float | None = None
    """None: the table's failure budget counts."""


def rules_for(
    config: ValidateConfig, *, now: datetime, earliest: datetime, earliest_published: datetime
) -> list[Rule]:
    """All row rules of the three tables: the contracts', the limits', the user's own.

    Raises:
        ConfigError: `[validation.rules]` names a rule that does not exist.
    """
    rules = [
        *_required("interactions"),
        _item_required(),
        *_ids("interactions", c.USER_ID),
        *_ids("interactions", c.ITEM_ID),
        *_interactions(config, now=now, earliest=earliest),
        *_required("items"),
        *_ids("items", c.ITEM_ID),
        *_items(now=now, earliest=earliest_published),
        *_required("users"),
        *_ids("users", c.USER_ID),
        *_users(),
    ]
    rules += [
        Rule(
            one.table,
            one.name,
            f"NOT coalesce(({one.row}), true)",
            f"{one.name}: want {one.row}",
            one.action or "quarantine",
            one.budget,
        )
        for one in config.expectations
        if one.row is not None
    ]
    return [_changed(rule, config) for rule in rules]


def _changed(rule: Rule, config: ValidateConfig) -> Rule:
    change = config.rules.get(rule.name)
    if change is None:
        return rule
    needed = rule.name.endswith(".required") or rule.name in ("line.json", *EXPLAINED.values())
    if needed and change.action == "warn":
        raise ConfigError(
            f"validation.rules.{rule.name}: the contract requires it; want quarantine"
        )
    budget = rule.budget if change.budget is None else change.budget
    return replace(rule, action=change.action or rule.action, budget=budget)


def _required(table: str) -> list[Rule]:
    # Which event is to go its id says.
    spared = f" AND operation IS DISTINCT FROM '{DELETE}'" if table == "interactions" else ""
    return [
        Rule(
            table,
            f"{field.name}.required",
            f"{field.name} IS NULL AND NOT coalesce(list_has_any(faults,"
            f" ['line.json', '{EXPLAINED.get(field.name)}']), false)"
            + (spared if field.name != c.EVENT_ID else ""),
            f"{field.name} is missing",
        )
        for field in SCHEMAS[table]
        if not field.nullable and field.name not in DERIVED and not pa.types.is_list(field.type)
    ]


def _item_required() -> Rule:
    without = ", ".join(quoted(one) for one in WITHOUT_ITEM)
    return Rule(
        "interactions",
        f"{c.ITEM_ID}.required",
        f"{c.ITEM_ID} IS NULL AND coalesce({c.EVENT_TYPE} NOT IN ({without}), true)"
        " AND NOT coalesce(list_contains(faults, 'line.json'), false)"
        f" AND operation IS DISTINCT FROM '{DELETE}'",
        f"{c.ITEM_ID} is missing",
    )


def _ids(table: str, column: str) -> list[Rule]:
    words = ", ".join(quoted(word) for word in NOTHING)
    return [
        Rule(
            table,
            f"{column}.length",
            f"coalesce(length({column}) NOT BETWEEN 1 AND {MAX_ID}, false)",
            f"{column}: want 1 to {MAX_ID} characters",
        ),
        Rule(
            table,
            f"{column}.placeholder",
            f"coalesce(length({column}) <= 9 AND lower({column}) IN ({words}), false)",
            f"{column} is a word for nothing (NaN, null); want an id",
        ),
        _fault(
            table,
            f"{column}.text",
            f"{column} is a number with a fraction, or a list; want text or a whole number"
            " (missing ids became NaN?)",
        ),
    ]


def _fault(table: str, name: str, reason: str) -> Rule:
    """A rule that mapping has judged already: the cell could not be read."""
    return Rule(table, name, f"coalesce(list_contains(faults, '{name}'), false)", reason)


def _interactions(config: ValidateConfig, *, now: datetime, earliest: datetime) -> list[Rule]:
    table = "interactions"
    low, high = config.rating_range
    types = ", ".join(quoted(one) for one in EVENT_TYPES)
    measured = ", ".join(quoted(one) for one in MEASURED)
    operations = ", ".join(quoted(one) for one in OPERATIONS)
    inside = f"{c.EVENT_TIMESTAMP} BETWEEN {_moment(earliest)} AND {_moment(now)}"
    negative = f"{c.EVENT_TIMESTAMP} < {_moment(min(earliest, EPOCH))}"
    beyond = f"{c.EVENT_TIMESTAMP} >= {_moment(YEAR_2100)}"
    named = f"{negative} OR {beyond} OR {c.EVENT_TIMESTAMP} = {_moment(EPOCH)}"
    bursts: Action = "warn"
    return [
        _fault(table, "line.json", "the line is no JSON object"),
        _fault(
            table,
            "event_timestamp.readable",
            f"event_timestamp is no time of the mapping's timestamp_unit ({', '.join(UNITS)}"
            " or a pattern): another unit?",
        ),
        _fault(table, "value.number", "value is no number; want one like 4.5"),
        _fault(table, "position.number", "position is no whole number"),
        Rule(
            table,
            "event_id.length",
            f"coalesce(length({c.EVENT_ID}) > {MAX_EVENT_ID}, false)",
            f"event_id: want at most {MAX_EVENT_ID} characters",
        ),
        Rule(
            table,
            "event_type.known",
            f"coalesce({c.EVENT_TYPE} NOT IN ({types}), false)",
            f"event type is none of the contract's: {', '.join(EVENT_TYPES)}",
        ),
        Rule(
            table,
            "event_timestamp.range",
            f"coalesce(NOT ({inside}) AND NOT ({named}), false)",
            f"neither before {earliest:%Y-%m-%d} nor after {now:%Y-%m-%d %H:%M} UTC",
        ),
        Rule(
            table,
            "event_timestamp.epoch_zero",
            f"coalesce({c.EVENT_TIMESTAMP} = {_moment(EPOCH)}, false)",
            "event_timestamp is 0 (1970-01-01 00:00): a missing time",
        ),
        Rule(
            table,
            "event_timestamp.negative",
            f"coalesce({negative}, false)",
            "event_timestamp is negative (before 1970): a missing time or a wrong unit? For an old"
            " log, set validation.earliest",
        ),
        Rule(
            table,
            "event_timestamp.beyond_2100",
            f"coalesce({beyond}, false)",
            "event_timestamp is beyond the year 2100: a wrong unit?",
        ),
        Rule(
            table,
            "value.unrated",
            f"coalesce({c.EVENT_TYPE} = 'rating' AND {c.VALUE} = -1 AND {low} > -1, false)",
            "a rating of -1: if that means not rated, set unrated = -1 in the mapping, and the"
            " event becomes a view",
        ),
        Rule(
            table,
            "value.finite",
            f"coalesce(NOT isfinite({c.VALUE}) OR abs({c.VALUE}) > {MAX_VALUE}, false)",
            f"value is infinite or beyond {MAX_VALUE:g}",
        ),
        Rule(
            table,
            "value.rating_range",
            # The like that ingest has made of a rating goes where its rating goes.
            f"coalesce(({c.EVENT_TYPE} = 'rating' OR ends_with({c.EVENT_ID}, '-like'))"
            f" AND {c.VALUE} NOT BETWEEN {low} AND {high}"
            f" AND NOT ({c.VALUE} = -1 AND {low} > -1), false)",
            f"range of ratings: want {low:g} to {high:g}",
        ),
        Rule(
            table,
            "value.not_negative",
            f"coalesce({c.EVENT_TYPE} IN ({measured}) AND {c.VALUE} < 0, false)",
            "a price or duration is negative; want 0 or more (a return is an event of its own)",
        ),
        Rule(
            table,
            "position.not_negative",
            f"coalesce({c.POSITION} < 0, false)",
            "position is negative",
        ),
        Rule(
            table,
            "text.length",
            f"coalesce(length({c.TEXT}) > {config.max_text}"
            f" OR length({c.QUERY}) > {config.max_text}, false)",
            f"text is longer than {config.max_text:,} characters",
        ),
        Rule(
            table,
            "operation.known",
            f"coalesce(operation NOT IN ({operations}), false)",
            f"operation is none of {', '.join(OPERATIONS)}",
        ),
        Rule(
            table,
            "operation.target",
            "operation_misses",
            "corrects or deletes an event that is not there",
        ),
        Rule(
            table,
            "event_id.one_content",
            "id_conflict",
            "the same event_id is there twice with different content",
        ),
        Rule(
            table,
            "item_id.known",
            f"NOT item_is_known AND {c.ITEM_ID} IS NOT NULL",
            "the item of an event is in the items table",
        ),
        Rule(
            table,
            "user_id.known",
            f"NOT user_is_known AND {c.USER_ID} IS NOT NULL",
            "the user of an event is in the users table",
        ),
        Rule(
            table,
            "user_id.burst",
            "in_burst",
            f"more than {config.burst_per_minute} events of one user within a minute: a bot?",
            bursts,
            0.0,
        ),
    ]


def _items(*, now: datetime, earliest: datetime) -> list[Rule]:
    table = "items"
    # A film of next year may be in the catalogue already.
    last = now + timedelta(days=1000)
    inside = f"{c.PUBLISHED_AT} BETWEEN {_moment(earliest)} AND {_moment(last)}"
    return [
        _fault(table, "line.json", "the line is no JSON object"),
        _fault(table, "price.number", "price is no number; want one like 12.50"),
        _fault(
            table, "published_at.readable", "published_at is neither a year nor like 2024-05-31"
        ),
        _fault(
            table,
            "categories.readable",
            "categories are a list that cannot be read, or its objects have no category_key",
        ),
        _fault(table, "available.flag", "available is neither true nor false"),
        _fault(table, "updated_at.readable", "updated_at is no time of the mapping's unit"),
        Rule(
            table,
            "price.not_negative",
            f"coalesce({c.PRICE} < 0 OR NOT isfinite({c.PRICE}), false)",
            "prices are not negative",
        ),
        Rule(
            table,
            "published_at.range",
            f"coalesce(NOT ({inside}), false)",
            f"published between {earliest:%Y} and {last:%Y-%m-%d}",
        ),
        Rule(
            table,
            "categories.no_circle",
            f"coalesce(len({c.CATEGORIES}) <> len(list_distinct({c.CATEGORIES})), false)",
            "a category is its own ancestor: a path names each category once",
        ),
        Rule(
            table,
            "operation.known",
            f"coalesce(operation NOT IN ({', '.join(quoted(one) for one in OPERATIONS)}), false)",
            f"operation is none of {', '.join(OPERATIONS)}",
        ),
        Rule(table, "item_id.once", "id_conflict", "an item once: this id has several contents"),
    ]


def _users() -> list[Rule]:
    table = "users"
    return [
        _fault(table, "line.json", "the line is no JSON object"),
        _fault(table, "created_at.readable", "created_at is neither a year nor like 2024-05-31"),
        Rule(table, "user_id.once", "id_conflict", "a user once: this id has several contents"),
    ]


def _moment(moment: datetime) -> str:
    return f"TIMESTAMPTZ {quoted(moment.isoformat())}"
