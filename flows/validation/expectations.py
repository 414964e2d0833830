"""Expectations of rules and figures, what a user has changed of them, and what became of them."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from flows.validation.findings import Judged
from flows.validation.own import MARK, SEVERITY, action_of, name_of
from shortlist.validation import Rule
from shortlist.validation.checks import BETWEEN, IN_SET, plain
from shortlist.validation.checks import LIMITS as CHECKED
from shortlist.validation.figures import BatchFigure

LIMITS = {*CHECKED[BETWEEN], *CHECKED[IN_SET]}
"""Fields of an expectation that limit values."""
ACTION = {severity: action for action, severity in SEVERITY.items()}


def edits(one: Any) -> dict[str, Any]:
    """{field: value} of what a user has changed of an expectation of ours; its mark has what was
    generated.
    """
    mark = (one.meta or {}).get(MARK, {})
    values = {field: plain(getattr(one, field)) for field in mark if field != "rule"}
    return {field: value for field, value in values.items() if value != mark[field]}


def change_of(one: Any) -> dict[str, Any]:
    """What a user has changed, as fields of a `RuleChange`: the severity, and `mostly` as a
    budget.
    """
    changed = edits(one)
    change: dict[str, Any] = {}
    if "mostly" in changed:
        change["budget"] = round(1 - changed["mostly"], 12)
    if "severity" in changed:
        change["action"] = ACTION[changed["severity"]]
    return change


def limits_of(one: Any) -> dict[str, Any]:
    """{limit: value} that a user has changed."""
    return {field: value for field, value in edits(one).items() if field in LIMITS}


def renewed(one: Any, old: Any) -> list[str]:
    """Give a generated expectation the id and the texts of the last run's; returns the fields whose
    changed values it doesn't have.
    """
    changed, mark = edits(old), old.meta[MARK]
    lost = [field for field, value in changed.items() if not _same(getattr(one, field), value)]
    one.id, one.notes = old.id, old.notes
    # What was generated is remembered, so that a change is known as one next time too.
    kept = {field: mark[field] for field in changed if field not in lost}
    one.meta = {**old.meta, MARK: one.meta[MARK] | kept}
    return lost


def _same(new: Any, old: Any) -> bool:
    new = plain(new)
    numbers = isinstance(new, float) and isinstance(old, float)
    return new == old or (numbers and isclose(new, old, abs_tol=1e-9))


def of_rule(rule: Rule) -> Any:
    """The expectation of a rule."""
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
    """A figure that is known and has limits."""
    return figure.value is not None and (figure.min is not None or figure.max is not None)


def of_figure(figure: BatchFigure) -> Any:
    """The expectation of a figure of the whole batch: its column has one row, whose value lies
    between the limits.
    """
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


def judged(verdict: Any, names: Mapping[str, str]) -> Judged:
    """What became of an expectation.

    Args:
        names: {id: name} of users' own expectations; others are called as `name_of` says.
    """
    config, result = verdict.expectation_config, verdict.result or {}
    mark = (config.meta or {}).get(MARK)
    rows = result.get("unexpected_count") if "element_count" in result else None
    if config.type == "unexpected_rows_expectation":
        rows = result.get("observed_value")
    return Judged(
        name=mark["rule"] if mark else names.get(config.id) or name_of(config),
        action=ACTION[config.severity] if mark else action_of(config),
        success=verdict.success,
        unexpected=None if rows is None else int(rows),
        rows=result.get("element_count"),
        observed=result.get("observed_value"),
        problem="" if verdict.success else _exceptions(verdict),
    )


def _exceptions(verdict: Any) -> str:
    """Error messages of an expectation that could not be evaluated. GX gives them by metric, or
    directly.
    """
    info = verdict.exception_info or {}
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("exception_message")}
    return "; ".join(sorted(messages))


def _vocabulary(name: str) -> Any:
    """A class of GX's expectations, imported late: it takes ten seconds."""
    from great_expectations import expectations

    return getattr(expectations, name)
