"""Staged batches: rows that ingest read from a source, stored until validation.

    incoming/<batch_id>/batch.json             StagedBatch: counts and the source's reading state
    incoming/<batch_id>/<table>/*.parquet      contract columns and the columns EXTRA
    incoming/<batch_id>/rejected.parquet       lines that could not be parsed

The column `original` holds each row as it was in the source, so that rows refused by validation can
be quarantined without loss. Rows keep the order of the source.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.lake.engine import parquet
from shortlist.lake.snapshot import LakeError, write_whole

EXTRA = ("operation", "excluded", "faults", "original")
"""Extra columns of a staged table: `operation` (insert, correct or delete), `excluded` (whether
`[data] exclude` matches), `faults` (names of the rules for cells that could not be converted),
`original` (unchanged row).
"""
REJECTED = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("original", pa.string()),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("mapping", pa.int64()),
    ]
)
PART_BITS = 40
"""Row r of file p has event_order p * 2^PART_BITS + r."""
SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}


@dataclass
class StagedBatch:
    """Content of batch.json: counts and reading state of a batch."""

    batch_id: str
    read: dict[str, int] = field(default_factory=dict)
    """Table -> number of rows read, including unparsable ones."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Table -> number of rows that could not be parsed."""
    given_ids: bool = False
    """Whether event_ids come from the source; otherwise they are derived."""
    operations: bool = False
    """Whether the source has a mapped column of operations."""
    create: tuple[str, ...] = ("users",)
    """Tables to which validation adds rows for ids that occur only in interactions."""
    whole_catalogue: bool = False
    """Whether the batch has the whole catalogue, so that items missing in it become unavailable."""
    session_gap: int | None = None
    """Largest gap within a session in microseconds, to derive missing session ids; None: don't
    derive them.
    """
    posted: bool = False
    """Whether all rows were posted to the service. Posted rows never stop a batch."""
    files: tuple[str, ...] = ()
    unchanged: int = 0
    """Number of files that were skipped because the lake already has their content."""
    anonymous: int = 0
    """Number of logged responses that were skipped because the visitor had no id."""
    hold_back: float = 0.0
    """Share of the target events that validation keeps out of the lake for the replay."""
    target_events: tuple[str, ...] = ()
    source: tuple[str, dict[str, Any]] | None = None
    """(key, reading state of the source after this batch), stored in the lake's manifest."""
    replay_of: str | None = None
    """Id of the batch whose quarantined rows this batch restores; None for other batches."""
    mappings: list[dict[str, Any]] = field(default_factory=list)
    """Distinct column mappings of the interaction files; `quarantine restore` uses them to read a
    row again.
    """
    parts: dict[str, int] = field(default_factory=dict)
    """Number of a file in interactions/ -> position in `mappings`."""

    @property
    def is_empty(self) -> bool:
        return sum(self.read.values()) == 0


class Staging:
    """The folder of a batch while ingest writes it."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in SCHEMAS:
            (folder / name).mkdir(parents=True)
        self.rejected: list[pa.Table] = []

    def next_part(self, table: str) -> Path:
        """Return the path of the next file of a table."""
        return self.folder / table / f"{len(list((self.folder / table).iterdir())):05d}.parquet"

    def finish(self, batch: StagedBatch) -> None:
        """Write rejected rows and batch.json; counts rejected rows in `batch.rejected`."""
        if self.rejected:
            table = pa.concat_tables(self.rejected)
            write_whole(table, self.folder / "rejected.parquet")
            for name in set(table.column("table").to_pylist()):
                rows = table.filter(pa.compute.equal(table.column("table"), name)).num_rows
                batch.rejected[name] = rows
        (self.folder / "batch.json").write_text(json.dumps(asdict(batch), indent=1))


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """Yield a folder to stage a batch in.

    It is removed afterwards unless `finish_batch` has moved it. Folders that killed processes left
    are removed first.
    """
    folder = root / "incoming" / f".staging-{os.getpid()}"
    for left in (root / "incoming").glob(".staging-*"):
        if not _runs(int(left.name.removeprefix(".staging-"))) or left == folder:
            shutil.rmtree(left, ignore_errors=True)  # left by a killed ingest
    try:
        yield Staging(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in (root / "incoming", root):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def finish_batch(staged: Staging, root: Path, batch: StagedBatch) -> Path:
    """Finish the batch and move its folder to incoming/<batch_id>, replacing an earlier one."""
    staged.finish(batch)
    target = root / "incoming" / batch.batch_id
    shutil.rmtree(target, ignore_errors=True)
    staged.folder.rename(target)
    return target


def open_staged(root: Path, batch_id: str) -> tuple[Path, StagedBatch]:
    """Open a staged batch: its folder and StagedBatch. Raises LakeError if there is none."""
    folder = root / "incoming" / batch_id
    try:
        content = json.loads((folder / "batch.json").read_text())
    except (OSError, ValueError):
        there = sorted(p.name for p in (root / "incoming").glob("[!.]*"))
        raise LakeError(
            f"{folder}: batch '{batch_id}' was not ingested (run `shortlist ingest`);"
            f" ingested batches: {', '.join(there) or 'none'}"
        ) from None
    content["create"] = tuple(content["create"])
    content["files"] = tuple(content["files"])
    content["target_events"] = tuple(content["target_events"])
    content["source"] = tuple(content["source"]) if content["source"] else None
    return folder, StagedBatch(**content)


def newest_staged(root: Path) -> str:
    """Return the id of the batch that was staged last. Raises LakeError if none is waiting."""
    waiting = list((root / "incoming").glob("[!.]*/batch.json"))
    if not waiting:
        raise LakeError(f"{root / 'incoming'}: no batch is waiting; run `shortlist ingest`")
    return max(waiting, key=lambda path: path.stat().st_mtime_ns).parent.name


def staged_events(folder: Path, *, original: bool = False) -> str:
    """Return an SQL relation of a staged batch's interactions, with `event_order`.

    Args:
        original: include the column `original`. Its type differs between sources, so DuckDB must
            read the schema of every file.
    """
    files = sorted((folder / "interactions").glob("*.parquet"))
    options = ", file_row_number = true, filename = true"
    options += ", union_by_name = true" if original else ""
    part = f"(CAST(parse_filename(filename, true) AS BIGINT) << {PART_BITS})"
    left_out = "filename, file_row_number" + ("" if original else ", original")
    return (
        f"(SELECT * EXCLUDE ({left_out}), {part} + file_row_number AS {c.EVENT_ORDER}"
        f" FROM {parquet(files, more=options)})"
    )


def staged_rows(folder: Path, table: str) -> str:
    """Return an SQL relation of a staged batch's items or users, with `original` as text."""
    files = sorted((folder / table).glob("*.parquet"))
    return f"(SELECT * FROM {parquet(files, more=', union_by_name = true')})"
