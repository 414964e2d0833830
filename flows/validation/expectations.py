"""Expectations of rules and figures, what a user has changed of them, and what became of them."""

from collections.abc import Mapping
from typing import Any

from flows.validation.findings import Judged
from flows.validation.own import MARK, SEVERITY, action_of, name_of
from shortlist.validation import Rule
from shortlist.validation.config import RuleChange
from shortlist.validation.figures import BatchFigure

ACTION = {severity: action for action, severity in SEVERITY.items()}


def edits(one: Any) -> dict[str, Any]:
    """{field: value} of what a user has changed of an expectation of ours; its mark has what was
    generated.
    """
    mark = (one.meta or {}).get(MARK, {})
    fields = [field for field in mark if field != "rule"]
    return {field: getattr(one, field) for field in fields if getattr(one, field) != mark[field]}


def change_of(one: Any) -> RuleChange | None:
    """What a user has changed: the severity, `mostly` (as a budget), and limits of figures."""
    changed = edits(one)
    change: dict[str, Any] = {}
    if "mostly" in changed:
        change["budget"] = round(1 - changed["mostly"], 12)
    if "severity" in changed:
        change["action"] = ACTION[changed["severity"]]
    limits = changed.keys() & {"min_value", "max_value"}
    change |= {limit.removesuffix("_value"): changed[limit] for limit in limits}
    return RuleChange.model_validate(change) if change else None


def of_rule(rule: Rule) -> Any:
    """The expectation of a rule."""
    severity = SEVERITY[rule.action]
    mostly = 1.0 if rule.budget is None else round(1 - rule.budget, 12)
    mark = {"rule": rule.name, "severity": severity, "mostly": mostly}
    return _vocabulary(rule.check.expectation)(
        column=rule.check.column,
        mostly=mostly,
        severity=severity,
        description=f"{rule.name}: {rule.reason}",
        meta={MARK: mark},
        **rule.check.arguments,
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
    return _vocabulary("ExpectColumnMaxToBeBetween")(
        column=figure.name,
        severity=severity,
        description=f"{figure.name}: {figure.says}",
        meta={MARK: {"rule": figure.name, "severity": severity} | limits},
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
