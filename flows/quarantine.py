"""Quarantine seen and replayed: the work behind `shortlist quarantine`."""

import csv
import json
import time
from pathlib import Path
from typing import Any

from flows.configuration import RunConfig
from flows.validate import validate_batch
from shortlist.config import Settings
from shortlist.datasets.config import DataConfig, InteractionFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.locate import SourceFile, locate
from shortlist.datasets.readers import open_raw
from shortlist.datasets.service_log import POSTED
from shortlist.datasets.staging import Stager, complete
from shortlist.datasets.tables import OWN
from shortlist.lake.engine import connect
from shortlist.lake.staging import settle, staging
from shortlist.validation.quarantine import Quarantine, QuarantineError


def listed() -> list[dict[str, Any]]:
    """See `Quarantine.batches`."""
    return Quarantine(Settings().quarantine).batches()


def shown(batch_id: str, *, rule: str | None, limit: int, out: Path | None) -> dict[str, Any]:
    """Rows of a batch; with `out` its originals are written there."""
    quarantine = Quarantine(Settings().quarantine)
    tables = quarantine.rows(batch_id, rule=rule)
    names = ["file", "line", "original", "reason", "expectation"]
    if out is not None:
        quarantine.export(batch_id, out)
    return {
        "batch_id": batch_id,
        "rows": {name: table.num_rows for name, table in tables.items()},
        "tables": {
            name: table.select(names).slice(0, limit).to_pylist() for name, table in tables.items()
        },
        "out": str(out) if out is not None else None,
    }


def replay(batch_id: str, config: RunConfig, *, mended: Path | None = None) -> dict[str, Any]:
    """Stage and validate a batch's quarantined events again.

    Raises:
        QuarantineError: the batch has no events in quarantine, or `mended` is not there.
    """
    settings = Settings()
    quarantine = Quarantine(settings.quarantine)
    table = quarantine.rows(batch_id).get("interactions")
    if table is None:
        raise QuarantineError(
            f"{batch_id}: has no events in quarantine; mend the file of items or users and ingest"
            " it again"
        )
    lines = [text or "" for text in table.column("original").to_pylist()]
    if mended is not None:
        if not mended.is_file():
            raise QuarantineError(f"{mended}: no such file; `quarantine show --out` writes one")
        lines = mended.read_text(encoding="utf-8").splitlines()
    replayed = _stage(settings, config.data, batch_id, lines)
    # What is wrong with these rows is known; their share says nothing.
    limits = config.validation.model_copy(update={"failure_budget": 1.0})
    clock = settings.clock or config.data.clock
    result = validate_batch(settings, replayed, limits, clock=clock)
    quarantine.drop(batch_id, "interactions")
    left = settings.quarantine / replayed / "interactions.parquet"
    if left.is_file():
        home = settings.quarantine / batch_id
        home.mkdir(exist_ok=True)
        left.replace(home / "interactions.parquet")
        left.parent.rmdir()
    return result | {"batch_id": batch_id, "quarantine": str(settings.quarantine / batch_id)}


def _stage(settings: Settings, data: DataConfig, batch_id: str, lines: list[str]) -> str:
    with staging(settings.lake) as staged, connect(staged.folder) as connection:
        stager = Stager(staged, connection, data, settings, time.time_ns() // 1_000)
        mapped, header = _mapping(data, settings)
        path = staged.folder / "replayed.jsonl"
        path.write_text("".join(_as_json(line, header) + "\n" for line in lines), encoding="utf-8")
        file = SourceFile(f"quarantine of {batch_id}", path, "jsonl", None)
        stager.events(open_raw(file, mapped), mapped, file=file)
        path.unlink()
        complete(stager)
        has_items = data.files is not None and data.files.items is not None
        stager.batch.create = ("users",) if has_items else ("items", "users")
        if data.session_gap_minutes is not None and data.has_time:
            stager.batch.session_gap = int(data.session_gap_minutes * 60_000_000)
        stager.batch.batch_id = f"{batch_id}-replay"
        settle(staged, settings.lake, stager.batch)
    return stager.batch.batch_id


def _mapping(data: DataConfig, settings: Settings) -> tuple[InteractionFile, list[str]]:
    """How originals are read again, and the names that a bare CSV line would have."""
    if data.source == "service":
        return POSTED, []
    if data.database is not None:
        return _lines(data.database.interactions), []
    if data.files is None:
        return InteractionFile(path="quarantine", columns=OWN, timestamp_unit="iso"), []
    table = data.files.interactions[0]
    try:
        file = locate(table.path, format=table.format, cache=settings.cache)[0]
        raw = open_raw(file, table)
    except DatasetError:
        return _lines(table), []
    when = raw.types.get(table.columns["event_timestamp"], "")
    mapped = _lines(table)
    if when.startswith("TIMESTAMP"):  # JSON writes a Parquet file's times as text
        mapped = mapped.model_copy(update={"timestamp_unit": "iso"})
    return mapped, list(raw.expressions) if file.format == "csv" else []


def _lines(table: InteractionFile) -> InteractionFile:
    update = {"format": "jsonl", "sparse": True, "encoding": "utf-8"}
    return table.model_copy(update=update)


def _as_json(line: str, header: list[str]) -> str:
    """A line that no reader could take apart becomes an object if its fields fit the header."""
    if line.lstrip().startswith("{") or not header:
        return line.replace("\n", " ")
    cells = next(csv.reader([line]), [])
    return json.dumps(dict(zip(header, cells, strict=True))) if len(cells) == len(header) else line
