"""Compaction: rewrites partitions of the lake that have several files into one file each."""

from dataclasses import dataclass
from pathlib import Path

from shortlist.lake import partitions
from shortlist.lake.engine import connect
from shortlist.lake.snapshot import commit, current_folder, current_manifest, locked, workspace


@dataclass(frozen=True)
class CompactionResult:
    """Numbers of files before and after a compaction, and the version of the snapshot."""

    files_before: int
    files_after: int
    version: int


def compact_lake(root: Path) -> CompactionResult:
    """Commit a snapshot in which each partition is one file; the rows stay the same.

    Nothing is committed if all partitions are one file already. Earlier snapshots keep their files
    until they expire, so running readers aren't affected.
    """
    with locked(root):
        old, manifest = current_folder(root), current_manifest(root)
        before = sum(len(part["files"]) for part in manifest.partitions.values())
        if old is None or before == len(manifest.partitions):
            return CompactionResult(before, before, manifest.version)
        with workspace(root) as work, connect(work) as connection:
            manifest.version += 1
            paths = {
                name: old / name for part in manifest.partitions.values() for name in part["files"]
            }
            new = partitions.compact(connection, manifest, paths=paths, workspace=work, most=1)
            commit(root, manifest, new=new, tables={})
    return CompactionResult(before, len(manifest.partitions), manifest.version)
