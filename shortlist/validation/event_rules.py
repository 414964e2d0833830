"""Writes the validation rules that a single event can break, for use by the service.

Validation writes them to `<home>/event_rules.json`, including the changes that users made in the
run's TOML and in the suites of Great Expectations. The service reads the file, and refuses a posted
event that the next refresh would quarantine.

Missing and invalid ids, unknown event types and implausible times are not among these rules. The
request schema (`shortlist.api.Event`) always refuses them.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.plain_json import write_json
from shortlist.validation.config import ValidateConfig
from shortlist.validation.interaction_rules import interaction_rules
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
"""Rules for which the service has Python code (services/event_limits.py). It takes their limits
from the run's TOML. Rules that users changed in other ways are checked with SQL.
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


def write_event_rules(
    path: Path, rules: Sequence[Rule], config: ValidateConfig, *, now: datetime, earliest: datetime
) -> None:
    """Write the rules that a single event can break.

    Args:
        rules: all rules on rows, with all changes by users.
        now, earliest: arguments of `rules_for` with which `rules` were made.
    """
    own = {one.name: one for one in interaction_rules(config, now=now, earliest=earliest)}
    enforced, sql = [], []
    limits: dict[str, Any] = {"earliest": config.earliest_microseconds, "latest": None}
    for rule in rules:
        if rule.table != "interactions" or rule.action == "warn" or rule.name in NEEDS_BATCH:
            continue
        configured = own.get(rule.name)
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
    }
    write_json(path, content)


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
