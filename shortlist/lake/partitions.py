"""One partition at a time: what is new to it, in order of time, in one more file."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS
from shortlist.lake.engine import parquet, quoted
from shortlist.lake.snapshot import Granularity, Manifest

FORMATS: dict[Granularity, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
FULL_DAY = 20_000
"""Events a day from which a partition holds one day."""
FULL_MONTH = 1_000
MAX_DAYS = 1_000
MAX_FILES = 8
"""A partition of more files than this is rewritten into one."""
DAY = c.MICROSECONDS_PER_DAY
COLUMNS = ", ".join(INTERACTIONS.names)
WRITE = "(FORMAT parquet, COMPRESSION zstd)"
TIMES = f"epoch_us(min({c.EVENT_TIMESTAMP})), epoch_us(max({c.EVENT_TIMESTAMP}))"


@dataclass(frozen=True)
class Written:
    """A new file of a partition."""

    path: Path
    rows: int
    earliest: int
    latest: int


def granularity_for(rows: int, *, earliest: int, latest: int) -> Granularity:
    """How wide a partition is, chosen once: some thousand events in each, some hundred in all."""
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
) -> Written | None:
    """Write what `source` has that is not known yet, sorted by time; None if that is nothing.

    Args:
        source: relation of the INTERACTIONS columns.
        known: relations with an event_id; rows with one of those are left out.
        unique: whether each event_id is known to be there once.
        session: (files whose sessions may go on, gap in microseconds): derive missing session ids.
    """
    query = f"SELECT {COLUMNS} FROM {source}"
    if not unique:
        query += f" QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY {c.EVENT_ORDER}) = 1"
    for relation in known:
        query = f"SELECT n.* FROM ({query}) n ANTI JOIN {relation} o USING (event_id)"
    if session is not None:
        query = _with_sessions(connection, query, before=session[0], gap=session[1])
    return write(connection, query, target)


def write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> Written | None:
    """Write events in order of time. None, and no file, if there are none."""
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
    return Written(target, int(rows), earliest, latest)


def _with_sessions(
    connection: duckdb.DuckDBPyConnection, query: str, *, before: list[Path], gap: int
) -> str:
    """A session is a user's events with less than `gap` between neighbours; it is named by its
    user and its start. Events of `before` pass their session on, so that one that runs across
    two batches stays one. Only users with an event that names none are looked at.
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


def add(manifest: Manifest, key: str, name: str, written: Written) -> None:
    """Note a new file in the manifest."""
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
    """Rewrite partitions of more than `most` files into one; returns the new files by name.

    Args:
        paths: {name in the snapshot: where the file is now}.
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
