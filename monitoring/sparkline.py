"""Small SVG charts of a figure by day, with its limit and the days of new releases marked."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, PAD = 240, 44, 4


def sparkline(
    days: Sequence[int],
    values: Sequence[float],
    *,
    limit: float | None = None,
    releases: Sequence[int] = (),
    label: str,
) -> str:
    """Return an inline SVG; days without a value leave a gap.

    Args:
        days: day numbers, ascending.
        limit: drawn as a dashed line, if it lies near the values.
        releases: day numbers on which another release began to serve, drawn as vertical lines.
    """
    known = [(d, v) for d, v in zip(days, values, strict=True) if math.isfinite(v)]
    if not known:
        return '<span class="none">no data</span>'
    low, high = min(v for _, v in known), max(v for _, v in known)
    if limit is not None and math.isfinite(limit):
        reach = max(high - low, abs(high) * 0.2, 1e-9)
        if low - 2 * reach <= limit <= high + 2 * reach:
            low, high = min(low, limit), max(high, limit)
        else:
            limit = None
    span = max(high - low, 1e-9)
    first, width = days[0], max(days[-1] - days[0], 1)

    def x(day: float) -> float:
        return PAD + (day - first) / width * (WIDTH - 2 * PAD)

    def y(value: float) -> float:
        return HEIGHT - PAD - (value - low) / span * (HEIGHT - 2 * PAD)

    parts = [
        f'<line class="release" x1="{x(day):.1f}" x2="{x(day):.1f}" y1="0" y2="{HEIGHT}"/>'
        for day in releases
        if days[0] <= day <= days[-1]
    ]
    if limit is not None and math.isfinite(limit):
        at = f'{y(limit):.1f}"'
        parts.append(f'<line class="limit" x1="0" x2="{WIDTH}" y1="{at} y2="{at}/>')
    points = " ".join(f"{x(d):.1f},{y(v):.1f}" for d, v in known)
    parts.append(f'<polyline points="{points}"/>')
    last_day, last = known[-1]
    parts.append(f'<circle cx="{x(last_day):.1f}" cy="{y(last):.1f}" r="2.5"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{''.join(parts)}</svg>"
    )
