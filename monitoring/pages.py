"""The index page of the Evidently reports: one HTML file with figures, failed tests and links."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from monitoring.document import document
from monitoring.figures import DRIFT_THRESHOLD

STYLE = """
:root { --ink: #1d2733; --soft: #5b6774; --line: #dfe4ea; --ground: #f6f7f9;
        --pass: #1b7f4b; --warn: #a86400; --hold: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 6px 0; color: var(--soft); }
section, .card { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 8px 14px; border-bottom: 1px solid var(--line);
         vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { font-size: 12px; text-transform: uppercase; letter-spacing: .04em; color: var(--soft); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
                       white-space: nowrap; }
td small { color: var(--soft); display: block; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 999px; color: #fff;
         font-size: 13px; font-weight: 600; }
.pass { background: var(--pass); } .warn { background: var(--warn); }
.hold { background: var(--hold); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
.card { padding: 14px 16px; text-decoration: none; color: inherit; display: block; }
.card:hover { border-color: var(--ink); }
.card strong { display: block; }
.card span { color: var(--soft); font-size: 14px; }
"""

PLAIN = {
    "requests": "requests",
    "users": "users",
    "satisfaction": "satisfaction (mean grade of shown items)",
    "unknown_user_rate": "requests of unknown users",
    "skipped_stage_rate": "requests with a skipped stage",
    "short_list_rate": "lists with empty positions",
    "event_drift_share": "columns of events that drifted",
    "request_drift_share": "columns of requests that drifted",
    "feature_drift_share": "ranking features that drifted",
    "score_drift": "drift of the scores",
    "source_mix_drift": "drift of the shares of the sources",
}
LOUDEST = 15


def index_page(content: Mapping[str, Any]) -> str:
    """Return the HTML of one monitoring run, from the result of `write_reports`."""
    figures: Mapping[str, Any] = content["figures"]
    plain = {name: f for name, f in figures.items() if "/" not in name}
    parts = {name: f for name, f in figures.items() if "/" in name}
    body = [
        "<h1>Shortlist: data, drift and quality</h1>",
        _about(content["about"]),
        "<h2>Reports</h2>",
        _cards(content["reports"]),
        "<h2>Evidently's tests that failed</h2>",
        _tests(content["tests"]),
        "<h2>Figures</h2>",
        "<p>A replayed hit is a listed item that the user took within 24 h of the request. For the"
        " reference, and for a demo's replay, the users did not see these lists. Quality is the"
        " mean per user, then over users, with a 95% interval.</p>",
        _figures(plain),
        "<h2>By slice and source</h2>",
        _figures(parts),
        "<h2>Columns with the largest drift</h2><p>Distance between the windows: Wasserstein in"
        " standard deviations for numbers, Jensen-Shannon for categories. A column with at least"
        f" {DRIFT_THRESHOLD} counts as drifted.</p>",
        _drifted(content["drifted"]),
        '<p><a href="report.json">report.json</a> holds the same content as JSON.</p>',
    ]
    return document(body, title="Shortlist monitoring: details", style=STYLE)


def _about(about: Mapping[str, Any]) -> str:
    return "<p>" + " · ".join(f"{escape(k)} {escape(str(v))}" for k, v in about.items()) + "</p>"


def _cards(reports: Iterable[Mapping[str, str]]) -> str:
    cards = "".join(
        f'<a class="card" href="{escape(r["file"])}"><strong>{escape(r["title"])}</strong>'
        f"<span>{escape(r['says'])}</span></a>"
        for r in reports
    )
    return f'<div class="cards">{cards}</div>'


def _tests(rows: Iterable[Mapping[str, str]]) -> str:
    """Return a table of the tests that did not pass."""
    failed = [row for row in rows if row["status"] != "SUCCESS"]
    if not failed:
        return "<p>None.</p>"
    return _table(
        ("report", "test", "why"),
        ((escape(row["report"]), escape(row["test"]), escape(row["why"])) for row in failed),
    )


def _figures(figures: Mapping[str, Mapping[str, float | None]]) -> str:
    return _table(
        ("figure", "current", "95% interval", "reference", "change"),
        (
            (
                escape(PLAIN.get(name, name.replace("_", " ").replace("/", ": "))),
                _number(f["current"]),
                "" if f["low"] is None else f"{_number(f['low'])} to {_number(f['high'])}",
                _number(f["reference"]),
                _change(f["current"], f["reference"]),
            )
            for name, f in figures.items()
        ),
        numbers=4,
    )


def _drifted(groups: Mapping[str, Mapping[str, float | None]]) -> str:
    every = [
        (value, group, name)
        for group, columns in groups.items()
        for name, value in columns.items()
        if value is not None
    ]
    every.sort(reverse=True)
    rows = ((escape(name), escape(group), _number(value)) for value, group, name in every[:LOUDEST])
    return _table(("column", "of", "distance"), rows, numbers=1)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, numbers: int = 0) -> str:
    """Return an HTML table.

    Args:
        head: texts of the header.
        rows: cells as escaped HTML.
        numbers: how many of the last columns are aligned as numbers.
    """
    words = len(head) - numbers

    def line(cells: tuple[str, ...], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if column >= words else ''}>{cell}</{tag}>"
            for column, cell in enumerate(cells)
        )

    lines = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<section class="table"><table><tr>{line(head, "th")}</tr>{lines}</table></section>'


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value == int(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def _change(current: float | None, reference: float | None) -> str:
    if current is None or reference is None or reference == 0:
        return "–"
    return f"{current / reference - 1:+.0%}"
