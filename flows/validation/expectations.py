"""Expectations of rules and figures, what a user has changed of them, and what became of them."""

from typing import Any

from flows.validation.findings import Judged
from shortlist.config import ConfigError
from shortlist.validation import Rule
from shortlist.validation.config import RuleChange
from shortlist.validation.figures import BatchFigure

MARK = "shortlist"
"""Key in the `meta` of the expectations that rules and figures yield."""
SEVERITY = {"warn": "info", "quarantine": "warning", "stop": "critical"}
"""What an action is called in Great Expectations."""
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


def judged(verdict: Any) -> Judged:
    config, result = verdict.expectation_config, verdict.result or {}
    mark = (config.meta or {}).get(MARK)
    rows = result.get("unexpected_count") if "element_count" in result else None
    if config.type == "unexpected_rows_expectation":
        rows = result.get("observed_value")
    return Judged(
        name=mark["rule"] if mark else name_of(config),
        action=ACTION[config.severity] if mark else action_of(config),
        success=verdict.success,
        unexpected=None if rows is None else int(rows),
        observed=result.get("observed_value"),
        problem="" if verdict.success else _exceptions(verdict),
    )


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
