"""Expectations that users added to the suites of Great Expectations: names, actions and rules."""

from collections.abc import Mapping
from itertools import chain, count
from typing import Any

from shortlist.config import ConfigError
from shortlist.validation import Rule
from shortlist.validation.checks import Check
from shortlist.validation.sorting import NUMBER

MARK = "shortlist"
"""Key in the `meta` of expectations that were generated from rules and figures."""
SEVERITY = {"warn": "info", "quarantine": "warning", "stop": "critical"}
"""Action -> severity in Great Expectations."""


def user_expectations(suite: Any) -> list[Any]:
    """Return the expectations of a suite that users added."""
    return [
        expectation for expectation in suite.expectations if MARK not in (expectation.meta or {})
    ]


def names_of(suites: Mapping[str, Any], taken: set[str]) -> dict[str, str]:
    """Return {id: name} of the users' expectations.

    Names are unique within a suite, so that counts by name belong to one expectation.

    Args:
        suites: {name of a table or "batch": its suite}.
        taken: names of rules and figures; no user's expectation gets one of them.
    """
    names = {}
    for suite in suites.values():
        seen = set(taken)
        for expectation in user_expectations(suite):
            first = name_of(expectation)
            others = (f"{first} ({number})" for number in count(2))
            names[expectation.id] = next(
                name for name in chain([first], others) if name not in seen
            )
            seen.add(names[expectation.id])
    return names


def user_rules(suites: Mapping[str, Any], names: Mapping[str, str]) -> list[Rule]:
    """Convert the users' expectations that quarantine rows to rules.

    Raises:
        ConfigError: such an expectation is not an UnexpectedRowsExpectation on a table.
    """
    rules = []
    for suite, stored in suites.items():
        for index, expectation in enumerate(user_expectations(stored)):
            if action_of(expectation) != "quarantine":
                continue
            query, name = getattr(expectation, "unexpected_rows_query", None), names[expectation.id]
            if query is None or suite not in NUMBER:
                raise ConfigError(
                    f"great_expectations, suite '{suite}': '{name}' has the severity 'quarantine',"
                    " which only an UnexpectedRowsExpectation on a table can have; want 'warn' or"
                    " 'stop', or a query on a table"
                )
            key, rows = NUMBER[suite], f"own_{suite}_{index}"
            check = Check(key, f"{key} IN (SELECT {key} FROM {rows})", expectation.expectation_type)
            query = f"SELECT DISTINCT {key} FROM ({_filled(query, suite, name)}) found"
            made = f"CREATE OR REPLACE TEMP TABLE {rows} AS {query}"
            rules.append(Rule(suite, name, check, name, query=made))
    return rules


def _filled(query: str, suite: str, name: str) -> str:
    """Replace `{batch}` in a query by the table's prepared rows, as Great Expectations does."""
    try:
        return query.format(batch=f"{suite}_rows")
    except (LookupError, ValueError):
        raise ConfigError(
            f"great_expectations, suite '{suite}': '{name}': the query has a brace that belongs to"
            " no {batch}; want it doubled, as in '^x{{2}}$'"
        ) from None


def action_of(expectation: Any) -> str:
    """Return the action that follows if a user's expectation is not met.

    `severity` in the expectation's `meta` gives it. If `meta` has none, the severity in Great
    Expectations decides: "stop" for `critical`, "warn" for the others.

    Raises:
        ConfigError: `meta` has an unknown severity.
    """
    asked = (expectation.meta or {}).get("severity")
    if asked is None:
        return "stop" if expectation.severity == "critical" else "warn"
    if asked not in SEVERITY:
        raise ConfigError(
            f"great_expectations: '{name_of(expectation)}': severity '{asked}' in meta, want one of"
            f" {', '.join(SEVERITY)}"
        )
    return asked


def name_of(expectation: Any) -> str:
    """Return the name of a user's expectation for messages and for the quarantine."""
    if expectation.description:
        return expectation.description
    expectation_type = getattr(expectation, "expectation_type", None) or expectation.type
    kwargs = getattr(expectation, "kwargs", None) or expectation.configuration.kwargs
    return f"{expectation_type} ({kwargs.get('column') or str(expectation.id)[:8]})"
