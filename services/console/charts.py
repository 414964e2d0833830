"""Small SVG charts, and the formats of figures in the console's templates."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape

WIDTH, HEIGHT, PAD = 240, 44, 3


def bars(values: Sequence[float], *, label: str) -> Markup:
    """Return a bar chart; values below 0 or not finite count as 0.

    Args:
        label: text for screen readers and the tooltip.
    """
    known = [v if math.isfinite(v) and v > 0 else 0.0 for v in values]
    top, width = max(known, default=0.0) or 1.0, WIDTH / max(len(known), 1)
    shapes = "".join(
        f'<rect x="{place * width:.1f}" y="{HEIGHT - value / top * (HEIGHT - PAD):.1f}"'
        f' width="{max(width - 1, 0.5):.1f}" height="{value / top * (HEIGHT - PAD):.1f}"/>'
        for place, value in enumerate(known)
    )
    return _svg(shapes, label)


def line(values: Sequence[float], *, label: str) -> Markup:
    """Return a line chart from 0 to the largest value; values that aren't finite are left out."""
    known = [(place, v) for place, v in enumerate(values) if math.isfinite(v)]
    if not known:
        return Markup('<span class="soft">no data</span>')
    top = max(v for _, v in known) or 1.0
    step = (WIDTH - 2 * PAD) / max(len(values) - 1, 1)
    points = [
        (PAD + place * step, HEIGHT - PAD - v / top * (HEIGHT - 2 * PAD)) for place, v in known
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return _svg(f'<polyline points="{path}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>', label)


def _svg(shapes: str, label: str) -> Markup:
    text = escape(label)
    return Markup(  # nosec B704: numbers, and an escaped label
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text}"'
        f' preserveAspectRatio="none"><title>{text}</title>{shapes}</svg>'
    )


def moment(microseconds: int | None) -> str:
    """Format a time in microseconds as UTC; "–" if it is 0 or None."""
    if not microseconds:
        return "–"
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def age(microseconds: float | None) -> str:
    """Format a duration in its largest unit; "–" if it is None."""
    if microseconds is None:
        return "–"
    seconds = max(0.0, microseconds / 1e6)
    for name, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


def number(value: float | None, digits: int = 3) -> str:
    """Format a figure with thousands separators; "–" if it has no value."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"


def signed(value: float) -> str:
    return f"{value:+.3f}"


def percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"


def wall(text: str | None) -> str:
    """Shorten an ISO time to seconds, in UTC; "–" if it is None."""
    if not text:
        return "–"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values don't exceed; NaN without values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
