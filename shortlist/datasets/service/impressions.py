"""Converts responses in the serving log to events: one `impression` for each shown item.

Each log file is read from where the last batch ended. An event_id is derived from the request and
the item, so a line that is read twice gives the same event. Responses to visitors without an id
are skipped, because they belong to no user. The event's value is the propensity: the probability
with which the item was shown.

`ingested_at` is the time of the ingest, or just after the newest response of the batch if that is
later. (It can be later in replay mode, where only posts advance the clock.) An impression counts in
states from this time on. States as of an earlier time don't contain it, as in service: the online
store gets impressions only when the refresh ends.

Responses served during the refresh still use the older states. For these, the serving log has the
stamps (times up to which all events are contained) of the online rows that were read. The skew
check uses them (flows/skew/refreshed.py).
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from shortlist import columns as c
from shortlist.behaviour import counting
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.readers import open_raw
from shortlist.datasets.staging import Stager
from shortlist.forgetting.lines import is_erased
from shortlist.ids import ANONYMOUS
from shortlist.lake.engine import quoted

IMPRESSION = "impression"
GIVEN = (
    *(c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIMESTAMP),
    *(c.INGESTED_AT, c.REQUEST_ID, c.POSITION, c.VALUE, c.SURFACE, c.DEVICE),
)
SHOWN = InteractionFile(
    path="(serving log)", columns={name: name for name in GIVEN}, exact_ids=True
)
LINE = {
    "request_id": "VARCHAR",
    "user_id": "VARCHAR",
    "context_id": "VARCHAR",
    "event_timestamp": "BIGINT",
    "items": 'STRUCT(item_id VARCHAR, "position" INTEGER, propensity DOUBLE)[]',
}


def stage_impressions(stager: Stager, known: dict[str, int]) -> dict[str, int]:
    """Stage the impressions of the responses that were logged since the last batch.

    An unfinished last line is left for the next batch.

    Args:
        known: {file: number of bytes that were read by earlier batches}.

    Returns:
        {file: number of bytes read, including this batch}.

    Raises:
        DatasetError: a finished line isn't JSON or lacks a key.
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
    ingested_at = max([stager.now, *(file.newest + 1 for file in logs)])
    for file in logs:
        _stage(stager, file, ingested_at=ingested_at)
        file.copy.unlink()
    return ends


@dataclass
class NewLines:
    """The new finished lines of a log file: bytes `start` to `end`, copied to the file `copy`."""

    path: Path
    copy: Path
    start: int
    end: int
    newest: int = 0
    """Time of the newest response in microseconds."""

    @property
    def relation(self) -> str:
        columns = ", ".join(f"'{name}': {quoted(sql_type)}" for name, sql_type in LINE.items())
        file = quoted(str(self.copy))
        return f"read_json({file}, format = 'newline_delimited', columns = {{{columns}}})"


def _copy_new_lines(path: Path, copy: Path, *, start: int) -> int:
    """Copy the finished lines from byte `start` on; return the position of their end."""
    end = start
    with path.open("rb") as source, copy.open("wb") as target:
        source.seek(start)
        for line in source:
            if line.endswith(b"\n"):
                if not is_erased(line):
                    target.write(line)
                end += len(line)
    return end


def _checked(stager: Stager, lines: NewLines) -> NewLines:
    """Check the lines and set their newest time; count responses to visitors in the batch.

    Raises:
        DatasetError: a line isn't JSON or lacks a key.
    """
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
                item.propensity AS {c.VALUE},
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
    """Return SQL of a part of the context id "surface|device|hour"; NULL if it is unknown."""
    return f"nullif(nullif(split_part(context_id, '|', {place}), 'unknown'), '')"
