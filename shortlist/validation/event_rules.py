"""Writes the validation rules that a single event or item can break, for use by the service.

Validation writes them to `<home>/event_rules.json`, including the changes that users made in the
run's TOML and in the suites of Great Expectations. The service reads the file, and refuses a posted
event, or a posted change of an item, that the next refresh would quarantine.

Missing and invalid ids, unknown event types, implausible times and negative prices are not among
these rules. The request schemas (`shortlist.http.api.Event` and `ItemChange`) always refuse them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist import columns as c
from shortlist.files.plain_json import write_json
from shortlist.validation.checks import within
from shortlist.validation.config import ValidateConfig
from shortlist.validation.interaction_rules import interaction_rules
from shortlist.validation.row_rules import item_rules
from shortlist.validation.rules import Rule

TIMES = "event_timestamp.range"
CHECKED = (
    TIMES,
    "value.finite",
    "value.unrated",
    "value.rating_range",
    "value.not_negative",
    "text.length",
    "query.length",
)
"""Rules for which the service has Python code (services/events/event_limits.py). It takes their
limits from the run's TOML. Rules that users changed in other ways are checked with SQL.
"""
NEEDS_BATCH = (
    "operation.known",
    "operation.target",
    "event_id.one_content",
    "item_id.known",
    "user_id.known",
    "user_id.burst",
)
"""Rules that need other rows. They don't apply to a single event."""
PUBLISHED = "published_at.range"


def write_event_rules(
    path: Path,
    rules: Sequence[Rule],
    config: ValidateConfig,
    *,
    now: datetime,
    earliest: datetime,
    earliest_published: datetime,
) -> None:
    """Write the rules that a single event or item can break.

    Args:
        rules: all rules on rows, with all changes by users.
        now, earliest, earliest_published: arguments of `rules_for` with which `rules` were made.
    """
    defaults = {
        default.name: default for default in interaction_rules(config, now=now, earliest=earliest)
    }
    enforced, sql = [], []
    limits: dict[str, Any] = {"earliest": config.earliest_microseconds, "latest": None}
    for rule in rules:
        if rule.table != "interactions" or rule.action == "warn" or rule.name in NEEDS_BATCH:
            continue
        configured = defaults.get(rule.name)
        if rule.name == TIMES and configured is not None:
            # Its SQL contains the time of this validation, which is in the past for the next post.
            enforced.append(rule.name)
            limits |= _edited_times(rule, configured)
        elif configured is None or (rule.bad, rule.value) != (configured.bad, configured.value):
            if rule.query is None:
                sql.append(_as_sql(rule))
        elif rule.name in CHECKED:
            enforced.append(rule.name)
    content = {
        "made_for": digest(config),
        "enforced": enforced,
        **limits,
        "rating_range": list(config.rating_range),
        "max_text": config.max_text,
        "sql": sql,
        "items_sql": _on_items(rules, now=now, earliest=earliest_published),
    }
    write_json(path, content)


def _on_items(rules: Sequence[Rule], *, now: datetime, earliest: datetime) -> list[dict[str, Any]]:
    """Return the rules on items that users added or changed, in the form of the file."""
    defaults = {default.name: default for default in item_rules(now=now, earliest=earliest)}
    found = []
    for rule in rules:
        if rule.table != "items" or rule.action == "warn" or rule.query is not None:
            continue
        configured = defaults.get(rule.name)
        if rule.name == PUBLISHED and configured is not None:
            # The request schema has the default limits. As for TIMES, an unchanged upper limit
            # depends on the time of this validation.
            usual = configured.check.arguments | {"min_value": ValidateConfig().earliest_published}
            limits = {k: v for k, v in rule.check.arguments.items() if v != usual.get(k)}
            low, high = limits.get("min_value"), limits.get("max_value")
            if low is not None or high is not None:
                found.append(_as_sql(replace(rule, check=within(c.PUBLISHED_AT, low, high))))
        elif configured is None or (rule.bad, rule.value) != (configured.bad, configured.value):
            found.append(_as_sql(rule))
    return found


def digest(config: ValidateConfig) -> str:
    """Return a hash of the settings that rules on single events depend on."""
    of_batches = {"failure_budget", "unknown_items", "unknown_users", "max_age_days"}
    return hashlib.sha256(config.model_dump_json(exclude=of_batches).encode()).hexdigest()[:16]


def _edited_times(rule: Rule, configured: Rule) -> dict[str, int]:
    """Return the limits of event times that a user changed: `earliest`, `latest` (microseconds)."""
    found = {}
    for key, name in (("min_value", "earliest"), ("max_value", "latest")):
        limit = rule.check.arguments.get(key)
        if limit is not None and limit != configured.check.arguments.get(key):
            moment = datetime.fromisoformat(limit) if isinstance(limit, str) else limit
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            found[name] = round(moment.timestamp() * 1e6)
    return found


def _as_sql(rule: Rule) -> dict[str, Any]:
    """Return a rule in the form of the file: the SQL condition of its bad rows, and its reason."""
    return {
        "name": rule.name,
        "column": None if rule.value is None else rule.check.column,
        "value": rule.value,
        "bad": rule.bad,
        "reason": rule.reason,
    }
