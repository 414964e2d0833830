"""DuckDB as the lake uses it: UTC, bounded memory, spilling beside what it writes."""

import os
from pathlib import Path

import duckdb

MEMORY_LIMIT_GB = 4
"""Beyond this DuckDB sorts and joins on disk; a machine with less gets half of what it has."""


def connect(temporary: Path) -> duckdb.DuckDBPyConnection:
    """A connection of its own, whose spill files lie under `temporary`."""
    connection = duckdb.connect()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    limit = min(MEMORY_LIMIT_GB, physical / 2)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{limit:.1f}GB'")
    connection.execute(f"SET temp_directory = {quoted(str(temporary / 'spill'))}")
    connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """A column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'


def parquet(files: list[Path], *, more: str = "") -> str:
    """`read_parquet(...)` of these files."""
    paths = ", ".join(quoted(str(path)) for path in files)
    return f"read_parquet([{paths}]{more})"


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """{column: type} of a relation (a table's name, `read_parquet(...)` or a subquery)."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in rows}
