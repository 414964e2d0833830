"""What the service showed becomes events: one `impression` for each item of a logged answer.

The serving log is read from where the last batch ended, file by file. An event's id comes from
request and item, so that a line that is read twice is one event. Answers to visitors without an id
are left out: they belong to nobody's state.

`ingested_at` is the time of the ingest and later than every answer of the batch: online rows hold
an impression once this refresh has ended, so states that are recomputed for a time before the
ingest must not hold it. (The replay clock may be behind the answers, since only posts move it.) For
answers that were made during the refresh, the log has the stamps of their base rows.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from shortlist import columns as c
from shortlist import counting
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.locate import SourceFile
from shortlist.datasets.readers import open_raw
from shortlist.datasets.staging import Stager
from shortlist.ids import ANONYMOUS
from shortlist.lake.engine import quoted

IMPRESSION = "impression"
GIVEN = (
    *(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIMESTAMP),
    *(c.INGESTED_AT, c.REQUEST_ID, c.POSITION, c.SURFACE, c.DEVICE),
)
SHOWN = InteractionFile(
    path="(serving log)", columns={name: name for name in GIVEN}, exact_ids=True
)
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
    logs: list[NewLines] = []
    for number, path in enumerate(sorted(log.rglob("*.jsonl"))):
        name = path.relative_to(log).as_posix()
        start, copy = known.get(name, 0), stager.staged.folder / f"shown-{number}.jsonl"
        ends[name] = _copy_new_lines(path, copy, start=start)
        if ends[name] == start:
            stager.batch.unchanged += 1
            copy.unlink()
        else:
            logs.append(_checked(stager, NewLines(path, copy, start, ends[name])))
    ingested_at = max([stager.now, *(one.newest + 1 for one in logs)])
    for one in logs:
        _stage(stager, one, ingested_at=ingested_at)
        one.copy.unlink()
    return ends


@dataclass
class NewLines:
    """What a file of the log has beyond the last batch."""

    path: Path
    copy: Path
    start: int
    end: int
    newest: int = 0
    """Time of the newest answer, microseconds."""

    @property
    def relation(self) -> str:
        columns = ", ".join(f"'{name}': {quoted(kind)}" for name, kind in LINE.items())
        file = quoted(str(self.copy))
        return f"read_json({file}, format = 'newline_delimited', columns = {{{columns}}})"


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


def _checked(stager: Stager, lines: NewLines) -> NewLines:
    """The lines with their newest time; answers to visitors without an id are counted."""
    where = f"{lines.path}: after byte {lines.start}"
    try:
        broken, anonymous, newest = stager.connection.execute(
            "SELECT count_if(request_id IS NULL OR user_id IS NULL OR event_timestamp IS NULL"
            " OR items IS NULL OR len(list_filter(items, lambda x: x.item_id IS NULL)) > 0),"
            f" count_if(user_id = '{ANONYMOUS}'), max(event_timestamp) FROM {lines.relation}"
        ).fetchall()[0]
    except duckdb.Error as error:
        problem = str(error).splitlines()[0].replace(str(lines.copy), "the lines")
        raise DatasetError(f"{where}: {problem}") from None
    if broken:
        raise DatasetError(
            f"{where}: {broken} lines lack request_id, user_id, event_timestamp, items or an item's"
            " item_id"
        )
    stager.batch.anonymous += anonymous
    lines.newest = newest
    return lines


def _stage(stager: Stager, lines: NewLines, *, ingested_at: int) -> None:
    """Stage the impressions of one file's new lines."""
    table = stager.staged.folder / "impressions.parquet"
    ((rows,),) = stager.connection.execute(f"""
        COPY (
            SELECT md5(request_id || chr(31) || item.item_id) AS {c.EVENT_ID},
                user_id AS {c.USER_ID}, item.item_id AS {c.ITEM_ID},
                '{IMPRESSION}' AS {c.EVENT_TYPE},
                make_timestamptz(event_timestamp) AS {c.EVENT_TIMESTAMP},
                make_timestamptz({ingested_at}::BIGINT) AS {c.INGESTED_AT},
                request_id AS {c.REQUEST_ID}, item."position" AS {c.POSITION},
                {_part(1)} AS {c.SURFACE}, {_part(2)} AS {c.DEVICE}
            FROM (
                SELECT *, unnest(items) AS item FROM {lines.relation}
                WHERE user_id <> '{ANONYMOUS}'
            )
        ) TO {quoted(str(table))} (FORMAT parquet, COMPRESSION lz4_raw)
    """).fetchall()
    if rows == 0:
        stager.batch.unchanged += 1
    else:
        stager.batch.files = (*stager.batch.files, str(lines.path))
        stager.fresh.append(f"{lines.path.name}:{lines.start}-{lines.end}")
        file = SourceFile(counting.SHOWN, table, "parquet", None)
        stager.events(open_raw(file, SHOWN), SHOWN, file=file)
    table.unlink()


def _part(place: int) -> str:
    """SQL of a part of the context's id, "surface|device|hour"; NULL where it isn't known."""
    return f"nullif(nullif(split_part(context_id, '|', {place}), 'unknown'), '')"
