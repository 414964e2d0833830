"""Draws line charts with confidence bands as SVG, one small chart per figure.

It needs no plotting library.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape  # nosec B406

import numpy as np

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
WIDTH, HEIGHT = 330, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 26, 26


class Line:
    """One line of a chart: name, points, and an optional band from `low` to `high`."""

    def __init__(
        self,
        name: str,
        x: Sequence[float] | np.ndarray,
        y: Sequence[float] | np.ndarray,
        *,
        low: Sequence[float] | None = None,
        high: Sequence[float] | None = None,
    ):
        self.name, self.x, self.y = name, np.asarray(x, float), np.asarray(y, float)
        self.low = self.y if low is None else np.asarray(low, float)
        self.high = self.y if high is None else np.asarray(high, float)


def write_charts(
    path: Path,
    charts: Mapping[str, Sequence[Line]],
    *,
    title: str,
    columns: int = 3,
) -> None:
    """Write one SVG file with a chart for each entry of `charts`."""
    names = list(dict.fromkeys(line.name for lines in charts.values() for line in lines))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    rows = -(-len(charts) // columns)
    width, height = columns * WIDTH, rows * HEIGHT + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    x = 10.0
    for name in names:
        parts.append(f'<rect x="{x}" y="28" width="14" height="4" fill="{colour[name]}"/>')
        parts.append(f'<text x="{x + 18}" y="35">{escape(name)}</text>')
        x += 34 + 6.4 * len(name)
    for number, (name, lines) in enumerate(charts.items()):
        left, top = number % columns * WIDTH, 50 + number // columns * HEIGHT
        parts.append(f'<g transform="translate({left},{top})">{_chart(name, lines, colour)}</g>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _chart(name: str, lines: Sequence[Line], colour: Mapping[str, str]) -> str:
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([values for line in lines for values in (line.low, line.high)])
    x0, x1, y0, y1 = xs.min(), xs.max(), ys.min(), ys.max()
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)

    def place(x: np.ndarray, y: np.ndarray) -> str:
        px = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        py = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))

    out = [f'<text x="{LEFT}" y="14" font-weight="bold">{escape(name)}</text>']
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    out.append(f'<path d="M{LEFT},{TOP}V{bottom}H{right}" fill="none" stroke="#888"/>')
    out.append(f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">{y0:.3g}</text>')
    out.append(f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{y1:.3g}</text>')
    out.append(f'<text x="{LEFT}" y="{HEIGHT - 10}">{x0:.3g}</text>')
    out.append(f'<text x="{right}" y="{HEIGHT - 10}" text-anchor="end">{x1:.3g}</text>')
    for line in lines:
        band = place(line.x, line.high) + " " + " ".join(place(line.x, line.low).split()[::-1])
        stroke = colour[line.name]
        out.append(f'<polygon points="{band}" fill="{stroke}" opacity="0.15"/>')
        points = place(line.x, line.y)
        out.append(
            f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="1.5"/>'
        )
    return "".join(out)
