"""Archives the serving log: finished days become Parquet, and old days are deleted.

A running service appends JSON Lines, so that a crash loses nothing that was written. After a
refresh has read the lines, the files of finished days are converted to Parquet. It takes about a
tenth of the space and can be queried by column. `service_log.read_lines` reads both formats.
"""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.config import Settings
from shortlist.forgetting.lines import is_erased

CHUNK_LINES = 500
"""Number of lines converted at a time, which limits memory: a line has about 30 kB."""
ITEM = pa.struct(
    [
        (c.ITEM_ID, pa.string()),
        (c.POSITION, pa.int32()),
        (c.SOURCE, pa.string()),
        (c.SCORE, pa.float64()),
        ("propensity", pa.float64()),
        ("features", pa.list_(pa.float32())),
        ("rules", pa.list_(pa.string())),
    ]
)
ANSWER = pa.schema(
    [
        (c.REQUEST_ID, pa.string()),
        ("release_id", pa.string()),
        ("pack_id", pa.string()),
        ("arm", pa.string()),
        (c.USER_ID, pa.string()),
        (c.CONTEXT_ID, pa.string()),
        (c.EVENT_TIMESTAMP, pa.int64()),
        ("milliseconds", pa.float64()),
        ("skipped_stages", pa.list_(pa.string())),
        ("items", pa.list_(ITEM)),
        ("details", pa.string()),
    ]
)
"""Columns of an archived day, one row per response; `details` has all other keys as JSON."""
PLAIN = tuple(field.name for field in ANSWER if field.name != "details")


def archive_logs(settings: Settings, *, read_until: datetime) -> list[Path]:
    """Convert finished days of the serving log, and delete days beyond `settings.log_days`.

    Args:
        read_until: start of the refresh that read the log. Files that changed later are not
            converted, because the refresh may not have read their last lines.

    Returns:
        The Parquet files that were written.

    Raises:
        OSError: a file can't be written; its lines stay as they are.
    """
    oldest = read_until.date() - timedelta(days=settings.log_days)
    written = []
    for log in (settings.serving_log, settings.answer_log):
        for day, folder in _days(log):
            if day < oldest:
                shutil.rmtree(folder)
            elif log == settings.serving_log and day < read_until.date():
                lines = sorted(folder.glob("*.jsonl"))
                unchanged = [p for p in lines if p.stat().st_mtime < read_until.timestamp()]
                written += [_convert(path) for path in unchanged]
    return written


def _days(log: Path) -> Iterator[tuple[date, Path]]:
    """Yield day and folder of a log, `date=YYYY-MM-DD`; other folders are left out."""
    for folder in sorted(log.glob("date=*")):
        try:
            yield datetime.strptime(folder.name, "date=%Y-%m-%d").replace(tzinfo=UTC).date(), folder
        except ValueError:
            continue


def _convert(path: Path) -> Path:
    """Replace a file of JSON Lines by Parquet; an unfinished last line is dropped."""
    done, partial = path.with_suffix(".parquet"), path.with_suffix(".partial")
    with path.open("rb") as file, pq.ParquetWriter(partial, ANSWER, compression="zstd") as writer:
        chunk: list[dict[str, Any]] = []
        for line in file:
            if line.endswith(b"\n") and not is_erased(line):
                chunk.append(_row(parse_line(line)))
            if len(chunk) == CHUNK_LINES:
                writer.write_table(pa.Table.from_pylist(chunk, schema=ANSWER))
                chunk = []
        writer.write_table(pa.Table.from_pylist(chunk, schema=ANSWER))
    partial.replace(done)
    path.unlink()
    return done


def parse_line(line: bytes) -> Any:
    """Return the content of a line of JSON. Raises ValueError if it isn't JSON.

    Earlier versions wrote NaN, which orjson refuses and `json` reads.
    """
    try:
        return orjson.loads(line)
    except ValueError as error:
        try:
            return json.loads(line)
        except ValueError:
            raise error from None


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    details = {key: value for key, value in entry.items() if key not in PLAIN}
    return {key: entry.get(key) for key in PLAIN} | {"details": json.dumps(details)}


def read_archive(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, entry) of every response in an archived file."""
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=CHUNK_LINES):
            for row in batch.to_pylist():
                number += 1
                details = json.loads(row.pop("details"))
                yield number, row | details
