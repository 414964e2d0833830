"""Finds a text in all files of a home, in every format that a home has.

It is written independently of shortlist/forgetting, whose result it checks.
"""

import gzip
import html
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq

SQLITE = b"SQLite format 3\x00"


def files_with(home: Path, text: str) -> list[str]:
    """Return the paths, relative to `home`, of all files that contain a text."""
    return [
        path.relative_to(home).as_posix()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.is_symlink() and contains(path, text)
    ]


def contains(path: Path, text: str) -> bool:
    """Return whether a file contains a text: in its name, its bytes, or its decoded content."""
    content = path.read_bytes()
    if text in path.name or text.encode() in content:  # also FAISS, safetensors, free pages
        return True
    if content[:4] == b"PAR1":
        table = pq.read_table(path)
        metadata = str(table.schema.metadata)
        return text in metadata or any(text in str(column.to_pylist()) for column in table.columns)
    if content[:2] == b"\x1f\x8b":
        return text.encode() in gzip.decompress(content)
    if content.startswith(SQLITE):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return any(text in line for line in connection.iterdump())
    if path.suffix in (".json", ".jsonl"):
        lines = content.split(b"\n") if path.suffix == ".jsonl" else [content]
        return any(text in _json(line) for line in lines if line.strip())
    try:
        plain = content.decode()
    except UnicodeDecodeError:
        return False
    return text in html.unescape(plain) or text in unquote(plain)


def _json(line: bytes) -> str:
    try:
        return str(json.loads(line))
    except ValueError:
        return line.decode(errors="replace")
