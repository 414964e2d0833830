"""Counts the rows of guessed tables that validation would refuse, for `shortlist init`.

Validation refuses a whole batch if more than a budget of its rows are bad. This module adjusts the
run's settings so that the batch is still accepted, or asks if many rows would be refused.
"""

import math
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES
from shortlist.datasets.config import DataConfig, FilesConfig
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.mapping import items_sql, users_sql
from shortlist.datasets.guess.sample import Guess, Sample
from shortlist.datasets.staging import staged_events_sql
from shortlist.lake.engine import quoted
from shortlist.validation import Rule, ValidateConfig, rules_for
from shortlist.validation.dry_run import RefusalForecast, would_refuse

MANY = 1 / 3
"""If a larger share of a table's rows is refused, the mapping may be wrong, and `init` asks. Times
of 0 are missing values, which say nothing about the mapping: they count only if fewer than this
share of the rows are good.
"""


def avoid_refusals(
    samples: dict[str, Sample],
    tables: dict[str, Guess],
    run: dict[str, Any],
    toml: Callable[[], str],
    *,
    trust_times: bool,
) -> None:
    """Count the rows that validation will refuse, and change `run` so that they fit the budgets.

    A mapped column whose type can't be read adds a question to its table's guess. If more rows
    break rules than the budget allows, the budget is raised. Each change adds a note to the table's
    guess. Also sets `can_hold_back` in `run`: whether a demo can hold back its newest target
    events.

    Args:
        samples: {table: sample of its rows}.
        tables: {table: its guessed columns and options}.
        run: the other settings, changed in place.
        toml: function that returns the run's TOML for the current content of `run`.
        trust_times: whether the user specified the unit of times; then old times are accepted.
    """
    for table in tables:
        try:
            _judge(table, samples, tables, run, toml, trust_times=trust_times)
        except DatasetError as error:
            tables[table].questions.append(str(error))


def _judge(
    table: str,
    samples: dict[str, Sample],
    tables: dict[str, Guess],
    run: dict[str, Any],
    toml: Callable[[], str],
    *,
    trust_times: bool,
) -> None:
    """Count the refused rows of one table; see `avoid_refusals`.

    Raises:
        DatasetError: a mapped column has an unsuitable type.
    """
    if table != "interactions":
        found, rules = _count(samples, table, toml())
        _say(samples[table], table, tables[table], found, rules, run)
        return
    types = ", ".join(quoted(event_type) for event_type in run["target_events"])
    targets = f"FILTER (NOT bad AND event_type IN ({types}))"
    figures = (
        f"min({c.EVENT_TIMESTAMP})",
        f"min({c.EVENT_TIMESTAMP}) {targets}",
        f"quantile_disc({c.EVENT_TIMESTAMP}, 0.95) {targets}",
    )
    found, rules = _count(samples, "interactions", toml(), figures)
    limits, oldest = ValidateConfig(), found.figures[0]
    if trust_times and oldest is not None and oldest < limits.earliest:
        run["earliest"] = oldest.year
        found, rules = _count(samples, "interactions", toml(), figures)
    _say(samples["interactions"], "interactions", tables["interactions"], found, rules, run)
    _, first, cut = found.figures
    run["can_hold_back"] = first is not None and cut > first


def _say(
    sample: Sample,
    table: str,
    guess: Guess,
    found: RefusalForecast,
    rules: dict[str, str],
    run: dict[str, Any],
) -> None:
    """Add a note for each rule that sends rows to quarantine.

    If these rows exceed the failure budget, the budget is raised in `run`. If they are more than
    MANY of the table, a question is added instead: whether the mapping is right.
    """
    budget = ValidateConfig().failure_budget
    rows, bad = found.rows + sample.rejected, found.bad + sample.rejected
    share = bad / max(rows, 1)
    worst = sorted(found.broken, key=lambda rule: -found.broken[rule])
    likes = table == "interactions" and run["like_threshold"] is not None
    reasons = [
        f"{_rows(found.broken[rule], found.rows, likes=likes)} of {table} go to quarantine: {rule}:"
        f" {rules[rule]}"
        for rule in worst
    ]
    needed = math.ceil(share * 110) / 100
    key = "failure_budget" if table == "interactions" else f'rules."{table}.bad_share"'
    without_time = found.broken.get("event_timestamp.epoch_zero", 0)
    suspicious = share if share > 1 - MANY else (bad - without_time) / max(rows, 1)
    if suspicious > MANY and worst:
        guess.questions.append(
            f"{sample.name}: {reasons[0]}; is the mapping right?{_hint(sample, guess, worst[0])} If"
            f" these rows are really bad, set {key} to {min(needed, 1):g} under [validation]"
        )
        return
    guess.notes += reasons
    if share > budget:
        run["budgets"][table] = needed
        guess.notes.append(
            f"GUESS: {_rows(bad, rows, likes=likes)} of {table} are bad, validation's budget is"
            f" {budget:.0%}: {key} is set to {run['budgets'][table]:g}, so that the good rows are"
            " accepted"
        )


def _hint(sample: Sample, guess: Guess, rule: str) -> str:
    """Return advice about the column whose values break a rule; "" if there is none."""
    key = rule.partition(".")[0]
    if key == c.EVENT_TYPE and guess.words:
        known = {*EVENT_TYPES, *guess.more.get("event_types", {})}
        unknown = [word for word in guess.words if word not in known]
        return f" `event_types` may map its words {', '.join(unknown[:5])}."
    if key not in (c.USER_ID, c.ITEM_ID, c.EVENT_TIMESTAMP):
        return ""
    others = sample.alternatives(key, guess.mapping[key])
    return "".join(f" '{one}' has fewer empty cells: --column {key}={one}." for one in others)


def _rows(count: int, rows: int, *, likes: bool) -> str:
    """Return a count of rows as text.

    Args:
        likes: whether ingest makes a `like` of each liked rating. Validation counts such likes too.
    """
    also = "; a liked rating counts twice, also as a like" if likes else ""
    return f"{count:,} of {rows:,} rows ({count / max(rows, 1):.1%}{also})"


def _count(
    samples: dict[str, Sample], table: str, toml: str, figures: tuple[str, ...] = ()
) -> tuple[RefusalForecast, dict[str, str]]:
    """Return the refused rows of a table, and {rule: reason} of all rules.

    Args:
        toml: the run's TOML.
        figures: SQL aggregates to compute over the table as well.
    """
    rules, query = _rules(toml), _staged(samples[table], table, toml)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = would_refuse(connection, table, query, rules, figures=figures)
    return found, {rule.name: rule.reason for rule in rules}


def _rules(toml: str) -> list[Rule]:
    content = tomllib.loads(toml)
    config = ValidateConfig.model_validate(content.get("validation", {}))
    return rules_for(
        config,
        now=datetime.now(UTC),
        earliest=config.earliest,
        earliest_published=config.earliest_published,
    )


def _staged(sample: Sample, table: str, toml: str) -> str:
    """Return an SQL query of a table's rows, as `shortlist ingest` will stage them."""
    config = DataConfig.model_validate(tomllib.loads(toml)["data"])
    files: FilesConfig | None = config.files
    assert files is not None
    now, where = time.time_ns() // 1_000, f"{sample.name}: {table}"
    if table == "items":
        assert files.items is not None
        return _as_staged(items_sql(sample.raw, files.items, where=where))
    if table == "users":
        assert files.users is not None
        return _as_staged(users_sql(sample.raw, files.users, where=where))
    return staged_events_sql(
        sample.raw, files.interactions[0], config, source="", where=sample.name, now=now
    )


def _as_staged(query: str) -> str:
    return f"SELECT * EXCLUDE (original) FROM ({query})"
