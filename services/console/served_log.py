"""Reads the newest responses in the serving log, and finds one by its request id."""

import mmap
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shortlist.datasets.service.log_archive import parse_line, read_archive

REQUEST_ID = re.compile(r"[0-9a-f]{32}")
TAIL_BYTES = 12_000_000
"""Bytes that are read at the ends of the log's files: about 1,000 responses with ten items."""
FEATURES = b'"features":['


def recent(folder: Path, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` of the newest responses, newest first, without features.

    Fewer are returned if they have more than TAIL_BYTES. Lines that can't be read are skipped.
    """
    found: list[dict[str, Any]] = []
    left = TAIL_BYTES
    for path in _newest_first(folder):
        if len(found) >= limit or left <= 0:
            break
        if path.suffix == ".parquet":
            if not found:
                found = [entry for _, entry in read_archive(path)][-limit:]
            break
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - left))
            content = file.read(left)
        lines = content.split(b"\n")[1 if size > left else 0 : -1]
        left -= len(content)
        own: list[dict[str, Any]] = []
        for line in reversed(lines):
            if len(own) == limit:
                break
            try:
                entry = parse_line(without_features(line))
            except ValueError:
                continue
            if isinstance(entry, dict) and "request_id" in entry:
                own.append(entry)
        found += own
    found.sort(key=lambda entry: entry["event_timestamp"], reverse=True)
    return found[:limit]


def without_features(line: bytes) -> bytes:
    """Empty the lists of features in a line: they are nine tenths of it."""
    parts, start = [], 0
    while (at := line.find(FEATURES, start)) >= 0:
        parts.append(line[start : at + len(FEATURES)])
        start = max(line.find(b"]", at), at)
    return b"".join([*parts, line[start:]])


def find(folder: Path, request_id: str) -> dict[str, Any] | None:
    """Return the logged response to a request; None if it isn't in the log (any more)."""
    if not REQUEST_ID.fullmatch(request_id):
        return None
    for path in _newest_first(folder):
        found = _in_archive(path, request_id) if path.suffix == ".parquet" else None
        if path.suffix == ".jsonl":
            found = _in_lines(path, request_id)
        if found is not None:
            return found
    return None


def _newest_first(folder: Path) -> list[Path]:
    paths = [*folder.glob("date=*/*.jsonl"), *folder.glob("date=*/*.parquet")]
    return sorted(paths, key=lambda path: (path.parent.name, path.stat().st_mtime), reverse=True)


def _in_lines(path: Path, request_id: str) -> dict[str, Any] | None:
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(f'"request_id":"{request_id}"'.encode())
        if place < 0:
            return None
        start, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
        return parse_line(content[start:end]) if end > 0 else None


def _in_archive(path: Path, request_id: str) -> dict[str, Any] | None:
    ids = pq.read_table(path, columns=["request_id"]).column("request_id").to_pylist()
    if request_id not in ids:
        return None
    return next(entry for _, entry in read_archive(path) if entry["request_id"] == request_id)
