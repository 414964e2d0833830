"""Erases a person from one file, by its format: Parquet, SQLite, text, gzip, and logs of lines."""

import gzip
import json
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.forgetting.lines import overwrite_lines
from shortlist.forgetting.person import Person
from shortlist.lake.engine import columns_of, connect, name, parquet, quoted

Format = Literal["parquet", "sqlite", "gzip", "text", "binary"]
MAGIC: dict[bytes, Format] = {
    b"PAR1": "parquet",
    b"SQLite format 3\x00": "sqlite",
    b"\x1f\x8b": "gzip",
}
HEAD = 8_192
"""Number of bytes from which a file's format is told."""
APPENDED = (".jsonl", ".log")
"""Suffixes of files that another process may append to; they are overwritten in place."""
PERSONAL = (c.USER_ID, c.SESSION_ID, c.REQUEST_ID, "original")
"""Columns of tables with rows about people. A row that mentions the person in any column is
removed; tables without these columns, such as items, aren't changed.
"""


class EraseError(OSError):
    """A file can't be erased; the message has its path and the reason."""


def format_of(path: Path) -> Format:
    """Tell the format of a file from its first bytes; a file without NUL bytes is text."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for magic, found in MAGIC.items():
        if head.startswith(magic):
            return found
    return "binary" if b"\0" in head else "text"


def rows_query(person: Person, columns: dict[str, str]) -> str:
    """Return an SQL condition of the rows of a table that must go.

    Args:
        columns: {column: DuckDB type}.
    """
    is_user = f"coalesce({name(c.USER_ID)} = {quoted(person.user_id)}, false)"
    conditions = [is_user] if c.USER_ID in columns else []
    if person.is_distinctive:
        conditions += [
            f"coalesce(contains({name(column)}::VARCHAR, {quoted(person.user_id)}), false)"
            for column, sql_type in columns.items()
            if "VARCHAR" in sql_type
        ]
    elif "original" in columns:
        conditions += [f"coalesce(regexp_matches(original::VARCHAR, {_original(person)}), false)"]
    found = " OR ".join(conditions) or "false"
    if c.EVENT_TIMESTAMP not in columns:
        return f"({found})"
    kind = columns[c.EVENT_TIMESTAMP]
    moment = name(c.EVENT_TIMESTAMP) if kind == "BIGINT" else f"epoch_us({name(c.EVENT_TIMESTAMP)})"
    return f"(({found}) AND coalesce({moment}, 0) < {person.at})"


def _original(person: Person) -> str:
    return quoted(rf'"user[a-z_]*"\s*:\s*"?{re.escape(person.user_id)}"?\s*[,}}]')


def erase_parquet(path: Path, people: Sequence[Person]) -> int:
    """Remove the people's rows from a Parquet file; return their number.

    The file is replaced by a rename. Tables that aren't about people stay as they are.
    """
    if path.stat().st_size == 0:
        return 0
    with connect(path.parent) as connection:
        source = parquet([path])
        columns = columns_of(connection, source)
        if not any(column in columns for column in PERSONAL):
            return 0
        condition = " OR ".join(rows_query(person, columns) for person in people)
        ((rows,),) = connection.execute(
            f"SELECT count(*) FROM {source} WHERE {condition}"
        ).fetchall()
        if rows == 0:
            return 0
        kept = connection.sql(f"SELECT ({condition}) AS gone FROM {source}").to_arrow_table()
    keep = pc.invert(kept.column("gone").combine_chunks())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    start = 0
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(partial, file.schema_arrow, compression="zstd") as out,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            out.write_table(table.filter(keep.slice(start, table.num_rows)))
            start += table.num_rows
    partial.replace(path)
    return rows


def erase_lines(path: Path, people: Sequence[Person]) -> int:
    """Erase the people's lines from a log of JSON lines, in place; mask other mentions.

    Returns:
        The number of lines that were erased or changed.
    """

    def change(line: bytes) -> bytes | None:
        mentioned = [person for person in people if any(text in line for text in person.spellings)]
        if not mentioned:
            return line
        try:
            row = json.loads(line)
        except ValueError:
            row = {}
        if isinstance(row, dict) and any(person.owns(row) for person in mentioned):
            return None
        if isinstance(row, dict) and c.USER_ID in row:
            later = [person for person in mentioned if row[c.USER_ID] == person.user_id]
            mentioned = [person for person in mentioned if person not in later]
        return _masked(line, mentioned)[0]

    return overwrite_lines(path, change)


def erase_text(path: Path, people: Sequence[Person]) -> int:
    """Mask all mentions in a text file; return their number."""
    if path.suffix in APPENDED:
        return overwrite_lines(path, lambda line: _masked(line, people)[0])
    content = path.read_bytes()
    new, rows = _masked(content, people)
    if rows:
        _replace(path, new)
    return rows


def erase_gzip(path: Path, people: Sequence[Person]) -> int:
    """Mask all mentions in a gzip file of text; return their number."""
    new, rows = _masked(gzip.decompress(path.read_bytes()), people)
    if rows:
        _replace(path, gzip.compress(new))
    return rows


def erase_sqlite(path: Path, people: Sequence[Person]) -> int:
    """Mask all mentions in the cells of a SQLite file, and remove its free pages.

    Returns:
        The number of changed rows.

    Raises:
        EraseError: the file is locked or damaged.
    """
    rows = 0
    people = [person for person in people if person.is_distinctive]
    try:
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            for table, column in _text_cells(connection):
                for person in people:
                    for spelling in person.spellings:
                        text = spelling.decode()
                        done = connection.execute(
                            f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                            f" WHERE typeof({column}) = 'text' AND instr({column}, ?) > 0",
                            (text, "*" * len(text), text),
                        )
                        rows += done.rowcount
    except sqlite3.Error as error:
        raise EraseError(f"{path}: {error}") from None
    vacuum(path)
    return rows


def vacuum(path: Path) -> None:
    """Rewrite a SQLite file without free pages, and empty its write-ahead log.

    Raises:
        EraseError: another process keeps it locked.
    """
    try:
        with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.execute("VACUUM")
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise EraseError(f"{path}: {error}") from None
    if busy:
        raise EraseError(f"{path}: a process reads it, so its write-ahead log stays")


def _text_cells(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (table, column) of all columns of a SQLite file, quoted."""
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return [
        (name(table), name(row[1]))
        for (table,) in found
        for row in connection.execute(f"PRAGMA table_info({name(table)})").fetchall()
    ]


def count_mentions(path: Path, person: Person, *, has_later_events: bool) -> int:
    """Return how often a file still has the person: rows of a table, else 1 if it is mentioned.

    Args:
        has_later_events: whether the person has events after the request. Then only tables and
            logs with times are judged, because other files may rightly name the person.
    """
    found = format_of(path)
    if found == "parquet":
        with connect(path.parent) as connection:
            columns = columns_of(connection, parquet([path]))
            if has_later_events and c.EVENT_TIMESTAMP not in columns:
                return 0
            query = f"SELECT count(*) FROM {parquet([path])} WHERE {rows_query(person, columns)}"
            ((rows,),) = connection.execute(query).fetchall()
            return rows
    if has_later_events or (found in ("sqlite", "binary") and not person.is_distinctive):
        return 0
    content = path.read_bytes()
    if found == "gzip":
        content = gzip.decompress(content)
    return int(person.is_mentioned(content))


def _masked(content: bytes, people: Sequence[Person]) -> tuple[bytes, int]:
    rows = 0
    for person in people:
        content, found = person.masked(content)
        rows += found
    return content, rows


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.chmod(path.stat().st_mode & 0o777)
    partial.replace(path)


ERASERS: dict[Format, Callable[[Path, Sequence[Person]], int]] = {
    "parquet": erase_parquet,
    "sqlite": erase_sqlite,
    "gzip": erase_gzip,
    "text": erase_text,
}
"""Format -> function that erases people from a file and returns the number of rows or mentions."""
