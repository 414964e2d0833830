"""Converts rules and batch figures to expectations of Great Expectations, and reads them back.

Users may edit the stored expectations. This module finds their changes and converts the results.
"""

from collections.abc import Mapping
from math import isclose
from typing import Any

from flows.validation.findings import ExpectationResult
from flows.validation.user_expectations import MARK, SEVERITY, action_of, name_of
from shortlist.validation import Rule
from shortlist.validation.checks import BETWEEN, IN_SET, plain
from shortlist.validation.checks import LIMITS as CHECKED
from shortlist.validation.figures import BatchFigure

LIMITS = {*CHECKED[BETWEEN], *CHECKED[IN_SET]}
"""Fields of an expectation that hold its limits, such as `min_value`."""
ACTION = {severity: action for action, severity in SEVERITY.items()}


def edits(expectation: Any) -> dict[str, Any]:
    """Return {field: value} of the fields of a generated expectation that a user has changed.

    The expectation's `meta` holds the generated values for comparison.
    """
    mark = (expectation.meta or {}).get(MARK, {})
    values = {field: plain(getattr(expectation, field)) for field in mark if field != "rule"}
    return {field: value for field, value in values.items() if value != mark[field]}


def change_of(expectation: Any) -> dict[str, Any]:
    """Return a user's changes of severity and `mostly` as the fields of a `RuleChange`."""
    changed = edits(expectation)
    change: dict[str, Any] = {}
    if "mostly" in changed:
        change["budget"] = round(1 - changed["mostly"], 12)
    if "severity" in changed:
        change["action"] = ACTION[changed["severity"]]
    return change


def limits_of(expectation: Any) -> dict[str, Any]:
    """Return {limit: value} of the limits that a user has changed."""
    return {field: value for field, value in edits(expectation).items() if field in LIMITS}


def renewed(new: Any, old: Any) -> list[str]:
    """Transfer id, notes and user's changes from the last run's expectation to a new one.

    Args:
        new: the newly generated expectation; changed in place.
        old: the expectation of the same rule or figure from the last run.

    Returns:
        Fields that a user has changed and whose value the new expectation doesn't have.
    """
    changed, mark = edits(old), old.meta[MARK]
    lost = [field for field, value in changed.items() if not _same(getattr(new, field), value)]
    new.id, new.notes = old.id, old.notes
    # Keep the generated values of changed fields, so that the next run still recognises the change.
    kept = {field: mark[field] for field in changed if field not in lost}
    new.meta = {**old.meta, MARK: new.meta[MARK] | kept}
    return lost


def _same(new: Any, old: Any) -> bool:
    new = plain(new)
    numbers = isinstance(new, float) and isinstance(old, float)
    return new == old or (numbers and isclose(new, old, abs_tol=1e-9))


def of_rule(rule: Rule) -> Any:
    """Return the expectation of a rule."""
    severity = SEVERITY[rule.action]
    mostly = 1.0 if rule.budget is None else round(1 - rule.budget, 12)
    mark = {"rule": rule.name, "severity": severity, "mostly": mostly} | rule.check.limits
    arguments = {limit: plain(value) for limit, value in rule.check.arguments.items()}
    return _vocabulary(rule.check.expectation)(
        column=rule.check.column,
        mostly=mostly,
        severity=severity,
        description=f"{rule.name}: {rule.reason}",
        meta={MARK: mark | {"column": rule.check.column, "row_condition": None}},
        **arguments,
    )


def is_judged(figure: BatchFigure) -> bool:
    """Return whether a figure has a value and at least one limit."""
    return figure.value is not None and (figure.min is not None or figure.max is not None)


def of_figure(figure: BatchFigure) -> Any:
    """Return the expectation that a batch figure, such as the row count, is within its limits."""
    severity = SEVERITY[figure.action]
    limits = {"min_value": figure.min, "max_value": figure.max}
    mark = {"rule": figure.name, "severity": severity, "column": figure.name}
    mark |= {"row_condition": None, "strict_min": False, "strict_max": False}
    return _vocabulary("ExpectColumnMaxToBeBetween")(
        column=figure.name,
        severity=severity,
        description=f"{figure.name}: {figure.says}",
        meta={MARK: mark | limits},
        **limits,
    )


def judged(verdict: Any, names: Mapping[str, str]) -> ExpectationResult:
    """Convert the result of one expectation.

    Args:
        verdict: the result object of Great Expectations.
        names: {id: name} of the users' expectations; others are named by `name_of`.
    """
    config, result = verdict.expectation_config, verdict.result or {}
    mark = (config.meta or {}).get(MARK)
    rows = result.get("unexpected_count") if "element_count" in result else None
    if config.type == "unexpected_rows_expectation":
        rows = result.get("observed_value")
    return ExpectationResult(
        name=mark["rule"] if mark else names.get(config.id) or name_of(config),
        action=ACTION[config.severity] if mark else action_of(config),
        success=verdict.success,
        unexpected=None if rows is None else int(rows),
        rows=result.get("element_count"),
        observed=result.get("observed_value"),
        problem="" if verdict.success else _exceptions(verdict),
    )


def _exceptions(verdict: Any) -> str:
    """Return the error messages of an expectation that could not be evaluated; empty without any.

    Great Expectations gives one error, or a dict with an error per metric.
    """
    info = verdict.exception_info or {}
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("exception_message")}
    return "; ".join(sorted(messages))


def _vocabulary(name: str) -> Any:
    """Return an expectation class by its name.

    Great Expectations is imported here and not at the top, because its import takes ten seconds.
    """
    from great_expectations import expectations

    return getattr(expectations, name)
