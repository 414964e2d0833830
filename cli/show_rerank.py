"""Prints how re-ranking settings change the quality of lists, in a terminal."""

from typing import Any

from rich import box
from rich.table import Table

from cli import show


def rerank_prices(content: dict[str, Any]) -> None:
    """Print one row per re-ranking setting, with its paired difference in nDCG to no re-ranking.

    Args:
        content: result of `flows.evaluation.rerank_prices.rerank_prices`.
    """
    rows = content["settings"]
    table = Table(
        title=f"re-ranking: {content['window']} window, {content['requests']:,} requests",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("rerank", overflow="fold")
    names = [name for name in rows[0] if "@" in name]
    for name in (names[0], "difference", *names[1:]):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        first, *others = (show.figure(row[name]) for name in names)
        table.add_row(
            setting_text(row["rerank"]),
            first,
            show.interval(row["difference"], sign="+") if row["rerank"] else "",
            *others,
            style="bold" if row["served"] else None,
        )
    show.terminal().print(table)


def setting_text(setting: dict[str, Any] | None) -> str:
    """Format a setting, such as `mmr 0.3 on content`."""
    if setting is None:
        return "none"
    text = f"{setting['kind']} {setting['strength']:g}"
    return f"{text} on {setting['vectors']}" if "vectors" in setting else text
