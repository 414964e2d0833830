"""What the service showed becomes events: one `impression` for each item of a logged answer.

The serving log is read from where the last batch ended, file by file. An event's id comes from
request and item, so that a line that is read twice is one event. Answers to visitors without an id
are left out: they belong to nobody's state.

`ingested_at` is the time of the ingest, never that of the answer: online rows hold an impression
from the next refresh on, and states that are recomputed for an earlier time must not hold it.
"""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.api import ANONYMOUS
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.locate import SourceFile
from shortlist.datasets.readers import open_raw
from shortlist.datasets.staging import Stager
from shortlist.lake.engine import quoted

IMPRESSION = "impression"
SERVING_LOG = "serving_log"
GIVEN = (
    *(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIMESTAMP),
    *(c.REQUEST_ID, c.POSITION, c.SURFACE, c.DEVICE),
)
SHOWN = InteractionFile(path="(serving log)", columns={name: name for name in GIVEN})
LINE = {
    "request_id": "VARCHAR",
    "user_id": "VARCHAR",
    "context_id": "VARCHAR",
    "event_timestamp": "BIGINT",
    "items": 'STRUCT(item_id VARCHAR, "position" INTEGER)[]',
}


def stage_impressions(stager: Stager, known: dict[str, int]) -> dict[str, int]:
    """Stage the impressions of the answers that were logged since the last batch.

    Args:
        known: {file: bytes of it that the lake has already}.

    Returns:
        the same after this batch. A last line that isn't finished waits for the next one.

    Raises:
        DatasetError: a finished line isn't JSON or lacks a key; the file and what is wrong are
            named.
    """
    log = stager.settings.serving_log
    ends: dict[str, int] = {}
    copy = stager.staged.folder / "serving_log.jsonl"
    for path in sorted(log.rglob("*.jsonl")):
        name = path.relative_to(log).as_posix()
        ends[name] = _copy_new_lines(path, copy, start=known.get(name, 0))
        if ends[name] == known.get(name, 0):
            stager.batch.unchanged += 1
            continue
        _stage(stager, copy, where=path, bytes_=(known.get(name, 0), ends[name]))
    copy.unlink(missing_ok=True)
    return ends


def _copy_new_lines(path: Path, copy: Path, *, start: int) -> int:
    """Copy the finished lines from byte `start` on; returns the byte where they end."""
    end = start
    with path.open("rb") as source, copy.open("wb") as target:
        source.seek(start)
        for line in source:
            if line.endswith(b"\n"):
                target.write(line)
                end += len(line)
    return end


def _stage(stager: Stager, lines: Path, *, where: Path, bytes_: tuple[int, int]) -> None:
    """Stage the impressions of a file of whole lines."""
    table = stager.staged.folder / "impressions.parquet"
    columns = ", ".join(f"'{name}': {quoted(kind)}" for name, kind in LINE.items())
    read = f"read_json({quoted(str(lines))}, format = 'newline_delimited', columns = {{{columns}}})"
    try:
        broken, anonymous = stager.connection.execute(
            "SELECT count_if(request_id IS NULL OR user_id IS NULL OR event_timestamp IS NULL"
            " OR items IS NULL OR len(list_filter(items, lambda x: x.item_id IS NULL)) > 0),"
            f" count_if(user_id = '{ANONYMOUS}') FROM {read}"
        ).fetchall()[0]
        if broken:
            raise DatasetError(
                f"{where}: {broken} lines after byte {bytes_[0]} lack request_id, user_id,"
                " event_timestamp, items or an item's item_id"
            )
        stager.connection.execute(f"""
            COPY (
                SELECT md5(request_id || chr(31) || item.item_id) AS {c.EVENT_ID},
                    user_id AS {c.USER_ID}, item.item_id AS {c.ITEM_ID},
                    '{IMPRESSION}' AS {c.EVENT_TYPE},
                    make_timestamptz(event_timestamp) AS {c.EVENT_TIMESTAMP},
                    request_id AS {c.REQUEST_ID}, item."position" AS {c.POSITION},
                    {_part(1)} AS {c.SURFACE}, {_part(2)} AS {c.DEVICE}
                FROM (
                    SELECT *, unnest(items) AS item FROM {read} WHERE user_id <> '{ANONYMOUS}'
                )
            ) TO {quoted(str(table))} (FORMAT parquet, COMPRESSION lz4_raw)
        """)
    except duckdb.Error as error:
        problem = str(error).splitlines()[0].replace(str(lines), "the lines")
        raise DatasetError(f"{where}: after byte {bytes_[0]}: {problem}") from None
    stager.batch.anonymous += anonymous
    stager.batch.files = (*stager.batch.files, str(where))
    stager.fresh.append(f"{where.name}:{bytes_[0]}-{bytes_[1]}")
    if pq.read_metadata(table).num_rows == 0:
        stager.batch.unchanged += 1
    else:
        file = SourceFile(SERVING_LOG, table, "parquet", None)
        stager.events(open_raw(file, SHOWN), SHOWN, file=file)
    table.unlink()


def _part(place: int) -> str:
    """SQL of a part of the context's id, "surface|device|hour"; NULL where it isn't known."""
    return f"nullif(nullif(split_part(context_id, '|', {place}), 'unknown'), '')"
