"""Expectations that users have added to the suites: their names, and rules of their queries."""

from collections.abc import Mapping
from itertools import chain, count
from typing import Any

from shortlist.config import ConfigError
from shortlist.validation import Rule
from shortlist.validation.checks import Check
from shortlist.validation.sorting import NUMBER

MARK = "shortlist"
"""Key in the `meta` of the expectations that rules and figures yield."""
SEVERITY = {"warn": "info", "quarantine": "warning", "stop": "critical"}
"""What an action is called in Great Expectations."""


def own(suite: Any) -> list[Any]:
    """The expectations of a suite that users have added."""
    return [one for one in suite.expectations if MARK not in (one.meta or {})]


def names_of(suites: Mapping[str, Any], taken: set[str]) -> dict[str, str]:
    """{id: name} of users' own expectations: each name once in its suite, so that counts by name
    are counts of one expectation.

    Args:
        taken: names of rules and figures.
    """
    names = {}
    for suite in suites.values():
        seen = set(taken)
        for one in own(suite):
            first = name_of(one)
            others = (f"{first} ({place})" for place in count(2))
            names[one.id] = next(name for name in chain([first], others) if name not in seen)
            seen.add(names[one.id])
    return names


def own_rules(suites: Mapping[str, Any], names: Mapping[str, str]) -> list[Rule]:
    """Rules of the expectations by which users quarantine rows.

    Raises:
        ConfigError: an expectation is to quarantine rows but has no query that gives rows.
    """
    rules = []
    for suite, stored in suites.items():
        for place, one in enumerate(own(stored)):
            if action_of(one) != "quarantine":
                continue
            query, name = getattr(one, "unexpected_rows_query", None), names[one.id]
            if query is None or suite not in NUMBER:
                raise ConfigError(
                    f"great_expectations, suite '{suite}': '{name}' has the severity 'quarantine',"
                    " which only an UnexpectedRowsExpectation on a table can have; want 'warn' or"
                    " 'stop', or a query on a table"
                )
            key, rows = NUMBER[suite], f"own_{suite}_{place}"
            check = Check(key, f"{key} IN (SELECT {key} FROM {rows})", one.expectation_type)
            query = f"SELECT DISTINCT {key} FROM ({_filled(query, suite, name)}) found"
            made = f"CREATE OR REPLACE TEMP TABLE {rows} AS {query}"
            rules.append(Rule(suite, name, check, name, query=made))
    return rules


def _filled(query: str, suite: str, name: str) -> str:
    """The query with the prepared relation in place of `{batch}`, by Great Expectations' rules."""
    try:
        return query.format(batch=f"{suite}_rows")
    except (LookupError, ValueError):
        raise ConfigError(
            f"great_expectations, suite '{suite}': '{name}': the query has a brace that belongs to"
            " no {batch}; want it doubled, as in '^x{{2}}$'"
        ) from None


def action_of(own: Any) -> str:
    """What is to happen if a user's own expectation is not met: `severity` in its `meta`, else
    Great Expectations' own severity, where `critical` stops and the others warn.
    """
    asked = (own.meta or {}).get("severity")
    if asked is None:
        return "stop" if own.severity == "critical" else "warn"
    if asked not in SEVERITY:
        raise ConfigError(
            f"great_expectations: '{name_of(own)}': severity '{asked}' in meta, want one of"
            f" {', '.join(SEVERITY)}"
        )
    return asked


def name_of(own: Any) -> str:
    """What a user's own expectation is called in messages and in the quarantine."""
    if own.description:
        return own.description
    kind = getattr(own, "expectation_type", None) or own.type
    kwargs = getattr(own, "kwargs", None) or own.configuration.kwargs
    return f"{kind} ({kwargs.get('column') or str(own.id)[:8]})"
