"""Applies corrections and deletions (the column `operation` of a source) to events in the lake."""

from pathlib import Path

import duckdb

from shortlist import columns as c
from shortlist.lake import partitions
from shortlist.lake.engine import parquet
from shortlist.lake.snapshot import Manifest

OPERATION = "operation"
INSERT, CORRECT, DELETE = "insert", "correct", "delete"
OPERATIONS = (INSERT, CORRECT, DELETE)


def apply_operations(
    connection: duckdb.DuckDBPyConnection,
    events: str,
    manifest: Manifest,
    *,
    paths: dict[str, Path],
    workspace: Path,
) -> tuple[dict[str, Path], list[int]]:
    """Remove deleted and corrected events from their files and write the corrected rows.

    `manifest` is updated in place. If an event_id has several operations, the last row applies.
    Files without affected events are not rewritten.

    Args:
        events: relation with the INTERACTIONS columns and `operation`.
        paths: {name in the snapshot: current path of the file}; new names are added.

    Returns:
        {name in the snapshot: new file}, and the earliest event time in microseconds of each file
        whose events were changed or added.
    """
    columns = partitions.COLUMNS
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ops AS SELECT {columns}, {OPERATION} FROM {events}"
        f" WHERE {OPERATION} IN ('{CORRECT}', '{DELETE}')"
        f" QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY {c.EVENT_ORDER} DESC) = 1"
    )
    new: dict[str, Path] = {}
    touched: list[int] = []
    if manifest.granularity is None:  # the lake is empty
        manifest.granularity = "month"
    for key in list(manifest.partitions):
        part = manifest.partitions[key]
        for name in list(part["files"]):
            source = parquet([paths[name]])
            hit = f"{source} SEMI JOIN ops USING (event_id)"
            ((rows, earliest, _),) = connection.execute(
                f"SELECT count(*), {partitions.TIMES} FROM {hit}"
            ).fetchall()
            if rows == 0:
                continue
            touched.append(earliest)
            part["files"].remove(name)
            fresh = f"{name.removesuffix('.parquet')}-{manifest.version:06d}.parquet"
            rest = f"SELECT {columns} FROM {source} ANTI JOIN ops USING (event_id)"
            written = partitions.write(connection, rest, workspace / fresh)
            if written is not None:
                part["files"].append(fresh)
                new[fresh] = paths[fresh] = written.path
            part["rows"] -= rows
        if not part["files"]:
            del manifest.partitions[key]
    key_sql = partitions.key_sql(manifest.granularity)
    corrected = f"ops WHERE {OPERATION} = '{CORRECT}'"
    for (key,) in connection.execute(f"SELECT DISTINCT {key_sql} FROM {corrected}").fetchall():
        folder = partitions.folder_of(manifest.granularity, key)
        name = f"{folder}/{manifest.version:06d}-corrected.parquet"
        rows = f"SELECT {columns} FROM {corrected} AND {key_sql} = '{key}'"
        written = partitions.write(connection, rows, workspace / name)
        assert written is not None, "the key came from a row"
        partitions.add(manifest, key, name, written)
        new[name] = paths[name] = written.path
        touched.append(written.earliest)
    return new, touched
