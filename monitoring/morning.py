"""The morning page: is it well, what changed, what was done about it, what needs a person.

One HTML file without scripts and without other files: it stays small, and opens from disk and from
an e-mail. Each alarm links to the requests behind it (a CSV file) and to its runbook entry.
"""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from monitoring.document import document
from monitoring.sparkline import sparkline

STYLE = """
:root { --ink: #1d2733; --soft: #5b6774; --line: #dfe4ea; --ground: #f6f7f9; --good: #1b7f4b;
        --warn: #a86400; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 20px 14px 56px; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 28px 0 8px; }
h3 { font-size: 15px; margin: 0 0 4px; } p { margin: 4px 0; } a { color: #0b57a4; }
small, .soft { color: var(--soft); } code { overflow-wrap: anywhere; }
.state { color: #fff; border-radius: 10px; padding: 12px 16px; margin: 12px 0; font-size: 17px; }
.pass { background: var(--good); } .warn { background: var(--warn); }
.hold { background: var(--bad); }
.card { background: #fff; border: 1px solid var(--line); border-left-width: 5px;
        border-radius: 8px; padding: 10px 14px; margin: 8px 0; overflow-wrap: anywhere; }
.card.alarm { border-left-color: var(--bad); } .card.missing { border-left-color: var(--warn); }
.card.done { border-left-color: var(--good); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 8px; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; }
.figure b { float: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: 44px; display: block; }
polyline { fill: none; stroke: #2a5d8f; stroke-width: 1.6; } circle { fill: #2a5d8f; }
line.limit { stroke: var(--bad); stroke-dasharray: 4 3; }
line.release { stroke: #9aa7b4; stroke-width: 1.2; }
table { border-collapse: collapse; width: 100%; background: #fff; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line);
         vertical-align: top; overflow-wrap: anywhere; }
details { background: #fff; border: 1px solid var(--line); border-radius: 8px;
          padding: 8px 14px; margin: 6px 0; }
th:nth-child(2), td:nth-child(2), td:nth-child(4) { white-space: nowrap; }
summary { cursor: pointer; font-weight: 600; }
.none { color: var(--soft); font-size: 13px; }
@media (max-width: 560px) { th:nth-child(3), td:nth-child(3) { display: none; } }
"""
STATE = {
    "pass": "All is well: no guardrail is broken.",
    "warn": "Look at it today: nothing was stopped, but something is missing or off.",
    "hold": "A guardrail is broken and was acted on. Read what was done, then what needs you.",
}


def morning_page(content: Mapping[str, Any]) -> str:
    """Return the page's HTML.

    Args:
        content: {"verdict", "about": {label: text}, "cause": {"family", "meaning", "signs"} or
            None, "alarms": open alarms, "closed": alarms closed
            lately, "audit": newest audit lines, "results": results of the board, "rows":
            {guardrail: file}, "trends": [{"name", "title", "unit", "days", "values", "limit"}],
            "releases": {day: release}, "changes": [text], "experiment": text or None, "switches":
            [text], "runbook": {anchor: (title, text)}, "details": link}.
    """
    body = [
        "<h1>Shortlist: this morning</h1>",
        f'<p class="soft">{_pairs(content["about"])}</p>',
        f'<div class="state {content["verdict"]}">{STATE[content["verdict"]]}</div>',
        _cause(content["cause"]),
        "<h2>What needs a person</h2>",
        _needs(content),
        "<h2>What was done</h2>",
        _done(content),
        "<h2>What changed</h2>",
        _changes(content),
        "<h2>Figures by day</h2>",
        '<p class="soft">Dashed: the limit. Vertical lines: another release began to serve. The'
        " newest days lack outcomes that may still come, and are left out.</p>",
        _trends(content),
        "<h2>All guardrails</h2>",
        _results(content),
        f'<p><a href="{escape(content["details"])}">Data, drift and quality in detail</a></p>',
        "<h2>Runbook</h2>",
        _runbook(content["runbook"]),
    ]
    return document(body, title=f"Shortlist: {content['verdict']}", style=STYLE)


def _cause(cause: Mapping[str, Any] | None) -> str:
    """Name the probable cause of the alarms, with the guardrails that point to it."""
    if cause is None:
        return ""
    signs = ", ".join(escape(name) for name in cause["signs"])
    return (
        f'<div class="card"><h3>Probable cause: {escape(cause["family"])}</h3>'
        f"<p>{escape(cause['meaning'])}. <small>Signs: {signs}</small></p></div>"
    )


def _needs(content: Mapping[str, Any]) -> str:
    """List open alarms nobody has taken over, failed actions, and figures that are missing."""
    cards = []
    for alarm in content["alarms"]:
        if alarm["acknowledged_by"] is not None:
            continue
        failed = alarm["outcome"].startswith("failed")
        done = alarm["outcome"].partition(": ")[2] or alarm["waiting"] or "nothing yet"
        ask = f"<code>shortlist alarms acknowledge '{escape(alarm['guardrail'])}'</code>"
        cards.append(
            f'<div class="card alarm"><h3>{escape(alarm["guardrail"])}</h3>'
            f"<p>{escape(alarm['reason'])}</p>"
            f"<p><b>{'The action failed: ' if failed else 'Done: '}</b>"
            f"{escape(done)}</p>"
            f"<p>{_links(content, alarm)} Then take it over: {ask}</p></div>"
        )
    missing = [result for result in content["results"] if result["level"] == "missing"]
    if missing:
        listed = ", ".join(
            f"{escape(result['name'])} ({escape(result['figure'])})" for result in missing
        )
        cards.append(
            f'<div class="card missing"><h3>Figures that are missing</h3><p>{listed}. A missing'
            " figure is no pass: find out why it can't be computed.</p></div>"
        )
    return "".join(cards) or "<p>Nothing.</p>"


def _done(content: Mapping[str, Any]) -> str:
    cards = [
        f'<div class="card done"><h3>{escape(alarm["guardrail"])}</h3><p>Taken over by'
        f" {escape(alarm['acknowledged_by'])}. {escape(alarm['note'])}</p></div>"
        for alarm in content["alarms"]
        if alarm["acknowledged_by"] is not None
    ]
    cards += [
        f'<div class="card done"><h3>{escape(line["command"])}'
        f" <small>{_time(line['at'])} by {escape(line['user'])}</small></h3>"
        f"<p>{escape(line['reason'])}</p></div>"
        for line in content["audit"]
    ]
    cards += [f'<div class="card done"><p>{escape(text)}</p></div>' for text in content["switches"]]
    return "".join(cards) or "<p>Nothing was done since yesterday.</p>"


def _changes(content: Mapping[str, Any]) -> str:
    lines = list(content["changes"])
    if content["experiment"]:
        lines.insert(0, content["experiment"])
    lines += [f"alarm closed: {alarm['guardrail']}" for alarm in content["closed"]]
    if not lines:
        return "<p>No figure moved beyond its usual range, and no release changed.</p>"
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _trends(content: Mapping[str, Any]) -> str:
    cells = []
    for trend in content["trends"]:
        values = [v if v is not None else math.nan for v in trend["values"]]
        known = [v for v in values if math.isfinite(v)]
        now = format_value(known[-1], trend["unit"]) if known else "–"
        chart = sparkline(
            trend["days"],
            values,
            limit=trend["limit"],
            releases=sorted(int(day) for day in content["releases"]),
            label=f"{trend['title']} by day, now {now}",
        )
        cells.append(
            f'<div class="figure">{escape(trend["title"])} <b>{now}</b>{chart}'
            f"<small>{escape(trend['unit'])}</small></div>"
        )
    return f'<div class="grid">{"".join(cells)}</div>' if cells else "<p>No traffic.</p>"


def _results(content: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(result['name'])}<br><small>{escape(result['meaning'])}</small></td>"
        f"<td>{result['level']}</td><td>{escape(result['reason'])}</td>"
        f"<td>{_links(content, result)}</td></tr>"
        for result in content["results"]
    )
    return f"<table><tr><th>guardrail</th><th>level</th><th>why</th><th></th></tr>{rows}</table>"


def _links(content: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    name = result.get("guardrail") or result["name"]
    anchor = result.get("runbook") or result.get("evidence", {}).get("runbook")
    links = []
    if anchor in content["runbook"]:
        links.append(f'<a href="#{escape(anchor)}">what to do</a>')
    if name in content["rows"]:
        links.append(f'<a href="{escape(content["rows"][name])}">requests behind it</a>')
    return " · ".join(links)


def _runbook(entries: Mapping[str, Sequence[str]]) -> str:
    return "".join(
        f'<details id="{escape(anchor)}"><summary>{escape(title)}</summary>'
        f"{''.join(f'<p>{escape(part)}</p>' for part in text.split(chr(10) * 2) if part)}</details>"
        for anchor, (title, text) in entries.items()
    )


def runbook_entries(markdown: str) -> dict[str, tuple[str, str]]:
    """Return {anchor: (title, text)} of the entries of docs/monitoring.md, its `###` headings."""
    entries: dict[str, tuple[str, str]] = {}
    for part in re.split(r"^### ", markdown, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        text = re.split(r"^##? ", text, flags=re.MULTILINE)[0]
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        plain = re.sub(r"(?<!\n)\n(?!\n)", " ", text.strip()).replace("`", "")
        entries[anchor] = (title.strip(), plain)
    return entries


def format_value(value: float, unit: str) -> str:
    if unit == "share":
        return f"{value:.1%}" if abs(value) >= 0.01 else f"{value:.2%}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _pairs(about: Mapping[str, str]) -> str:
    return " · ".join(f"{escape(name)} {escape(str(text))}" for name, text in about.items())


def _time(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%d %b %H:%M UTC")
