"""Rules on items and users, and the list of all rules on rows."""

from datetime import datetime, timedelta

from shortlist import columns as c
from shortlist.contracts import MAX_DAYS_AHEAD, MAX_VALUE
from shortlist.validation.checks import within
from shortlist.validation.config import ValidateConfig
from shortlist.validation.interaction_rules import interaction_rules
from shortlist.validation.rules import (
    Rule,
    changed,
    derived,
    fault,
    ids,
    once,
    operation_known,
    own_rules,
    required,
)


def rules_for(
    config: ValidateConfig, *, now: datetime, earliest: datetime, earliest_published: datetime
) -> list[Rule]:
    """Return all rules on rows of the three tables, with the changes and additions of the TOML.

    Args:
        now: later event times are invalid.
        earliest: earlier event times are invalid.
        earliest_published: earlier publication dates of items are invalid.

    Raises:
        ConfigError: `[validation.rules]` sets the action of a required rule to warn.
    """
    rules = [
        *interaction_rules(config, now=now, earliest=earliest),
        *item_rules(now=now, earliest=earliest_published),
        *user_rules(),
        *own_rules(config),
    ]
    return changed(rules, config.rules)


def item_rules(*, now: datetime, earliest: datetime) -> list[Rule]:
    """Return the rules on items.

    Args:
        now: publication dates up to MAX_DAYS_AHEAD later are valid.
        earliest: earlier publication dates are invalid.
    """
    table = "items"
    # The catalogue may have items that will be published later.
    last = now + timedelta(days=MAX_DAYS_AHEAD)
    return [
        *required(table),
        *ids(table, c.ITEM_ID),
        fault(table, "line.json", "the line is no JSON object"),
        fault(table, "price.number", "price is no number; want one like 12.50"),
        fault(table, "published_at.readable", "published_at is neither a year nor like 2024-05-31"),
        fault(
            table,
            "categories.readable",
            "categories are a list that cannot be read, or its objects have no category_key",
        ),
        fault(table, "available.flag", "available is neither true nor false"),
        fault(table, "updated_at.readable", "updated_at is no time of the mapping's unit"),
        Rule(
            table,
            "price.not_negative",
            within(c.PRICE, 0, MAX_VALUE),
            f"price is negative or no plain number; want 0 to {MAX_VALUE:g}",
        ),
        Rule(
            table,
            "published_at.range",
            within(c.PUBLISHED_AT, earliest, last),
            f"published_at: want from {earliest:%Y} to {last:%Y-%m-%d}",
        ),
        derived(
            table,
            "categories.no_circle",
            "category_twice",
            f"CASE WHEN len({c.CATEGORIES}) <> len(list_distinct({c.CATEGORIES}))"
            f" THEN array_to_string({c.CATEGORIES}, ' > ') END",
            "a category is its own ancestor: a path names each category once",
        ),
        operation_known(table),
        once(table, c.ITEM_ID, "an item"),
    ]


def user_rules() -> list[Rule]:
    """Return the rules on users."""
    table = "users"
    return [
        *required(table),
        *ids(table, c.USER_ID),
        fault(table, "line.json", "the line is no JSON object"),
        fault(table, "created_at.readable", "created_at is neither a year nor like 2024-05-31"),
        once(table, c.USER_ID, "a user"),
    ]
