"""DuckDB connections of the lake (UTC, limited memory, spilling to disk) and SQL text helpers."""

import os
from pathlib import Path

import duckdb

MEMORY_LIMIT_GB = 4
"""Memory limit of a connection; above it DuckDB sorts and joins on disk. The limit is at most half
of the machine's memory.
"""


def connect(temporary: Path) -> duckdb.DuckDBPyConnection:
    """Open a separate in-memory connection that writes spill files under `temporary`."""
    connection = duckdb.connect()
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    limit = min(MEMORY_LIMIT_GB, physical / 2)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{limit:.1f}GB'")
    connection.execute(f"SET temp_directory = {quoted(str(temporary / 'spill'))}")
    connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(text: str) -> str:
    """Quote a text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def name(column: str) -> str:
    """Quote a column name as an SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def parquet(files: list[Path], *, more: str = "") -> str:
    """Return the SQL `read_parquet(...)` for these files; `more` holds further options."""
    paths = ", ".join(quoted(str(path)) for path in files)
    return f"read_parquet([{paths}]{more})"


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return {column: type} of a relation (a table's name, `read_parquet(...)` or a subquery)."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {row[0]: row[1] for row in rows}
