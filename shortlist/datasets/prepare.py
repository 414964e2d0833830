"""Converts text files that DuckDB can't read: mixed line ends, other encodings, JSON that isn't one
object per line.

Both `init` and `ingest` use these functions, so they see the same rows.
"""

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa

from shortlist.datasets.config import FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.locate import SourceFile
from shortlist.datasets.readers import DUCKDB_ENCODING, head_bytes
from shortlist.lake.engine import quoted

MIXED_LINES = "state machine reached an invalid state"
"""Text in DuckDB's error message for a file with mixed line ends."""
LIKELY = (
    *("cp1252", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254", "shift_jis", "euc_jp"),
    *("gb18030", "big5", "euc_kr"),
)
NOT_TEXT = b"\xff"
"""Appended to a line that could not be decoded. UTF-8 has no such byte, so the reader rejects the
line and counts it.
"""
MAX_OBJECT = 1 << 24
"""Maximum size in bytes of a JSON object that spans several lines. In a larger file, an object may
be as large as the file.
"""
_numbers = itertools.count()


def prepared(file: SourceFile, table: FileTable, folder: Path) -> tuple[SourceFile, FileTable]:
    """Return the file, or a copy in `folder` that DuckDB can read, and the options to read it."""
    if file.format == "parquet":
        return file, table
    if file.format == "jsonl" and (form := _whole_json(file)):
        return _objects(file, folder, form), table
    if table.encoding in DUCKDB_ENCODING:
        return file, table
    copy = _copy_path(file, folder)
    with _unpacked(file) as source, copy.open("wb") as out:
        for line in source:
            try:
                out.write(line.decode(table.encoding).encode())
            except UnicodeDecodeError:
                shown = line.rstrip(b"\r\n").decode(table.encoding, errors="backslashreplace")
                out.write(shown.encode() + NOT_TEXT + b"\n")
    plain = SourceFile(file.name, copy, file.format, None)
    return plain, table.model_copy(update={"encoding": "utf-8"})


def with_one_line_end(file: SourceFile, folder: Path) -> SourceFile:
    """Copy a file so that all its lines end in \\n."""
    copy = _copy_path(file, folder)
    with _unpacked(file) as source, copy.open("wb") as out:
        for line in source:
            out.write(line[:-2] + b"\n" if line.endswith(b"\r\n") else line)
    return SourceFile(file.name, copy, file.format, None)


def guess_encoding(file: SourceFile) -> str:
    """Guess the encoding from the beginning of a file.

    It is utf-8 unless most lines with non-ASCII bytes are invalid UTF-8; then `charset_normalizer`
    decides.

    Raises:
        DatasetError: the file is utf-16 without a byte order mark.
    """
    head = head_bytes(file)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if max(head[::2].count(0), head[1::2].count(0)) > len(head) / 4:
        raise DatasetError(
            f"{file.name}: is utf-16 without the two bytes (FF FE) that say so; want utf-8, or"
            " utf-16 with these bytes"
        )
    lines = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    broken = [line for line in lines if not _is_utf8(line)]
    if len(broken) <= len(lines) / 2:
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(broken)[:200_000], cp_isolation=list(LIKELY)).best()
    if best is None:
        return "latin-1"
    # Western text also fits these two encodings, and is more frequent.
    return "cp1252" if best.encoding in ("cp1250", "cp1254") else best.encoding


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_json(file: SourceFile) -> str | None:
    """Return DuckDB's name of the JSON format: "array", or "unstructured" for other layouts.

    None if the file has one object per line, which needs no conversion.

    Raises:
        DatasetError: the file is an array of arrays.
    """
    text = head_bytes(file).removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"[":
        if text[1:].lstrip()[:1] == b"[":
            raise DatasetError(
                f"{file.name}: is a JSON array of arrays, whose values have no names; want objects"
                ' like {"user_id": "u1", "item_id": "i1"}, or CSV'
            )
        return "array" if text[1:].lstrip()[:1] == b"{" else None
    first = text.partition(b"\n")[0]
    return "unstructured" if re.fullmatch(rb'\{\s*("[^"]*"\s*:\s*[\[{]?\s*)?', first) else None


def _objects(file: SourceFile, folder: Path, form: str) -> SourceFile:
    """Copy a JSON file with one object per line.

    If the file is a single object with one list of objects, the copy has the objects of that list.

    Args:
        form: DuckDB's name of the file's JSON format.
    """
    copy = _copy_path(file, folder)
    largest = max(MAX_OBJECT, file.path.stat().st_size * (20 if file.compression else 1))
    size = f", maximum_object_size = {largest}" if form == "unstructured" else ""
    query = (
        f"SELECT json FROM read_json_objects({quoted(str(file.path))}, format = '{form}'{size},"
        f" compression = '{file.compression or 'none'}')"
    )
    with duckdb.connect() as connection:
        try:
            key = _key_of_list(connection, query) if form == "unstructured" else None
            if key is not None:
                path = quoted(f'$."{key}"[*]')
                query = f"SELECT unnest(json_extract(json, {path})) AS json FROM ({query})"
            objects = connection.execute(f"SELECT json::VARCHAR FROM ({query})")
            with copy.open("wb") as out:
                while rows := objects.fetchmany(10_000):
                    for (text,) in rows:
                        out.write(" ".join(text.splitlines()).encode() + b"\n")
        except duckdb.Error as error:
            text = str(error).splitlines()[0].split(": ", 1)[-1]
            what = "is no array of JSON objects" if form == "array" else "has no JSON objects"
            raise DatasetError(f"{file.name}: {what}: {text}") from None
    return SourceFile(file.name, copy, "jsonl", None)


def _key_of_list(connection: duckdb.DuckDBPyConnection, query: str) -> str | None:
    """Return the key of the list of objects if there is a single JSON object with one such list."""
    objects = connection.execute(f"{query} LIMIT 2").fetchall()
    if len(objects) != 1:
        return None
    lists = [
        key
        for key, value in json.loads(objects[0][0]).items()
        if isinstance(value, list) and value and isinstance(value[0], dict)
    ]
    return lists[0] if len(lists) == 1 else None


def _copy_path(file: SourceFile, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{next(_numbers)}-{file.path.name}"


@contextmanager
def _unpacked(file: SourceFile) -> Iterator[IO[bytes] | Any]:
    with file.path.open("rb") as plain:
        if file.compression == "gzip":
            yield gzip.GzipFile(fileobj=plain)
        elif file.compression == "zstd":
            with pa.CompressedInputStream(pa.PythonFile(plain), "zstd") as unpacked:
                yield _lines(unpacked)
        else:
            yield plain


def _lines(source: Any) -> Iterator[bytes]:
    rest = b""
    while chunk := source.read(1 << 20):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest
