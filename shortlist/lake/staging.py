"""A staged batch: what ingest made of a source, beside the lake, until it is validated.

    incoming/<batch_id>/batch.json             figures of the reading, and what the source has given
    incoming/<batch_id>/<table>/*.parquet      contract columns, and those of EXTRA
    incoming/<batch_id>/rejected.parquet       lines that no reader could make a row of

`original` holds the row as the source had it, so that nothing is lost whatever validation decides.
The order in the source is the order of the rows in the files.
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
"""insert | correct | delete; left out by a rule of the config; names of mapping rules that the row
breaks; the row as it was.
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
"""event_order of row r of part p is p * 2^40 + r."""
SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}


@dataclass
class StagedBatch:
    """What batch.json says. Rows that could not be parsed are counted in `read` too."""

    batch_id: str
    read: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    given_ids: bool = False
    operations: bool = False
    """Whether the source maps a column of operations."""
    create: tuple[str, ...] = ("users",)
    """Tables that are, or are completed by, what the interactions mention."""
    session_gap: int | None = None
    files: tuple[str, ...] = ()
    unchanged: int = 0
    """Files that were left out because the lake has them already."""
    anonymous: int = 0
    """Shown lists that were left out because their visitor had no id."""
    hold_back: float = 0.0
    """Share of the target events that validation keeps out of the lake."""
    target_events: tuple[str, ...] = ()
    source: tuple[str, dict[str, Any]] | None = None
    replay_of: str | None = None
    mappings: list[dict[str, Any]] = field(default_factory=list)
    """How files of interactions were read, each way once: what a replay needs to read a row again.
    """
    parts: dict[str, int] = field(default_factory=dict)
    """Number of a file in interactions/ -> place in `mappings`."""

    @property
    def is_empty(self) -> bool:
        return sum(self.read.values()) == 0


class Staging:
    """The folder of a batch that is being written."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in SCHEMAS:
            (folder / name).mkdir(parents=True)
        self.rejected: list[pa.Table] = []

    def next_part(self, table: str) -> Path:
        """Path of the next file of a table."""
        return self.folder / table / f"{len(list((self.folder / table).iterdir())):05d}.parquet"

    def finish(self, batch: StagedBatch) -> None:
        if self.rejected:
            table = pa.concat_tables(self.rejected)
            write_whole(table, self.folder / "rejected.parquet")
            for name in set(table.column("table").to_pylist()):
                rows = table.filter(pa.compute.equal(table.column("table"), name)).num_rows
                batch.rejected[name] = rows
        (self.folder / "batch.json").write_text(json.dumps(asdict(batch), indent=1))


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """A folder to stage in; gone afterwards unless `settle` has moved it."""
    folder = root / "incoming" / f".staging-{os.getpid()}"
    for left in (root / "incoming").glob(".staging-*"):
        if not _runs(int(left.name.removeprefix(".staging-"))) or left == folder:
            shutil.rmtree(left, ignore_errors=True)  # of an ingest that was killed
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


def settle(staged: Staging, root: Path, batch: StagedBatch) -> Path:
    """Name the folder by its batch; a batch that is staged again replaces the one before."""
    staged.finish(batch)
    target = root / "incoming" / batch.batch_id
    shutil.rmtree(target, ignore_errors=True)
    staged.folder.rename(target)
    return target


def open_staged(root: Path, batch_id: str) -> tuple[Path, StagedBatch]:
    """Folder and description of a staged batch. Raises LakeError if there is none."""
    folder = root / "incoming" / batch_id
    try:
        content = json.loads((folder / "batch.json").read_text())
    except (OSError, ValueError):
        there = sorted(p.name for p in (root / "incoming").glob("[!.]*"))
        raise LakeError(
            f"{folder}: batch '{batch_id}' was not ingested (run `shortlist ingest`);"
            f" waiting are {', '.join(there) or 'none'}"
        ) from None
    content["create"] = tuple(content["create"])
    content["files"] = tuple(content["files"])
    content["target_events"] = tuple(content["target_events"])
    content["source"] = tuple(content["source"]) if content["source"] else None
    return folder, StagedBatch(**content)


def staged_events(folder: Path, *, original: bool = False) -> str:
    """Relation of a staged batch's interactions, with `event_order`.

    Args:
        original: with the rows as they were; they are of a different shape for each source, which
            costs a look into every file.
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
    """Relation of a staged batch's items or users, `original` as text."""
    files = sorted((folder / table).glob("*.parquet"))
    return f"(SELECT * FROM {parquet(files, more=', union_by_name = true')})"
