"""Shows quarantined rows and restores them; used by `shortlist quarantine`."""

import csv
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from flows.runtime.configuration import RunConfig
from flows.validate import validate_batch
from shortlist.config import Settings
from shortlist.datasets.config import DataConfig, InteractionFile
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.files.readers import open_raw
from shortlist.datasets.service.posted import POSTED
from shortlist.datasets.staging import Stager, complete
from shortlist.files.text_files import write_text
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake.engine import connect
from shortlist.lake.staging import finish_batch, staging
from shortlist.validation.quarantine import Quarantine, QuarantineError, RowOrigin


def listed() -> list[dict[str, Any]]:
    """List the quarantined batches of the home, see `Quarantine.batches`."""
    return Quarantine(Settings().quarantine).batches()


def shown(batch_id: str, *, rule: str | None, limit: int, out: Path | None) -> dict[str, Any]:
    """Return quarantined rows of a batch.

    Args:
        rule: only rows that broke this rule; None: all.
        limit: maximum number of rows per table.
        out: file to which the original rows of all its events are written, one per line; None:
            don't write.

    Raises:
        QuarantineError: there is no such batch, or no such row in it.
        WriteError: `out` cannot be written.
    """
    tables = Quarantine(Settings().quarantine).rows(batch_id, rule=rule)
    names = ["file", "line", "original", "reason", "expectation"]
    if out is not None:
        lines = originals(events_of(batch_id, tables))
        write_text(out, "".join(f"{line.text}\n" for line in lines))
    return {
        "batch_id": batch_id,
        "rows": {name: table.num_rows for name, table in tables.items()},
        "tables": {
            name: table.select(names).slice(0, limit).to_pylist() for name, table in tables.items()
        },
        "out": str(out) if out is not None else None,
    }


def restore(
    batch_id: str, config: RunConfig, *, rule: str | None = None, mended: Path | None = None
) -> dict[str, Any]:
    """Stage and validate a batch's quarantined events again.

    Good events are added to the lake. Events that are still bad stay in quarantine.

    Args:
        rule: only events that broke this rule; None: all.
        mended: file with corrected lines that replace the originals. It has one line for each line
            of the file that `shown` writes, in the same order.

    Raises:
        QuarantineError: the batch has no such events in quarantine, or `mended` is missing, not
            UTF-8, or has another number of lines.
    """
    settings = Settings()
    what = f"shortlist quarantine restore {batch_id}"
    with home_lock(settings, "refresh", what=what, wait_seconds=REFRESH_WAIT):
        return _restore(settings, batch_id, config, rule=rule, mended=mended)


def _restore(
    settings: Settings, batch_id: str, config: RunConfig, *, rule: str | None, mended: Path | None
) -> dict[str, Any]:
    quarantine = Quarantine(settings.quarantine)
    lines = originals(events_of(batch_id, quarantine.rows(batch_id, rule=rule)))
    mappings = quarantine.mappings(batch_id)
    if mended is not None:
        texts = corrected_lines(mended)
        if len(texts) != len(lines):
            which = f"{batch_id} ({rule})" if rule else batch_id
            raise QuarantineError(
                f"{mended}: has {len(texts)} lines, the quarantine of {which} has {len(lines)};"
                " want one line for each, also for rows that you don't correct"
            )
        lines = [QuarantinedRow(line.place, text) for line, text in zip(lines, texts, strict=True)]
    restored, places = _stage(settings, config.data, batch_id, lines, mappings)
    # All rows were bad before, so a high share of bad rows is no reason to refuse the batch.
    limits = config.validation.model_copy(update={"failure_budget": 1.0})
    clock = settings.clock or config.data.clock
    result = validate_batch(settings, restored, limits, clock=clock)
    quarantine.replace_events(batch_id, rule=rule, by=restored, places=places)
    return result | {"batch_id": batch_id, "quarantine": str(settings.quarantine / batch_id)}


def events_of(batch_id: str, tables: dict[str, pa.Table]) -> pa.Table:
    """Return the events among a batch's quarantined rows. Raises QuarantineError without any."""
    if "interactions" not in tables:
        raise QuarantineError(
            f"{batch_id}: has no events in quarantine; only events can be restored: correct the"
            " file of items or users and ingest it again"
        )
    return tables["interactions"]


class QuarantinedRow(NamedTuple):
    """A quarantined row as it was in the source, as one line of text, with its place there."""

    place: RowOrigin
    text: str


def originals(table: pa.Table) -> list[QuarantinedRow]:
    """Return the original rows of quarantined events, each once.

    Two events can come from one row: a rating, and a like that ingest derives from it.
    """
    columns = [table.column(name).to_pylist() for name in (*RowOrigin._fields, "original")]
    rows = [
        QuarantinedRow(RowOrigin(file, line, mapping), (text or "").replace("\n", " "))
        for file, line, mapping, text in zip(*columns, strict=True)
    ]
    known = [row for row in rows if row.place.line is not None]
    return [*dict.fromkeys(known), *(row for row in rows if row.place.line is None)]


def corrected_lines(path: Path) -> list[str]:
    """Read the lines of a corrected file.

    Raises:
        QuarantineError: the file is missing or not UTF-8, or a line is empty.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise QuarantineError(f"{path}: no such file; `quarantine show --out` writes one") from None
    except OSError as error:
        raise QuarantineError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise QuarantineError(
            f"{path}: line {line} is not UTF-8; want the encoding that `quarantine show --out`"
            " writes"
        ) from None
    # Not splitlines, which also splits at characters such as U+2028.
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise QuarantineError(
                f"{path}: line {number} is empty; want the corrected row or the original one"
            )
    return lines


def _stage(
    settings: Settings,
    data: DataConfig,
    batch_id: str,
    lines: list[QuarantinedRow],
    mappings: list[dict[str, Any]],
) -> tuple[str, dict[tuple[str, int], RowOrigin]]:
    """Stage the lines as a new batch, each with the mapping of its file.

    Args:
        mappings: the mappings with which the batch's files were read.

    Returns:
        Id of the staged batch, and {(file, line) in it: the line's original place}.
    """
    places: dict[tuple[str, int], RowOrigin] = {}
    posted = False
    with staging(settings.lake) as staged, connect(staged.folder) as connection:
        stager = Stager(staged, connection, data, settings, time.time_ns() // 1_000)
        path = staged.folder / "restored.jsonl"
        for number, mapping in enumerate(mappings):
            mine = [entry for entry in lines if entry.place.mapping == number]
            if not mine:
                continue
            table = _table(data, mapping)
            posted |= table.path == POSTED.path
            texts = [_as_json(entry.text, mapping["header"]) for entry in mine]
            path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
            name = f"quarantine of {batch_id}" + (f" ({number})" if number else "")
            file = SourceFile(name, path, "jsonl", None)
            stager.events(open_raw(file, table), table, file=file)
            path.unlink()
            places |= {(name, line): entry.place for line, entry in enumerate(mine, start=1)}
        assert len(places) == len(lines), "every row names a mapping of its batch"
        complete(stager)
        has_items = data.files is not None and data.files.items is not None
        stager.batch.create = ("users",) if has_items or posted else ("items", "users")
        if data.session_gap_minutes is not None and data.has_time:
            stager.batch.session_gap = int(data.session_gap_minutes * 60_000_000)
        stager.batch.batch_id = f"{batch_id}-restored"
        stager.batch.replay_of = batch_id
        finish_batch(staged, settings.lake, stager.batch)
    return stager.batch.batch_id, places


def _table(data: DataConfig, mapping: dict[str, Any]) -> InteractionFile:
    """Return the mapping with which quarantined rows are read again.

    This is the table's current mapping if `data` has one, otherwise that of the first reading.
    """
    then = InteractionFile.model_validate(mapping["table"])
    tables: list[InteractionFile] = [POSTED]
    if data.files is not None:
        tables += data.files.interactions
    if data.database is not None:
        tables.append(data.database.interactions)
    same = [table for table in tables if table.path == then.path]
    if len(same) > 1:  # several mappings read this file
        same = [table for table in same if table.event_type == then.event_type]
    table = same[0] if len(same) == 1 else then
    update: dict[str, Any] = {"format": "jsonl", "sparse": True, "encoding": "utf-8"}
    if mapping["typed_times"]:  # times of a Parquet file are ISO text in JSON
        update["timestamp_unit"] = "iso"
    return table.model_copy(update=update)


def _as_json(line: str, header: list[str]) -> str:
    """Convert a CSV line to a JSON object, if its number of fields fits the header.

    All other lines, such as JSON lines, are returned unchanged.
    """
    if not line.strip():
        return '""'  # an empty line would be skipped
    if line.lstrip().startswith("{") or not header:
        return line
    cells = next(csv.reader([line]), [])
    return json.dumps(dict(zip(header, cells, strict=True))) if len(cells) == len(header) else line
