"""Snapshots of the lake and the one atomic step between them."""

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

from shortlist.lake.leases import leased_versions

Granularity = Literal["day", "month", "year"]
KEPT_SNAPSHOTS = 3
"""A reader that began on a snapshot can finish while two more are committed."""
KEPT_BATCHES = 100


class LakeError(RuntimeError):
    """The lake does not hold what was asked for, or another run holds it; the message says what
    to do.
    """


@dataclass
class Manifest:
    """What one snapshot holds."""

    version: int = 0
    granularity: Granularity | None = None
    """Fixed by the first batch: how far apart its events lie."""
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """{"2024-05": {"files": [...], "rows": n, "earliest": us, "latest": us}}"""
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each source had given when its last batch was committed: file hashes, watermark."""
    batches: list[dict[str, Any]] = field(default_factory=list)
    """The newest last, with their figures: volume is judged against them."""

    @property
    def rows(self) -> int:
        return sum(part["rows"] for part in self.partitions.values())

    @property
    def latest(self) -> int | None:
        """Time of the newest event, microseconds."""
        times = [part["latest"] for part in self.partitions.values() if part["rows"]]
        return max(times, default=None)

    def write(self, folder: Path) -> None:
        with (folder / "manifest.json").open("w") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises LakeError if the snapshot has no readable manifest."""
        try:
            return cls(**json.loads((folder / "manifest.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise LakeError(f"{folder}/manifest.json: cannot be read: {error}") from None


def current_folder(root: Path) -> Path | None:
    """The snapshot that readers see; None before the first commit."""
    link = root / "current"
    return link.resolve() if link.is_symlink() else None


def current_manifest(root: Path) -> Manifest:
    folder = current_folder(root)
    return Manifest() if folder is None else Manifest.read(folder)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lake for writing; the lock goes with the process, however it ends.

    Raises:
        LakeError: another process holds it.
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
    """Remove what killed writers left behind."""
    for leftover in [*root.glob(".work-*"), *root.glob(".current-*")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    now = current_folder(root)
    for folder in (root / "snapshots").glob("*"):
        unfinished = folder.name.startswith(".")
        if unfinished or (now is not None and folder.name > now.name) or now is None:
            shutil.rmtree(folder)


@contextlib.contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """A folder beside the lake, on its file system, that is gone afterwards."""
    folder = root / f".work-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit(
    root: Path, manifest: Manifest, *, new: dict[str, Path], tables: dict[str, Path]
) -> Path:
    """Make `manifest` the lake's state, in one rename.

    Args:
        manifest: its version is the next one; its partitions name all files of the snapshot.
        new: {path inside the snapshot: finished file of the workspace}.
        tables: the same for the other Parquet files; the old ones are linked otherwise.

    Returns:
        the new snapshot's folder.
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
            _sync(source)
        os.link(source, target)
    manifest.write(partial)
    partial.rename(final)
    link = root / f".current-{os.getpid()}"
    link.symlink_to(Path("snapshots") / final.name)
    link.replace(root / "current")
    _sync(root)
    leased = leased_versions(root)
    for folder in sorted((root / "snapshots").glob("[0-9]*"))[:-KEPT_SNAPSHOTS]:
        if int(folder.name) not in leased:
            shutil.rmtree(folder)
    return final


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(table: pa.Table, path: Path) -> None:
    """Write Parquet beside and rename: a reader sees the file as before or as after."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
