"""Judges a comparison: which features differ and which views were stale."""

from dataclasses import dataclass
from typing import Any

from flows.skew.compare import Comparison
from flows.skew.states import SECONDS_PER_DAY


@dataclass(frozen=True)
class Limits:
    """Limits of the skew check; larger values are reported as skew."""

    different: float = 0.0
    """Share of vectors in which a feature may differ."""
    stale: float = 0.01
    """Share of requests in which a view may be behind the lake."""
    days_behind: float = 1.0
    """Days that item and context states may be behind the newest tick.

    A tick is a time at which these states change. 1 suits a nightly refresh.
    """


class SkewFailed(RuntimeError):
    """Served features differ from the lake or views were stale; the message names them."""

    def __init__(self, report: dict[str, Any], *, where: str):
        self.report = report
        parts = []
        if report["features"]:
            parts.append(f"features that differ from the lake: {', '.join(report['features'])}")
        if report["views"]:
            parts.append(f"views that were stale: {', '.join(report['views'])}")
        super().__init__(f"{'; '.join(parts)}; {where} says by how much")


def judge(found: Comparison, limits: Limits) -> dict[str, Any]:
    """Return the report with `passed`, the failed `features` and `views`, and a reason for each."""
    report = found.report(days_allowed=limits.days_behind)
    reasons = []
    features = [
        name for name, share in report["different_share"].items() if share > limits.different
    ]
    for name in features:
        worst = report["worst"][name]
        reasons.append(
            f"feature {name} differs in {report['different_share'][name]:.1%} of the vectors (at"
            f" most {limits.different:.1%}): served {worst['served']:.6g}, recomputed"
            f" {worst['recomputed']:.6g} in request {worst['request_id']}"
        )
    views = []
    for view, lag in report["staleness"].items():
        said = []
        if lag["share"] > limits.stale:
            said.append(_stale(view, lag, limits))
        if lag["unreachable"] > limits.stale * max(report["requests"], 1):
            said.append(
                f"view {view} says as_of of {lag['unreachable']:,} requests that no state in the"
                " lake has; is every posted event in the inbox or the lake?"
            )
        if said:
            views.append(view)
            reasons += said
    return report | {
        "features": features,
        "views": views,
        "reasons": reasons,
        "passed": not reasons,
    }


def _stale(view: str, lag: dict[str, Any], limits: Limits) -> str:
    share = f"is stale in {lag['share']:.1%} of the requests (at most {limits.stale:.1%})"
    if not lag["by_tick"]:
        return (
            f"view {view} {share}: up to {lag['max_seconds']:,.0f} s behind the lake; does the"
            " service read this home's posted events, and was `shortlist refresh` run?"
        )
    named = "item_state (the feature pack)" if view == "item_state" else view
    days = lag["max_seconds"] / SECONDS_PER_DAY
    return (
        f"view {named} {share}: up to {days:.0f} days behind the newest tick (at most"
        f" {limits.days_behind:g}); run `shortlist refresh` at least that often"
    )
