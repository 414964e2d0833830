"""Converts text files that DuckDB can't read: mixed line ends, other encodings, JSON that isn't one
object per line.

Both `init` and `ingest` use these functions, so they see the same rows.
"""

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from shortlist.datasets.config import FileTable
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.readers import DUCKDB_ENCODING, head_bytes
from shortlist.lake.engine import quoted

NOT_TEXT = b"\xff"
"""Appended to a line that could not be decoded. UTF-8 has no such byte, so the reader rejects the
line and counts it.
"""
MAX_OBJECT = 1 << 24
"""Maximum size in bytes of a JSON object that spans several lines. In a larger file, an object may
be as large as the file.
"""
CHUNK = 1 << 20
_numbers = itertools.count()


def prepared(file: SourceFile, table: FileTable, folder: Path) -> tuple[SourceFile, FileTable]:
    """Return the file, or a copy in `folder` that DuckDB can read, and the options to read it."""
    if file.format == "parquet":
        return file, table
    if file.format == "jsonl" and (form := _whole_json(file)):
        return _objects(file, folder, form), table
    converted = table.encoding not in DUCKDB_ENCODING
    if not converted and (table.encoding == "utf-16" or not _has_mixed_line_ends(file)):
        return file, table
    copy = _copy_path(file, folder)
    with _unpacked(file) as source, copy.open("wb") as out:
        chunks = _with_one_line_end(source)
        for text in _decoded(chunks, table.encoding) if converted else chunks:
            out.write(text)
    plain = SourceFile(file.name, copy, file.format, None)
    return plain, table.model_copy(update={"encoding": "utf-8"})


def _has_mixed_line_ends(file: SourceFile) -> bool:
    """Return whether a file has more than one of \\n, \\r\\n and \\r, or only \\r."""
    windows = unix = alone = 0
    with _unpacked(file) as source:
        for chunk in _chunks(source):
            if b"\r" in chunk:
                pairs = chunk.count(b"\r\n")
                windows, alone = windows + pairs, alone + chunk.count(b"\r") - pairs
                unix -= pairs
            unix += chunk.count(b"\n")
            if alone or (windows and unix):
                return True
    return False


def _chunks(source: Any) -> Iterator[bytes]:
    """Read a file in chunks that don't separate \\r from \\n."""
    rest = b""
    while chunk := source.read(CHUNK):
        chunk = rest + chunk
        rest = b"\r" if chunk.endswith(b"\r") else b""
        yield chunk.removesuffix(rest)
    if rest:
        yield rest


def _with_one_line_end(source: Any) -> Iterator[bytes]:
    """Read a file so that all its lines end in \\n, also within quotes."""
    for chunk in _chunks(source):
        yield chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _decoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Convert lines to utf-8. Lines that can't be decoded get NOT_TEXT."""
    rest = b""
    for chunk in itertools.chain(chunks, [b"\n"]):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                yield line.decode(encoding).encode() + b"\n"
            except UnicodeDecodeError:
                shown = line.decode(encoding, errors="backslashreplace")
                yield shown.encode() + NOT_TEXT + b"\n"


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
def _unpacked(file: SourceFile) -> Iterator[Any]:
    with file.path.open("rb") as plain:
        try:
            if file.compression == "gzip":
                yield gzip.GzipFile(fileobj=plain)
            elif file.compression == "zstd":
                with pa.CompressedInputStream(pa.PythonFile(plain), "zstd") as unpacked:
                    yield unpacked
            else:
                yield plain
        except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
            raise DatasetError(
                f"{file.name}: cannot be unpacked: {error}; is it cut short?"
            ) from None
