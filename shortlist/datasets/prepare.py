"""A text file as the readers want it: one line end, an encoding that DuckDB has, an object a line.

`init` and `ingest` both read through here, so that both see the same rows.
"""

import gzip
import itertools
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
"""DuckDB's words for lines that end in two ways."""
LIKELY = (
    *("cp1252", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254", "shift_jis", "euc_jp"),
    *("gb18030", "big5", "euc_kr"),
)
NOT_TEXT = b"\xff"
"""Appended to a line that could not be decoded. UTF-8 has no such byte, so the reader rejects the
line and counts it.
"""
_numbers = itertools.count()


def prepared(file: SourceFile, table: FileTable, folder: Path) -> tuple[SourceFile, FileTable]:
    """The file, or a copy in `folder` that DuckDB can read, and the table for it."""
    if file.format == "parquet":
        return file, table
    if file.format == "jsonl" and _is_array(head_bytes(file)):
        return _objects(file, folder), table
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
    """A copy whose lines all end in \\n."""
    copy = _copy_path(file, folder)
    with _unpacked(file) as source, copy.open("wb") as out:
        for line in source:
            out.write(line[:-2] + b"\n" if line.endswith(b"\r\n") else line)
    return SourceFile(file.name, copy, file.format, None)


def guess_encoding(file: SourceFile) -> str:
    """utf-8 unless most lines beyond ASCII are none, then what `charset_normalizer` finds."""
    head = head_bytes(file)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    lines = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    broken = [line for line in lines if not _is_utf8(line)]
    if len(broken) <= len(lines) / 2:
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(broken)[:200_000], cp_isolation=list(LIKELY)).best()
    if best is None:
        return "latin-1"
    # Western text fits these two as well; where the choice is open, Western is more frequent.
    return "cp1252" if best.encoding in ("cp1250", "cp1254") else best.encoding


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_array(head: bytes) -> bool:
    """A JSON array of objects, on one line or on many."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text[:1] == b"[" and text[1:].lstrip()[:1] == b"{"


def _objects(file: SourceFile, folder: Path) -> SourceFile:
    copy = _copy_path(file, folder)
    query = (
        f"SELECT json::VARCHAR FROM read_json_objects({quoted(str(file.path))},"
        f" format = 'array', compression = '{file.compression or 'none'}')"
    )
    with duckdb.connect() as connection:
        try:
            objects = connection.execute(query)
            with copy.open("wb") as out:
                while rows := objects.fetchmany(10_000):
                    for (text,) in rows:
                        out.write(" ".join(text.splitlines()).encode() + b"\n")
        except duckdb.Error as error:
            text = str(error).splitlines()[0].split(": ", 1)[-1]
            raise DatasetError(f"{file.name}: is no array of JSON objects: {text}") from None
    return SourceFile(file.name, copy, "jsonl", None)


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
