"""Prints tables for commands that list things."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one table, or only the title if there are no columns.

    Rich markup in titles and cells is printed as plain text.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
    if not columns:
        console.print(Text(title))
        return
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
