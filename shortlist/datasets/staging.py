"""Stages a data source as a batch: file by file through DuckDB, so it needn't fit in memory.

Staging maps the source's rows to the contracts and writes them as Parquet parts. Validation then
checks the batch and adds its good rows to the lake.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from shortlist.config import Settings
from shortlist.datasets.config import (
    OPERATION,
    DataConfig,
    FilesConfig,
    FileTable,
    InteractionFile,
    ItemFile,
    UserFile,
)
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.files.locate import SourceFile, locate
from shortlist.datasets.files.mapping import items_sql, staged_events_sql, users_sql
from shortlist.datasets.files.prepare import prepared
from shortlist.datasets.files.readers import Raw, collect_rejects, open_raw
from shortlist.lake.engine import quoted
from shortlist.lake.snapshot import current_manifest
from shortlist.lake.staging import SCHEMAS, StagedBatch, Staging

PART = "(FORMAT parquet, COMPRESSION lz4_raw)"
CHUNK = 1 << 24


@dataclass
class Stager:
    """Writes the tables of one batch to its staging folder and collects the batch's metadata."""

    staged: Staging
    connection: duckdb.DuckDBPyConnection
    config: DataConfig
    settings: Settings
    now: int
    between: tuple[int, int] | None = None
    """Microseconds: read only events from the first time on and before the second one, whatever was
    read before, and no items and users; such a batch leaves no reading state. None: read all that
    is new.
    """
    batch: StagedBatch = field(default_factory=lambda: StagedBatch(batch_id=""))
    given: dict[str, Any] = field(default_factory=dict)
    """Reading state of the source after this batch (fingerprints, watermarks), for the next run."""
    fresh: list[str] = field(default_factory=list)
    """Fingerprints of the new content, from which the batch id is derived."""

    def known(self, key: str) -> dict[str, Any]:
        """Return the source's reading state after its last committed batch; {} if there is none.

        Args:
            key: result of `key`.
        """
        if self.between is not None:
            return {}
        return current_manifest(self.settings.lake).sources.get(key, {})

    def remember(self, key: str, state: dict[str, Any]) -> None:
        """Store the source's reading state after this batch, for the next run."""
        self.given = state
        if self.between is None:
            self.batch.source = (key, state)

    def key(self, description: Any) -> str:
        """Return the key of a source's reading state: a hash of its mapping and rules.

        If they change, the key changes, and the source is read again from the start.
        """
        rules = [description, self.config.like_threshold, self.config.exclude]
        return hashlib.sha256(json.dumps(rules, default=str).encode()).hexdigest()[:16]

    def events(self, raw: Raw, table: InteractionFile, *, file: SourceFile) -> int:
        """Stage the rows of one file of interactions.

        Returns:
            The number of rows, including lines that could not be parsed.
        """
        source = file.label or Path(file.name).name
        query = staged_events_sql(
            raw,
            table,
            self.config,
            source=source,
            where=file.name,
            now=self.now,
            between=self.between,
        )
        part, mapping = self.staged.next_part("interactions"), self._mapping(raw, table, file)
        rows = self._copy(query, part, file=file, table="interactions", mapping=mapping)
        self.batch.parts[str(int(part.stem))] = mapping
        self.batch.read["interactions"] = self.batch.read.get("interactions", 0) + rows
        self.batch.operations |= OPERATION in table.columns
        self.batch.given_ids |= "event_id" in table.columns
        return rows

    def _mapping(self, raw: Raw, table: InteractionFile, file: SourceFile) -> int:
        """Return the position of the file's mapping in the batch's `mappings`; add it if new.

        The mapping is stored so that quarantined rows can be read again in the same way.
        """
        when = raw.types.get(table.columns["event_timestamp"], "")
        mapping = {
            "table": {
                name: value
                for name, value in table.model_dump(mode="json").items()
                if name in InteractionFile.model_fields
            },
            "header": list(raw.expressions) if file.format == "csv" else [],
            "typed_times": when.startswith("TIMESTAMP"),
        }
        if mapping not in self.batch.mappings:
            self.batch.mappings.append(mapping)
        return self.batch.mappings.index(mapping)

    def rows(self, name: str, query: str, *, file: SourceFile) -> None:
        """Stage the rows of one file of items or users, given by an SQL query."""
        query = f"SELECT * REPLACE (to_json(original)::VARCHAR AS original) FROM ({query})"
        read = self._copy(query, self.staged.next_part(name), file=file, table=name)
        self.batch.read[name] = self.batch.read.get(name, 0) + read

    def _copy(
        self,
        query: str,
        target: Path,
        *,
        file: SourceFile,
        table: str,
        mapping: int | None = None,
    ) -> int:
        try:
            ((rows,),) = self.connection.execute(
                f"COPY ({query}) TO {quoted(str(target))} {PART}"
            ).fetchall()
        except duckdb.Error as error:
            raise _read_error(error, file, self.config) from None
        rejected = self._rejects(file, table, mapping)
        return int(rows) + rejected

    def _rejects(self, file: SourceFile, table: str, mapping: int | None) -> int:
        tables = self.connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reject_errors'"
        ).fetchall()
        if tables == [(0,)]:
            return 0
        found = collect_rejects(self.connection, file, table)
        if found is None or self.between is not None:  # the time of such a line isn't known
            return 0
        numbers = pa.array([mapping] * found.num_rows, pa.int64())
        column = found.schema.get_field_index("mapping")
        self.staged.rejected.append(found.set_column(column, "mapping", numbers))
        return found.num_rows


def _read_error(error: duckdb.Error, file: SourceFile, config: DataConfig) -> Exception:
    text = str(error).splitlines()[0]
    if isinstance(error, duckdb.BinderException | duckdb.ParserException):
        if not config.exclude:
            return error  # the error is in the generated SQL: a bug
        rules = "; ".join(config.exclude)
        return DatasetError(f"exclude: {text}; want SQL conditions on contract columns: {rules}")
    text = text.split(": ", 1)[-1]
    cut = " (cut short? fetch it again)" if "GZIP" in text or "ZSTD" in text.upper() else ""
    return DatasetError(f"{file.name}: cannot be read as {file.format}: {text}{cut}")


def stage_files(stager: Stager, files: FilesConfig) -> None:
    """Stage all files that are new or have changed since the last committed batch.

    Raises:
        DatasetError: a file or a mapped column is missing, or a file can't be read.
    """
    key = stager.key(files.model_dump(mode="json", exclude={"items": {"complete"}}))
    known = stager.known(key).get("files", {})
    seen: dict[str, str] = {}
    for number, table in enumerate(files.interactions):
        for file in _new(stager, table, f"events{number}", known, seen):
            stage_event_file(stager, table, file)
    for name, table in (("items", files.items), ("users", files.users)):
        if table is None or stager.between is not None:
            continue
        unchanged = stager.batch.unchanged
        fresh = _new(stager, table, name, known, seen)
        for file in fresh:
            _stage_rows(stager, name, table, file)
        if isinstance(table, ItemFile) and table.complete and OPERATION not in table.columns:
            all_read = bool(fresh) and stager.batch.unchanged == unchanged
            stager.batch.whole_catalogue = all_read and stager.config.source == "files"
    stager.remember(key, {"files": seen})
    stager.batch.create = ("users",) if files.items is not None else ("items", "users")


def _new(
    stager: Stager, table: FileTable, role: str, known: dict[str, str], seen: dict[str, str]
) -> list[SourceFile]:
    out = []
    for file in locate(table.path, format=table.format, cache=stager.settings.cache):
        name = f"{role}:{file.name}"
        seen[name] = file.fingerprint()
        if known.get(name) == seen[name]:
            stager.batch.unchanged += 1
            continue
        stager.fresh.append(seen[name])
        stager.batch.files = (*stager.batch.files, file.name)
        out.append(file)
    return out


def stage_event_file(stager: Stager, table: InteractionFile, file: SourceFile) -> None:
    """Stage one file of events."""
    _read_by(
        stager, table, file, lambda raw, source_file: stager.events(raw, table, file=source_file)
    )


def _stage_rows(stager: Stager, name: str, table: FileTable, file: SourceFile) -> None:
    def write(raw: Raw, source_file: SourceFile) -> None:
        if isinstance(table, ItemFile):
            query = items_sql(raw, table, where=f"{file.name}: items")
        else:
            assert isinstance(table, UserFile)
            query = users_sql(raw, table, where=f"{file.name}: users")
        stager.rows(name, query, file=source_file)

    _read_by(stager, table, file, write)


def _read_by(
    stager: Stager, table: FileTable, file: SourceFile, write: Callable[[Raw, SourceFile], Any]
) -> None:
    """Open a file, or a copy that DuckDB can read, and call `write` with it."""
    folder = stager.staged.folder / "prepared"
    try:
        plain, mapped = prepared(file, table, folder)
        write(open_raw(plain, mapped), plain)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def complete(stager: Stager) -> None:
    """Write an empty file for each table for which the source had no rows."""
    extra = "'insert' AS operation, false AS excluded, NULL::VARCHAR[] AS faults"
    for name, schema in SCHEMAS.items():
        if any((stager.staged.folder / name).iterdir()):
            continue
        stager.batch.read.setdefault(name, 0)
        stager.connection.register("nothing", schema.empty_table())
        left_out = "* EXCLUDE (event_order)" if name == "interactions" else "*"
        stager.connection.execute(
            f"COPY (SELECT {left_out}, {extra}, NULL::VARCHAR AS original FROM nothing)"
            f" TO {quoted(str(stager.staged.next_part(name)))} {PART}"
        )
