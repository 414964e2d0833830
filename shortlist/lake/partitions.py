"""Writes the partitions of interactions (folders by day, month or year).

New events are appended as a file; a partition with many files is compacted into one.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS
from shortlist.lake.engine import parquet, quoted
from shortlist.lake.snapshot import Granularity, Manifest

FORMATS: dict[Granularity, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
FULL_DAY = 20_000
"""Minimum number of events per day for daily partitions."""
FULL_MONTH = 1_000
"""Minimum number of events per month for monthly partitions."""
MAX_DAYS = 1_000
"""Maximum number of daily or monthly partitions that the time span of the first batch may give."""
MAX_FILES = 8
"""A partition with more files than this is rewritten into a single file."""
DAY = c.MICROSECONDS_PER_DAY
COLUMNS = ", ".join(INTERACTIONS.names)
WRITE = "(FORMAT parquet, COMPRESSION zstd)"
TIMES = f"epoch_us(min({c.EVENT_TIMESTAMP})), epoch_us(max({c.EVENT_TIMESTAMP}))"


@dataclass(frozen=True)
class PartitionFile:
    """A new file of a partition, with the first and last event time in microseconds."""

    path: Path
    rows: int
    earliest: int
    latest: int


def granularity_for(rows: int, *, earliest: int, latest: int) -> Granularity:
    """Choose the partition width for a lake from its first batch: day, month or year.

    The aim is thousands of events per partition and at most hundreds of partitions.

    Args:
        rows: number of events.
        earliest, latest: first and last event time in microseconds.
    """
    days = (latest - earliest) / DAY + 1
    if rows / days >= FULL_DAY and days <= MAX_DAYS:
        return "day"
    return "month" if rows / days * 30 >= FULL_MONTH and days <= 30 * MAX_DAYS else "year"


def folder_of(granularity: Granularity, key: str) -> str:
    return f"interactions/event_{granularity}={key}"


def key_sql(granularity: Granularity) -> str:
    return f"strftime({c.EVENT_TIMESTAMP}, '{FORMATS[granularity]}')"


def append(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    target: Path,
    *,
    known: list[str],
    unique: bool,
    session: tuple[list[Path], int] | None,
) -> PartitionFile | None:
    """Write the new events of `source`, sorted by time; None if there are none.

    Args:
        source: relation with the INTERACTIONS columns.
        known: relations with a column event_id; events with these ids are left out.
        unique: True if no event_id occurs twice in `source`.
        session: for deriving missing session ids: (files of earlier events, whose sessions may
            continue; largest gap within a session in microseconds). None: don't derive them.
    """
    query = f"SELECT {COLUMNS} FROM {source}"
    if not unique:
        query += f" QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY {c.EVENT_ORDER}) = 1"
    for relation in known:
        query = f"SELECT n.* FROM ({query}) n ANTI JOIN {relation} o USING (event_id)"
    if session is not None:
        query = _with_sessions(connection, query, before=session[0], gap=session[1])
    return write(connection, query, target)


def write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> PartitionFile | None:
    """Write the events of `query` sorted by time; None and no file if there are none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    order = f"{c.EVENT_TIMESTAMP}, {c.EVENT_ORDER}"
    copy = f"COPY ({query} ORDER BY {order}) TO {quoted(str(target))} {WRITE}"
    ((rows,),) = connection.execute(copy).fetchall()
    if rows == 0:
        target.unlink()
        return None
    ((earliest, latest),) = connection.execute(
        f"SELECT {TIMES} FROM {parquet([target])}"
    ).fetchall()
    return PartitionFile(target, int(rows), earliest, latest)


def _with_sessions(
    connection: duckdb.DuckDBPyConnection, query: str, *, before: list[Path], gap: int
) -> str:
    """Return a query that fills missing session ids.

    A session is a sequence of a user's events with gaps of at most `gap` microseconds. Its id is
    made of the user and its start. Events in the files `before` are included, so that a session
    across two batches keeps its id. Only users with an event without a session id are processed.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE wanting AS"
        f" SELECT DISTINCT user_id FROM ({query}) WHERE {c.SESSION_ID} IS NULL"
    )
    if connection.execute("SELECT count(*) FROM wanting").fetchall() == [(0,)]:
        return query
    of_them = "SEMI JOIN wanting USING (user_id)"
    past = ""
    if before:
        past = f"UNION ALL SELECT {COLUMNS}, false AS is_new FROM {parquet(before)} {of_them}"
    order = f"PARTITION BY user_id ORDER BY {c.EVENT_TIMESTAMP}, {c.EVENT_ORDER}"
    return f"""
        WITH stream AS (
            SELECT {COLUMNS}, true AS is_new FROM ({query}) {of_them} {past}
        ), marked AS (
            SELECT *, coalesce(epoch_us({c.EVENT_TIMESTAMP})
                - lag(epoch_us({c.EVENT_TIMESTAMP})) OVER ({order}) > {gap}, true) AS starts
            FROM stream
        ), numbered AS (
            SELECT *, count_if(starts) OVER ({order} ROWS UNBOUNDED PRECEDING) AS number
            FROM marked
        ), named AS (
            SELECT * REPLACE (coalesce({c.SESSION_ID}, first_value({c.SESSION_ID}) OVER visit,
                user_id || '@' || (first_value(epoch_us({c.EVENT_TIMESTAMP})) OVER visit
                    // 1000000)) AS {c.SESSION_ID})
            FROM numbered
            WINDOW visit AS (PARTITION BY user_id, number
                ORDER BY {c.EVENT_TIMESTAMP}, {c.EVENT_ORDER} ROWS UNBOUNDED PRECEDING)
        )
        SELECT {COLUMNS} FROM (
            SELECT {COLUMNS} FROM named WHERE is_new
            UNION ALL SELECT {COLUMNS} FROM ({query}) ANTI JOIN wanting USING (user_id)
        )
    """


def add(manifest: Manifest, key: str, name: str, written: PartitionFile) -> None:
    """Add a new file to the manifest's partition `key`."""
    part = manifest.partitions.setdefault(
        key, {"files": [], "rows": 0, "earliest": written.earliest, "latest": written.latest}
    )
    part["files"].append(name)
    part["rows"] += written.rows
    part["earliest"] = min(part["earliest"], written.earliest)
    part["latest"] = max(part["latest"], written.latest)


def compact(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    *,
    paths: dict[str, Path],
    workspace: Path,
    most: int = MAX_FILES,
) -> dict[str, Path]:
    """Rewrite partitions with more than `most` files into one file; return the new files by name.

    Args:
        paths: {name in the snapshot: current path of the file}.
    """
    new = {}
    assert manifest.granularity is not None or not manifest.partitions
    for key, part in manifest.partitions.items():
        if len(part["files"]) <= most:
            continue
        assert manifest.granularity is not None
        name = f"{folder_of(manifest.granularity, key)}/{manifest.version:06d}-whole.parquet"
        files = [paths[file] for file in part["files"]]
        written = write(connection, f"SELECT {COLUMNS} FROM {parquet(files)}", workspace / name)
        assert written is not None, "a partition has rows"
        assert written.rows == part["rows"], f"compaction of {key} keeps every row"
        part["files"] = [name]
        new[name] = written.path
    return new
