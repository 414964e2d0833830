"""Shows features and their skew in a terminal, and renders the HTML page of all features.

Skew is a difference between the features that the service logged and those recomputed later.
"""

from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("name", "dtype", "meaning", "window", "default", "owner")


def table(content: dict[str, Any]) -> None:
    """Print one table per group of features."""
    console = Console()
    for group in content["groups"]:
        shown = Table(title=f"{group['name']}: {group['meaning']}", title_justify="left")
        for column in COLUMNS:
            shown.add_column(column, overflow="fold")
        for feature in group["features"]:
            shown.add_row(*(str(feature[column]) for column in COLUMNS))
        console.print(shown)
    services = ", ".join(content["services"])
    console.print(f"schema {content['schema']} · feature services {services}")


def html_page(content: dict[str, Any]) -> str:
    """Return the tables of `table` as one HTML page, without scripts or external files."""
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Features</title><style>",
        "body{font:15px system-ui;margin:2rem auto;max-width:75rem;padding:0 1rem}",
        "table{border-collapse:collapse;width:100%;margin-bottom:2rem}",
        "td,th{border-bottom:1px solid #ddd;padding:.35rem .6rem;text-align:left;",
        "vertical-align:top}td:first-child{font-family:ui-monospace,monospace}</style>",
        f"<h1>Features</h1><p>Schema {escape(content['schema'])}, feature services "
        f"{escape(', '.join(content['services']))}.</p>",
    ]
    for group in content["groups"]:
        head = "".join(f"<th>{column}</th>" for column in COLUMNS)
        parts.append(f"<h2>{escape(group['name'])}</h2><p>{escape(group['meaning'])}</p>")
        parts.append(f"<table><tr>{head}</tr>")
        for feature in group["features"]:
            cells = "".join(f"<td>{escape(str(feature[column]))}</td>" for column in COLUMNS)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def skew_table(content: dict[str, Any]) -> None:
    """Print which features differ from the recomputed ones, and which states were outdated."""
    console = Console()
    verdict = "[green]passed[/]" if content["passed"] else "[bold red]failed[/]"
    shown = Table(title=f"Skew: {verdict}", title_justify="left")
    for column in ("feature", "vectors that differ", "served", "recomputed", "request"):
        shown.add_column(column)
    for name, share in content["different_share"].items():
        worst = content["worst"][name]
        shown.add_row(
            name,
            f"{share:.1%}",
            f"{worst['served']:.6g}",
            f"{worst['recomputed']:.6g}",
            worst["request_id"],
        )
    if content["different_share"]:
        console.print(shown)
    else:
        console.print(f"Skew: {verdict}; no feature differs")
    console.print(
        f"{content['vectors']:,} vectors of {content['requests']:,} responses,"
        f" {content['compared']} features compared, {content['exact_share']:.2%} of the vectors"
        f" exact to the bit; views that were stale: {_stale_views(content['staleness'])}"
    )
    for reason in content["reasons"]:
        console.print(f"[red]{reason}[/]", highlight=False)


def _stale_views(staleness: dict[str, Any]) -> str:
    stale = [
        f"{view} in {lag['requests']:,} responses (up to {lag['max_seconds']:,.0f} s)"
        for view, lag in staleness.items()
        if lag["requests"]
    ]
    return ", ".join(stale) or "none"
