"""Snapshots of the lake: manifest, write lock, and atomic commit."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.files.durable import flush
from shortlist.lake.leases import leased_versions

Granularity = Literal["day", "month", "year"]
KEPT_SNAPSHOTS = 3
"""Number of snapshots kept. A reader of one can finish while two more are committed."""
KEPT_BATCHES = 100
"""Number of batches whose figures the manifest keeps."""


class LakeError(RuntimeError):
    """The requested data is not in the lake, or another process is writing to it.

    The message says what to do.
    """


@dataclass
class Manifest:
    """Manifest of a snapshot: partitions, sources read so far, and figures of the last batches."""

    version: int = 0
    granularity: Granularity | None = None
    """Width of a partition, chosen from the first batch."""
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Partition -> its files, number of rows, and first and last event time in microseconds:
    {"2024-05": {"files": [...], "rows": n, "earliest": us, "latest": us}}
    """
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reading state of each source at its last committed batch: file hashes, watermark."""
    batches: list[dict[str, Any]] = field(default_factory=list)
    """Figures of the last batches, newest last; validation compares the volume with them."""

    @property
    def rows(self) -> int:
        return sum(part["rows"] for part in self.partitions.values())

    @property
    def latest(self) -> int | None:
        """Time of the newest event in microseconds; None without events."""
        times = [part["latest"] for part in self.partitions.values() if part["rows"]]
        return max(times, default=None)

    def write(self, folder: Path) -> None:
        with (folder / "manifest.json").open("w") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a snapshot's manifest. Raises LakeError if it is missing or unreadable."""
        try:
            return cls(**json.loads((folder / "manifest.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise LakeError(f"{folder}/manifest.json: cannot be read: {error}") from None


def current_folder(root: Path) -> Path | None:
    """Return the folder of the current snapshot; None before the first commit."""
    link = root / "current"
    return link.resolve() if link.is_symlink() else None


def current_manifest(root: Path) -> Manifest:
    folder = current_folder(root)
    return Manifest() if folder is None else Manifest.read(folder)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lake's write lock; it is released when the process ends for any reason.

    Raises:
        LakeError: another process holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise LakeError(
                f"{root}: {holder} is writing to this lake; wait until it has finished, or stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        _sweep(root)
        yield


def _sweep(root: Path) -> None:
    """Remove temporary files and uncommitted snapshots of killed writers."""
    for leftover in [*root.glob(".work-*"), *root.glob(".current-*")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    now = current_folder(root)
    for folder in (root / "snapshots").glob("*"):
        unfinished = folder.name.startswith(".")
        if unfinished or (now is not None and folder.name > now.name) or now is None:
            shutil.rmtree(folder)


@contextlib.contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """Yield a temporary folder inside the lake's folder, and remove it afterwards.

    It is on the lake's file system, so finished files can be moved into a snapshot by a rename.
    """
    folder = root / f".work-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit(
    root: Path, manifest: Manifest, *, new: dict[str, Path], tables: dict[str, Path]
) -> Path:
    """Commit a new snapshot by one atomic rename of the link `current`.

    Args:
        manifest: the new manifest; its partitions list all interaction files of the snapshot.
        new: new interaction files, {path inside the snapshot: finished file in the workspace}.
        tables: new files of other tables, as in `new`. Tables not given are linked from the
            previous snapshot.

    Returns:
        Folder of the new snapshot.
    """
    old = current_folder(root)
    final = root / "snapshots" / f"{manifest.version:06d}"
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sources = dict(tables)
    for part in manifest.partitions.values():
        for name in part["files"]:
            assert name in new or old is not None, f"{name} is new or was there"
            sources[name] = new[name] if name in new else old / name
    if old is not None:
        for file in old.glob("*.parquet"):
            sources.setdefault(file.name, file)
    for name, source in sources.items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in new or name in tables:
            flush(source)
        os.link(source, target)
    manifest.write(partial)
    partial.rename(final)
    link = root / f".current-{os.getpid()}"
    link.symlink_to(Path("snapshots") / final.name)
    link.replace(root / "current")
    flush(root)
    leased = leased_versions(root)
    for folder in sorted((root / "snapshots").glob("[0-9]*"))[:-KEPT_SNAPSHOTS]:
        if int(folder.name) not in leased:
            shutil.rmtree(folder)
    return final


def write_whole(table: pa.Table, path: Path) -> None:
    """Write Parquet to a temporary file and rename it, so that readers never see a partial file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
