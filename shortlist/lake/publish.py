"""Publishes a batch of valid rows as the next snapshot of the lake.

Steps: partition and deduplicate the events, apply corrections and deletions, compact partitions,
commit. Memory is bounded: DuckDB spills to disk, and partitions are processed one at a time.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.lake import partitions
from shortlist.lake.engine import connect, parquet, quoted
from shortlist.lake.operations import CORRECT, DELETE, INSERT, OPERATION, apply_operations
from shortlist.lake.snapshot import (
    KEPT_BATCHES,
    Manifest,
    commit,
    current_folder,
    current_manifest,
    locked,
    workspace,
    write_whole,
)
from shortlist.lake.versions import VERSIONS, add_versions

GONE = "gone.parquet"
"""File of event_ids that were corrected or deleted, so that their original rows are not inserted
again.
"""


@dataclass
class Published:
    """Result of publishing a batch: numbers of events, items and users."""

    accepted: int = 0
    """Number of new events."""
    duplicates: int = 0
    """Number of events that were left out because their event_id was known."""
    applied: int = 0
    """Number of corrections and deletions."""
    late: int = 0
    """Number of accepted events that are older than the newest event before the batch."""
    earliest: int | None = None
    """Earliest time (microseconds) of an added or changed event; features after it are stale."""
    items: int = 0
    """Number of items in the catalogue after the batch."""
    users: int = 0
    """Number of users in the lake after the batch."""
    version: int = 0

    def touch(self, time: int) -> None:
        """Record that an event with this time was added or changed."""
        self.earliest = time if self.earliest is None else min(self.earliest, time)


def publish_batch(
    root: Path, batch_id: str, *, events: pa.Table, items: pa.Table, users: pa.Table, **more: Any
) -> Published:
    """Take the lake's lock, open a connection, and call `publish` with in-memory tables.

    Args:
        more: further arguments of `publish`.
    """
    with locked(root), workspace(root) as work, connect(work) as connection:
        connection.register("good_events", events)
        return publish(
            connection,
            root,
            batch_id,
            work=work,
            events="good_events",
            items=items,
            users=users,
            **more,
        )


def publish(
    connection: duckdb.DuckDBPyConnection,
    root: Path,
    batch_id: str,
    *,
    work: Path,
    events: str,
    items: pa.Table,
    users: pa.Table,
    given_ids: bool,
    unique_ids: bool = False,
    operations: bool = False,
    session_gap: int | None = None,
    arrived: int | None = None,
    source: tuple[str, dict[str, Any]] | None = None,
    record: dict[str, Any] | None = None,
) -> Published:
    """Commit the next snapshot. The caller must hold the lake's write lock.

    Args:
        work: the lake's workspace folder.
        events: relation with the INTERACTIONS columns and, if `operations`, `operation`.
        items, users: rows that replace those with the same id.
        given_ids: True if event_ids come from the source. Then known ids are searched in the whole
            lake. False if they are derived from the event's content. They contain the time, so a
            repeated event is in the same partition, and only that is searched.
        unique_ids: True if no event_id occurs twice in `events`.
        operations: whether `events` has the column `operation`.
        session_gap: largest gap within a session in microseconds, to derive missing session ids;
            None: don't derive them.
        arrived: microseconds, time at which the batch's item versions became known; None: now.
        source: (key, reading state of the source such as file hashes or watermark), stored for the
            next ingest.
        record: further figures of the batch to be stored in the manifest.
    """
    old, manifest = current_folder(root), current_manifest(root)
    manifest.version += 1
    before = manifest.latest
    paths = {
        name: old / name for part in manifest.partitions.values() for name in part["files"] if old
    }
    done = Published(version=manifest.version)
    moved = f"(SELECT * FROM {events} WHERE {OPERATION} = '{INSERT}')" if operations else events
    new = _insert(
        connection,
        moved,
        manifest,
        done,
        paths=paths,
        work=work,
        gone=old / GONE if old is not None and (old / GONE).is_file() else None,
        given_ids=given_ids,
        unique_ids=unique_ids,
        session_gap=session_gap,
        before=before,
    )
    tables = {}
    if operations:
        files, tables = _operate(
            connection, events, manifest, done, old=old, work=work, paths=paths
        )
        new |= files
    new |= partitions.compact(connection, manifest, paths=paths, workspace=work)
    arrived = time.time_ns() // 1_000 if arrived is None else arrived
    if items.num_rows and add_versions(connection, old, items, work / VERSIONS, arrived=arrived):
        tables[VERSIONS] = work / VERSIONS
    # Items are part of the same commit, so readers never see an interaction without its item.
    for name, rows, key in (("items", items, c.ITEM_ID), ("users", users, c.USER_ID)):
        table = _upserted(old / f"{name}.parquet" if old else None, rows, key)
        write_whole(table, work / f"{name}.parquet")
        tables[f"{name}.parquet"] = work / f"{name}.parquet"
        setattr(done, name, table.num_rows)
    if source is not None:
        manifest.sources[source[0]] = source[1]
    figures = ("version", "earliest", "late", "accepted", "duplicates", "applied")
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    noted = {"batch_id": batch_id, "committed_at": stamp}
    noted |= {name: getattr(done, name) for name in figures} | (record or {})
    manifest.batches = [*manifest.batches, noted][-KEPT_BATCHES:]
    commit(root, manifest, new=new, tables=tables)
    return done


def _insert(
    connection: duckdb.DuckDBPyConnection,
    events: str,
    manifest: Manifest,
    done: Published,
    *,
    paths: dict[str, Path],
    work: Path,
    gone: Path | None,
    given_ids: bool,
    unique_ids: bool,
    session_gap: int | None,
    before: int | None,
) -> dict[str, Path]:
    """Write the new events, one partition at a time; counts are added to `done`.

    Returns:
        {name in the snapshot: new file}.
    """
    ((total, earliest, latest),) = connection.execute(
        f"SELECT count(*), {partitions.TIMES} FROM {events}"
    ).fetchall()
    if total == 0:
        return {}
    if manifest.granularity is None:
        manifest.granularity = partitions.granularity_for(total, earliest=earliest, latest=latest)
    known = [parquet([gone])] if gone is not None else []
    if given_ids:
        events = events if unique_ids else _first_of_each(connection, events)
        if paths:
            everywhere = parquet(list(paths.values()))
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE seen AS SELECT DISTINCT event_id"
                f" FROM {everywhere} SEMI JOIN {events} USING (event_id)"
            )
            known.append("seen")
    key_sql = partitions.key_sql(manifest.granularity)
    connection.execute("SET preserve_insertion_order = false")  # the files are sorted below
    connection.execute(
        f"COPY (SELECT {partitions.COLUMNS}, {key_sql} AS part FROM {events})"
        f" TO {quoted(str(work / 'parts'))}"
        " (FORMAT parquet, COMPRESSION lz4, PARTITION_BY (part))"
    )
    connection.execute("SET preserve_insertion_order = true")
    new: dict[str, Path] = {}
    last_files: list[Path] = []
    for folder in sorted((work / "parts").iterdir()):
        key = folder.name.removeprefix("part=")
        source = f"read_parquet({quoted(str(folder / '*.parquet'))}, hive_partitioning = false)"
        unique = given_ids or _unique(connection, source)
        mine = [paths[name] for name in manifest.partitions.get(key, {"files": []})["files"]]
        relations = list(known)
        if mine and not given_ids:
            relations.append(f"(SELECT event_id FROM {parquet(mine)})")
        name = f"{partitions.folder_of(manifest.granularity, key)}/{manifest.version:06d}.parquet"
        written = partitions.append(
            connection,
            source,
            work / name,
            known=relations,
            unique=unique,
            session=None if session_gap is None else (last_files + mine, session_gap),
        )
        last_files = mine
        if written is None:
            continue
        partitions.add(manifest, key, name, written)
        new[name] = paths[name] = written.path
        last_files = [*mine, written.path]
        done.accepted += written.rows
        done.touch(written.earliest)
        if before is not None and written.earliest < before:
            done.late += _older_than(connection, written.path, before)
    done.duplicates = total - done.accepted
    return new


def _first_of_each(connection: duckdb.DuckDBPyConnection, events: str) -> str:
    """Return a relation with only the first event of each event_id.

    This is done before partitioning, because repeated ids may have times of different partitions.
    """
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE repeated AS SELECT event_id, min({c.EVENT_ORDER}) AS first"
        f" FROM {events} GROUP BY event_id HAVING count(*) > 1"
    )
    if connection.execute("SELECT count(*) FROM repeated").fetchall() == [(0,)]:
        return events
    return (
        f"(SELECT e.* FROM {events} e LEFT JOIN repeated r USING (event_id)"
        f" WHERE r.first IS NULL OR r.first = e.{c.EVENT_ORDER})"
    )


def _unique(connection: duckdb.DuckDBPyConnection, source: str) -> bool:
    """Return whether all event_ids differ, tested by their hashes.

    A hash collision gives False, which only costs an exact deduplication.
    """
    query = f"SELECT count(*), count(DISTINCT hash(event_id)) FROM {source}"
    ((rows, ids),) = connection.execute(query).fetchall()
    return rows == ids


def _older_than(connection: duckdb.DuckDBPyConnection, path: Path, moment: int) -> int:
    query = f"SELECT count(*) FROM {parquet([path])} WHERE epoch_us(event_timestamp) < {moment}"
    ((rows,),) = connection.execute(query).fetchall()
    return rows


def _operate(
    connection: duckdb.DuckDBPyConnection,
    events: str,
    manifest: Manifest,
    done: Published,
    *,
    old: Path | None,
    work: Path,
    paths: dict[str, Path],
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Apply corrections and deletions; counts are added to `done`.

    Returns:
        {name in the snapshot: new file of interactions}, and the same of the new GONE table.
    """
    wanted = f"{events} WHERE {OPERATION} IN ('{CORRECT}', '{DELETE}')"
    ((done.applied,),) = connection.execute(f"SELECT count(*) FROM {wanted}").fetchall()
    if done.applied == 0:
        return {}, {}
    files, touched = apply_operations(connection, events, manifest, paths=paths, workspace=work)
    for moment in touched:
        done.touch(moment)
    query = f"SELECT DISTINCT event_id FROM {wanted}"
    if old is not None and (old / GONE).is_file():
        query += f" UNION SELECT event_id FROM {parquet([old / GONE])}"
    connection.execute(f"COPY ({query}) TO {quoted(str(work / GONE))} (FORMAT parquet)")
    return files, {GONE: work / GONE}


def _upserted(path: Path | None, rows: pa.Table, key: str) -> pa.Table:
    """Return old and new rows sorted by id; a new row replaces the old row with the same id."""
    if path is not None and path.is_file():
        old = pq.read_table(path)
        kept = old.filter(pc.invert(pc.is_in(old.column(key), value_set=rows.column(key))))
        rows = pa.concat_tables([kept, rows], promote_options="default")
    return rows.sort_by(key)
