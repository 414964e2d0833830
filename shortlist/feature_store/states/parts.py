"""Files of state snapshots: writes parts and the newest row of each key, and merges parts.

A part is a Parquet file with the rows that one refresh has added to a view.
"""

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.feature_store.states import item_days
from shortlist.feature_store.states.snapshots import sql_path

MAX_PARTS = 60
"""A view with this many parts gets its small parts merged."""
ROW_GROUP = 122_880
"""Rows per Parquet row group."""


def write_part(
    connection: duckdb.DuckDBPyConnection, query: str, folder: Path, view: str, part: int
) -> int:
    """Write the rows of a query as part `part` of a view; return the number of rows."""
    target = folder / view / f"{part:06}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    ((written,),) = connection.execute(
        f"COPY ({query}) TO '{sql_path(partial)}'"
        f" (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {ROW_GROUP})"
    ).fetchall()
    partial.rename(target)
    return int(written)


def write_items(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    entries: str,
    folder: Path,
    *,
    part: int,
    tick: int,
) -> int:
    """Write a part of item_state, with day counts computed in numpy; return the number of rows.

    Args:
        query: SQL of the item states at ticks, without day counts.
        entries: SQL of `item_days.entries`.
        tick: tick length in microseconds.
    """
    rows = connection.sql(
        f"SELECT *, epoch_us(event_timestamp) AS item_tick_time FROM ({query})"
        " WHERE item_id IS NOT NULL"  # searches have no item
    ).to_arrow_table()
    counts = item_days.day_counts(
        connection.sql(f"SELECT * FROM ({entries}) ORDER BY item_id, day, tick").to_arrow_table(),
        pa.table({"item_id": rows["item_id"], "tick_time": rows["item_tick_time"]}),
        tick=tick,
    )
    target = folder / "item_state" / f"{part:06}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    pq.write_table(
        rows.append_column("item_day_counts", counts),
        partial,
        compression="zstd",
        compression_level=1,
    )
    partial.rename(target)
    return rows.num_rows


def write_current(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    view: str,
    key: str,
    *,
    part: int,
    before: int | None,
) -> None:
    """Write the newest row of each key, from part `part` and the newest rows of part `before`.

    Args:
        key: key column of the view, such as "user_id".
        part: number of the part that was added.
        before: number of the part before it; None for a full build.
    """
    target = folder / "current" / str(part) / f"{view}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    new = f"""
        SELECT * FROM read_parquet('{sql_path(folder / view / f"{part:06}.parquet")}')
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY event_timestamp DESC) = 1
    """
    query = new
    if before is not None:
        old = folder / "current" / str(before) / f"{view}.parquet"
        query = f"""
            WITH new AS ({new})
            SELECT * FROM new UNION ALL BY NAME
            SELECT * FROM read_parquet('{sql_path(old)}') ANTI JOIN new USING ({key})
        """
    connection.execute(f"COPY ({query}) TO '{sql_path(target)}' (FORMAT parquet)")


def merge_parts(folder: Path, views: tuple[str, ...]) -> None:
    """Merge the small parts of each view that has MAX_PARTS or more parts.

    Merging starts with the newest part. The next older part is included while it is less than twice
    as large as all newer ones together. This bounds both the number of files that a join reads and
    the number of times that a row is copied.

    Rows don't change. The folder is replaced by a rename, so readers see old files or new files.
    """
    merged = {}
    for view in views:
        parts = sorted((folder / view).glob("*.parquet"))
        if len(parts) >= MAX_PARTS:
            merged[view] = _small(parts)
    if not merged:
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    taken = {part for small in merged.values() for part in small}
    for file in folder.rglob("*"):
        if file.is_file() and file not in taken:
            target = partial / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(file)
    for view, small in merged.items():
        (partial / view).mkdir(parents=True, exist_ok=True)
        _concatenate(small, partial / view / small[-1].name)
    swap(partial, folder)


def _small(parts: list[Path]) -> list[Path]:
    sizes = [part.stat().st_size for part in parts]
    first, newer = len(parts) - 1, sizes[-1]
    while first > 0 and sizes[first - 1] < 2 * newer:
        first -= 1
        newer += sizes[first]
    return parts[first:]


def _concatenate(parts: list[Path], target: Path) -> None:
    """Concatenate parts in order, so that each row group still covers a short span of time."""
    schema = pq.read_schema(parts[0])
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for part in parts:
            for batch in pq.ParquetFile(part).iter_batches(ROW_GROUP):
                waiting.append(pa.Table.from_batches([batch]).cast(schema))
                if sum(table.num_rows for table in waiting) >= ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def swap(new: Path, folder: Path) -> None:
    """Replace `folder` by `new`. If the process is killed in between, `recover` restores it."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Restore the old snapshots if a swap was interrupted before the new ones were in place."""
    old = folder.with_name(folder.name + ".old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
