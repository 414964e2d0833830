"""Writes the figures and guardrails as Prometheus metrics, in the text format.

`<home>/reports/metrics.prom` is for node_exporter's textfile collector, or any scraper of files.
configs/alerts.yml has the alert rules.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monitoring.traffic.estimate import Estimate

LEVELS = {"pass": 0, "waiting": 1, "missing": 2, "alarm": 3}


def metrics_text(
    figures: Mapping[str, Estimate | float], results: Sequence[Mapping[str, Any]], *, at: int
) -> str:
    """Return the metrics; figures without a value are left out.

    Args:
        figures: name -> estimate or value.
        results: results of the board, as JSON.
        at: seconds since 1970, wall time of the check.
    """
    lines = [
        "# HELP shortlist_figure Figure of live traffic, see docs/reference/figures.md.",
        "# TYPE shortlist_figure gauge",
    ]
    errors = [
        "# HELP shortlist_figure_error Standard error of the figure, over users.",
        "# TYPE shortlist_figure_error gauge",
    ]
    for name, figure in figures.items():
        estimate = figure if isinstance(figure, Estimate) else Estimate(float(figure))
        label = f'{{figure="{_escaped(name)}"}}'
        if math.isfinite(estimate.value):
            lines.append(f"shortlist_figure{label} {estimate.value:.10g}")
        if math.isfinite(estimate.error):
            errors.append(f"shortlist_figure_error{label} {estimate.error:.10g}")
    lines += errors
    lines += [
        "# HELP shortlist_guardrail_level 0 pass, 1 waiting for data, 2 figure missing, 3 alarm.",
        "# TYPE shortlist_guardrail_level gauge",
    ]
    lines += [
        f'shortlist_guardrail_level{{guardrail="{_escaped(result["name"])}",'
        f'action="{result["action"]}"}} {LEVELS[result["level"]]}'
        for result in results
    ]
    lines += [
        "# HELP shortlist_checked_timestamp_seconds Time of the last check of the board.",
        "# TYPE shortlist_checked_timestamp_seconds gauge",
        f"shortlist_checked_timestamp_seconds {at}",
    ]
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, text: str) -> None:
    """Write the file by an atomic replace, as the textfile collector needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
