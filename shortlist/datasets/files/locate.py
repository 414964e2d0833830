"""Resolves a path of the TOML to local files: a file, a folder, a glob, or an fsspec URI."""

import glob
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.datasets.errors import DatasetError, SourceUnavailable

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
BY_CONTENT = (".dat", ".data", ".txt", ".inter", ".log", ".tab", "")
"""File endings for which the format is guessed: text that begins with { or [ is JSON, other text is
CSV.
"""
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file to read."""

    name: str
    """Path or URI for messages."""
    path: Path
    format: str
    compression: str | None
    label: str | None = None
    """Value that the file's rows get in the column `source`; None: the file's name."""

    def fingerprint(self) -> str:
        """Return the sha256 of the content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def locate(where: str, *, format: str | None, cache: Path) -> list[SourceFile]:
    """Find the files at `where`, sorted by name.

    Args:
        where: a file, a folder (all files below it with a known ending), a glob or an fsspec URI.
        format: None: by the file's ending and content.
        cache: folder to which remote files are downloaded.

    Raises:
        DatasetError: there is no file, a file can't be read, or its format is unknown.
    """
    if "://" in where:
        return [_checked(name, path, format) for name, path in _fetched(where, cache)]
    path = Path(where)
    if any(mark in where for mark in "*?[") and not path.exists():
        found = sorted(Path(name) for name in glob.glob(where, recursive=True))
        found = [file for file in found if file.is_file()]
        if not found:
            raise DatasetError(f"{where}: no file matches this pattern")
        return [_checked(str(file), file, format) for file in found]
    if path.is_dir():
        files = [
            file for file in sorted(path.rglob("*")) if file.is_file() and file.name[0] not in "._"
        ]
        found = [file for file in files if format is not None or _kind(file.name)[0] is not None]
        if not found:
            raise DatasetError(
                f"{where}: a folder without a file that ends in {', '.join(FORMATS)}"
                f" (or one of these and {', '.join(COMPRESSIONS)}); there are {len(files)} others"
            )
        return [_checked(str(file), file, format) for file in found]
    if not path.is_file():
        raise DatasetError(f"{where}: no such file")
    return [_checked(where, path, format)]


def _kind(name: str) -> tuple[str | None, str | None]:
    """Return (format, compression) by the endings of a name; None if unknown."""
    path = Path(name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    stem = path.with_suffix("") if compression else path
    return FORMATS.get(stem.suffix.lower()), compression


def _checked(name: str, path: Path, format: str | None) -> SourceFile:
    named_format, compression = _kind(path.name)
    if format is None and named_format is None and path.suffix.lower() not in BY_CONTENT:
        raise DatasetError(
            f"{name}: ending '{path.suffix}', want {', '.join(FORMATS)}, plain or with"
            f' {" or ".join(COMPRESSIONS)}; or say format = "csv"'
        )
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except PermissionError:
        raise DatasetError(f"{name}: may not be read by this user; check its permissions") from None
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read: {error.strerror}") from None
    if not head:
        raise DatasetError(f"{name}: is empty")
    if head == b"PK\x03\x04":
        raise DatasetError(
            f"{name}: is a zip archive; unpack it (of a spreadsheet, save the sheet as CSV)"
        )
    packed = next(
        (format_name for format_name, magic in MAGIC.items() if head.startswith(magic)), None
    )
    if packed != compression and "parquet" not in (format, named_format):
        said = f"ends as if packed by {compression}" if compression else "ends as if not packed"
        really = f"its content is {packed}" if packed else "its content is not packed"
        raise DatasetError(f"{name}: {said}, but {really}; rename it")
    if format is None and head == b"PAR1":
        named_format = "parquet"
    elif format is None and named_format in (None, "jsonl") and packed is None:
        named_format = "jsonl" if head.lstrip()[:1] in (b"{", b"[") else named_format or "csv"
    return SourceFile(name, path, format or named_format or "csv", compression)


def _fetched(uri: str, cache: Path) -> list[tuple[str, Path]]:
    """Download the files at `uri`; return (URI, local path) of each.

    A local copy is reused while size, time and ETag of the remote file are unchanged.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
        if any(mark in path for mark in "*?["):
            names = sorted(str(name) for name in system.glob(path))
        elif system.isdir(path):
            names = sorted(str(name) for name in system.find(path) if _kind(str(name))[0])
        else:
            names = [path] if system.exists(path) else []
        if not names:
            raise DatasetError(f"{uri}: nothing is there")
        return [(_uri(system, name), _fetch(system, name, cache)) for name in names]
    except DatasetError:
        raise
    except ImportError as error:
        raise DatasetError(f"{uri}: {error}; install that package beside shortlist") from None
    except Exception as error:
        # The file systems of fsspec raise different types.
        raise SourceUnavailable(f"{uri}: cannot be read: {type(error).__name__}: {error}") from None


def _uri(system: Any, name: str) -> str:
    return str(system.unstrip_protocol(name))


def _fetch(system: Any, name: str, cache: Path) -> Path:
    info = system.info(name)
    stamp = "|".join(str(info.get(key)) for key in ("size", "mtime", "ETag", "etag", "created"))
    key = hashlib.sha256(f"{_uri(system, name)}|{stamp}".encode()).hexdigest()[:16]
    target = cache / "fetched" / key / Path(name).name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with system.open(name, "rb") as source, partial.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
    partial.replace(target)
    return target
