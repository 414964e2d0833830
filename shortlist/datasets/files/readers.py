"""Opens a file as a DuckDB relation: its columns, and SQL to read them.

Cells of CSV and JSON Lines are read as text, so that '00196' keeps its zeros and an invalid number
is reported instead of raising an error. Lines that can't be parsed are collected with the reason.
"""

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.datasets.config import FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.json_keys import collect, json_path, lists_of, nested
from shortlist.datasets.files.locate import SourceFile
from shortlist.lake.engine import name, parquet, quoted
from shortlist.lake.staging import REJECTED

HEAD_BYTES = 1 << 20
HEAD_LINES = 1_000
SEPARATORS = (",", ";", "\t", "|", "::")
SEP = re.compile('"?sep=(.)"?\\r?')
"""Regular expression of a first line that declares the separator, as some spreadsheets write it."""
LINE = "_line"
"""Key of the struct `original` if a row is a line of text."""
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DUCKDB_ENCODING = ("utf-8", "utf-16")
"""Encodings that DuckDB reads; text in others is converted first."""
SIMPLE = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "VARCHAR", "UUID")


@dataclass(frozen=True)
class Raw:
    """SQL to read the rows of a file."""

    relation: str
    expressions: dict[str, str]
    """{column of the file: SQL expression}"""
    types: dict[str, str]
    """{column of the file: DuckDB type}; JSON for values of JSON objects."""
    original: str
    """SQL expression of the unchanged row, a struct."""
    broken: str = "false"
    """SQL condition that is true for a line that isn't a JSON object."""
    rejects: bool = False
    """Whether reading collects unparsable lines, for `collect_rejects`."""
    notes: dict[str, Any] = field(default_factory=dict)


def open_raw(file: SourceFile, table: FileTable) -> Raw:
    """Open a file. Raises DatasetError if it can't be read or lacks a mapped column."""
    listed = [*table.columns.values(), *getattr(table, "attributes", ())]
    listed.append(getattr(table, "return_if_negative", None))
    wanted: list[str] = [column for column in dict.fromkeys(listed) if column is not None]
    if file.format == "parquet":
        return _parquet(file, wanted)
    head = _head(file, table.encoding)
    if file.format == "csv":
        return _csv(file, table, wanted, head)
    return _jsonl(file, wanted, head, sparse=table.sparse)


def head_bytes(file: SourceFile) -> bytes:
    """Read the first HEAD_BYTES bytes of a file, decompressed."""
    try:
        with file.path.open("rb") as plain:
            if file.compression == "gzip":
                return gzip.GzipFile(fileobj=plain).read(HEAD_BYTES)
            if file.compression == "zstd":
                with pa.CompressedInputStream(pa.PythonFile(plain), "zstd") as unpacked:
                    return unpacked.read(HEAD_BYTES)
            return plain.read(HEAD_BYTES)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise DatasetError(f"{file.name}: cannot be unpacked: {error}; is it cut short?") from None


def _head(file: SourceFile, encoding: str) -> str:
    """Read the beginning of a text file, decoded and cut at the end of a line."""
    raw = head_bytes(file)
    if encoding == "utf-8" and raw[:2] in BOMS:
        raise DatasetError(f'{file.name}: is utf-16, not utf-8; say encoding = "utf-16"')
    text = raw.decode(encoding, errors="replace").removeprefix("\ufeff")
    if not text.strip():
        raise DatasetError(f"{file.name}: is empty")
    whole = len(raw) < HEAD_BYTES
    return text if whole else text[: text.rfind("\n") + 1]


def _csv(file: SourceFile, table: FileTable, wanted: list[str], head: str) -> Raw:
    first, said = head.splitlines()[0], None
    if found := SEP.fullmatch(first):
        said, head = found[1], head.partition("\n")[2]
        if not head.strip():
            raise DatasetError(f"{file.name}: is empty below its line {first}")
        first = head.splitlines()[0]
    if first.startswith("#") and (rows := [row for row in head.splitlines() if row[:1] != "#"]):
        most = max(SEPARATORS, key=rows[0].count)
        if first.count(most) < rows[0].count(most):
            raise DatasetError(
                f"{file.name}: line 1 is a comment: {first[:60]!r}; want the names of the columns"
                " there: remove the lines above them"
            )
    separator = table.separator or said or max(SEPARATORS, key=first.count)
    skip = (0 if table.header else 1) + (1 if said else 0)
    if table.header:
        names = list(table.header)
    elif len(separator) == 1:
        names = _header(file, head, separator)
    else:
        names = [cell.strip() for cell in first.split(separator)]
    counts = Counter(names)
    for column in wanted:
        if column not in counts:
            raise DatasetError(
                f"{file.name}: no column '{column}'; there are {', '.join(names)}"
                + ("" if len(names) > 1 else f" (separated by '{separator}'?)")
            )
        if counts[column] > 1:
            raise DatasetError(
                f"{file.name}: column '{column}' is there {counts[column]} times, want it once"
            )
    unique = [
        column_name
        if column_name and counts[column_name] == 1
        else f"{column_name or 'column'}_{i + 1}"
        for i, column_name in enumerate(names)
    ]
    columns = ", ".join(f"{quoted(cell)}: 'VARCHAR'" for cell in unique)
    relation = (
        f"read_csv({quoted(str(file.path))}, columns = {{{columns}}}, auto_detect = false,"
        f" header = false, skip = {skip}, delim = {quoted(separator)},"
        f" quote = {quoted(table.quote)}, escape = {quoted(table.quote)}, nullstr = '',"
        f" encoding = '{table.encoding}', {_compression(file)},"
        " store_rejects = true, rejects_limit = 0)"
    )
    packed = ", ".join(f"{name(cell)} := {name(cell)}" for cell in unique)
    return Raw(
        relation=relation,
        expressions={column_name: name(column_name) for column_name in unique},
        types=dict.fromkeys(unique, "VARCHAR"),
        original=f"struct_pack({packed})",
        rejects=True,
    )


def _header(file: SourceFile, head: str, separator: str) -> list[str]:
    """Parse the column names in the first line."""
    try:
        return [
            column_name.strip()
            for column_name in next(csv.reader(io.StringIO(head), delimiter=separator))
        ]
    except csv.Error as error:
        raise DatasetError(
            f"{file.name}: line 1 is no header of a CSV file ({error}); want text with one row a"
            " line, ended by \\n or \\r\\n"
        ) from None


def _jsonl(file: SourceFile, wanted: list[str], head: str, *, sparse: bool) -> Raw:
    lines = [line for line in head.split("\n") if line.strip()][:HEAD_LINES]
    _require_keys(file, [] if sparse else wanted, lines)
    try:
        lists = lists_of(wanted)
    except ValueError as error:
        raise DatasetError(
            f"{file.name}: {error}: only one list can be events of their own"
        ) from None
    lines_of = (
        f"read_csv({quoted(str(file.path))}, columns = {{'line': 'VARCHAR'}}, auto_detect = false,"
        f" header = false, delim = '\\x01', quote = '', escape = '', {_compression(file)},"
        " store_rejects = true, rejects_limit = 0)"
    ).replace("'\\x01'", "chr(1)")
    if lists:
        return _exploded(wanted, lists, lines_of)
    return replace(objects_of(lines_of, wanted), rejects=True)


def objects_of(lines_of: str, wanted: Sequence[str]) -> Raw:
    """Return SQL to read JSON objects, one per line.

    Args:
        lines_of: SQL of a relation with a column `line`.
        wanted: keys to read, `a.b` for nested ones.
    """
    paths = [quoted(json_path(column)) for column in wanted]
    relation = (
        "(SELECT line, CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT'"
        f" THEN json_extract_string(line, [{', '.join(paths)}]) END AS v FROM {lines_of}"
        " WHERE line IS NOT NULL)"
    )
    return Raw(
        relation=relation,
        expressions={column: f"v[{i}]" for i, column in enumerate(wanted, start=1)},
        types=dict.fromkeys(wanted, "JSON"),
        original=f"struct_pack({LINE} := line)",
        broken="v IS NULL",
    )


def _exploded(wanted: list[str], lists: list[str], lines_of: str) -> Raw:
    """Return SQL to read one row per object of the innermost list in each line.

    With `lists` = `a` and `a[].b`, each object of `b` is a row, and values of the object of `a`
    around it are repeated. A line whose list is empty or null has no rows.

    The column `original` of a row is its line with only this object in the lists. So a quarantined
    row can be read again from it.
    """
    is_object = "json_valid(line) AND json_type(line) = 'OBJECT'"
    relation = (
        f"(SELECT line, CASE WHEN {is_object} THEN line::JSON END AS o0"
        f" FROM {lines_of} WHERE line IS NOT NULL)"
    )
    steps, before = [], ""
    for level, path in enumerate(lists):
        steps.append(path.removeprefix(before))
        before = f"{path}[]."
        at = quoted(json_path(steps[level]))
        objects = f"json_extract(o{level}, {quoted(json_path(steps[level]) + '[*]')})"
        each = f"CASE json_type(o{level}, {at}) WHEN 'ARRAY' THEN {objects} WHEN 'NULL' THEN []"
        relation = f"(SELECT *, unnest({each} ELSE [NULL] END) AS o{level + 1} FROM {relation})"
    expressions, values = {}, []
    for level in range(len(lists) + 1):
        start = f"{lists[level - 1]}[]." if level else ""
        mine = [column for column in wanted if column.count("[].") == level]
        paths = ", ".join(quoted(json_path(column.removeprefix(start))) for column in mine)
        values.append(f"json_extract_string(o{level}, [{paths}]::VARCHAR[]) AS v{level}")
        expressions |= {column: f"v{level}[{i}]" for i, column in enumerate(mine, start=1)}
    alone = f"o{len(lists)}::VARCHAR"
    for level in reversed(range(len(lists))):
        start, end = nested(steps[level], "[")
        patch = f"({quoted(start)} || {alone} || {quoted(']' + end)})::JSON"
        alone = f"json_merge_patch(o{level}, {patch})::VARCHAR"
    return Raw(
        relation=f"(SELECT *, {', '.join(values)} FROM {relation})",
        expressions={column: expressions[column] for column in wanted},
        types=dict.fromkeys(wanted, "JSON"),
        original=f"struct_pack({LINE} := coalesce({alone}, line))",
        broken="o0 IS NULL",
        rejects=True,
    )


def _require_keys(file: SourceFile, wanted: list[str], lines: list[str]) -> None:
    """Raise DatasetError if no line is an object, or if some mapped key occurs in no line."""
    keys: dict[str, None] = {}
    objects = 0
    for line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            objects += 1
            collect(content, "", keys)
    if not objects and wanted:
        raise DatasetError(
            f"{file.name}: cannot be read as JSON Lines: line 1 is no object: {lines[0][:60]!r}"
        )
    missing = [column for column in wanted if column.replace("[].", "[0].") not in keys]
    if missing and objects == len(lines):
        raise DatasetError(
            f"{file.name}: no key '{missing[0]}' in its first {objects} lines; there are"
            f" {', '.join(keys)}"
        )


def json_keys(file: SourceFile) -> list[str]:
    """Return the keys in the first lines of JSON Lines: `a.b` for objects, `a[0].b` for lists.

    Raises:
        DatasetError: no line is an object.
    """
    keys: dict[str, None] = {}
    for line in _head(file, "utf-8").split("\n")[:HEAD_LINES]:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            collect(content, "", keys)
    if not keys:
        raise DatasetError(f"{file.name}: cannot be read as JSON Lines: no line is an object")
    return list(keys)


def _parquet(file: SourceFile, wanted: list[str]) -> Raw:
    try:
        names = pq.read_schema(file.path).names
        with duckdb.connect() as connection:
            described = connection.execute(f"DESCRIBE SELECT * FROM {parquet([file.path])}")
            types = {row[0]: row[1] for row in described.fetchall()}
    except (pa.ArrowException, duckdb.Error, OSError) as error:
        raise DatasetError(f"{file.name}: cannot be read as parquet: {error}") from None
    for column in wanted:
        if column not in types:
            raise DatasetError(f"{file.name}: no column '{column}'; there are {', '.join(names)}")
    packed = ", ".join(f"{name(event_type)} := {name(event_type)}" for event_type in types)
    return Raw(
        relation=parquet([file.path]),
        expressions={column: name(column) for column in types},
        types=types,
        original=f"struct_pack({packed})",
    )


def _compression(file: SourceFile) -> str:
    return f"compression = '{file.compression or 'none'}'"


def collect_rejects(
    connection: duckdb.DuckDBPyConnection, file: SourceFile, table: str
) -> pa.Table | None:
    """Return the lines that could not be parsed since the last call, with reasons.

    The result is a table with the schema REJECTED; None if there are no such lines.

    If a quote is not closed, DuckDB rejects it together with the following lines. Each of these
    lines is returned as a separate row.
    """
    query = (
        "SELECT line, first(csv_line), first(error_type::VARCHAR), first(error_message),"
        " min(line_byte_position) FROM reject_errors GROUP BY line ORDER BY line"
    )
    found = connection.execute(query).fetchall()
    connection.execute("DROP TABLE IF EXISTS reject_errors; DROP TABLE IF EXISTS reject_scans")
    rows = []
    for number, text, error_type, message, position in found:
        content = text or ""
        if "ENCODING" in error_type and file.compression is None:
            content = _bytes_at(file.path, position)
        lines = content.replace("\r", "").strip("\n").split("\n")
        for offset, line in enumerate(entry for entry in lines if entry):
            rows.append(
                {
                    "table": table,
                    "source": file.name,
                    "line": number + offset,
                    "original": line,
                    "rule": f"line.{error_type.lower().replace(' ', '_')}",
                    "reason": f"{file.name}: line {number}: {_plainly(error_type, message)}",
                }
            )
    return pa.Table.from_pylist(rows, schema=REJECTED) if rows else None


def _bytes_at(path: Path, position: int) -> str:
    """Read the line at a byte position; bytes that aren't valid UTF-8 become \\xNN."""
    with path.open("rb") as file:
        file.seek(max(int(position) - 1, 0))
        line = file.readline()
        if not line.strip():
            line = file.readline()
    return line.decode("utf-8", errors="backslashreplace")


def _plainly(error_type: str, message: str) -> str:
    if error_type == "UNQUOTED VALUE":
        return "a quote is opened and not closed before the field's end"
    if error_type == "INVALID ENCODING":
        return "has bytes that its encoding lacks; set `encoding` to that of the file"
    if error_type == "LINE SIZE OVER MAXIMUM":
        return "longer than 2,000,000 bytes"
    return (
        message.splitlines()[0].rstrip(".").replace("Expected Number of Columns:", "want fields:")
    )
