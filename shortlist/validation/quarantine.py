"""Quarantine: rows that validation kept out of the lake, in their original form, with the reasons.

quarantine/<batch_id>/<table>.parquet   contract columns, file, line, original, reason,
                                        expectation (names of the rules, "; " between them),
                                        mapping (place in mappings.json)
quarantine/<batch_id>/mappings.json     how the batch's files were read
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.files.plain_json import write_json
from shortlist.lake.engine import parquet, quoted
from shortlist.lake.snapshot import write_whole
from shortlist.lake.staging import PART_BITS, REJECTED, staged_events
from shortlist.validation.rules import SCHEMAS
from shortlist.validation.sorting import Sorting

TABLES = ("interactions", "items", "users")
MAPPINGS = "mappings.json"


class QuarantineError(ValueError):
    """There is no such batch or row in quarantine, or the batch can't be restored."""


class RowOrigin(NamedTuple):
    """Original place of a quarantined row: file, line, and position of its mapping."""

    file: str | None
    line: int | None
    mapping: int | None


class Quarantine:
    """Access to the quarantine folder, which has a folder for each batch with bad rows."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, sorting: Sorting) -> Path | None:
        """Write a batch's bad rows, replacing those of an earlier try.

        Returns:
            Folder of the batch; None if it has no bad rows.
        """
        folder = self.root / sorting.batch.batch_id
        shutil.rmtree(folder, ignore_errors=True)
        for table in TABLES:
            _write_bad_rows(sorting, table, folder / f"{table}.parquet")
        if not folder.is_dir():
            return None
        write_json(folder / MAPPINGS, {"mappings": sorting.batch.mappings})
        return folder

    def batches(self) -> list[dict[str, Any]]:
        """List the quarantined rows: one entry per batch, table and set of broken rules.

        An entry has the number of rows, the reason and an example.
        """
        import duckdb

        out = []
        for folder in sorted(self.root.glob("*")):
            for table in TABLES:
                path = folder / f"{table}.parquet"
                if not path.is_file():
                    continue
                with duckdb.connect() as connection:
                    relation = connection.sql(
                        "SELECT expectation AS rule, count(*) AS rows, first(reason) AS reason,"
                        " first(original) AS example"
                        f" FROM {parquet([path])} GROUP BY 1 ORDER BY 2 DESC, 1"
                    )
                    found = relation.to_arrow_table().to_pylist()
                out += [{"batch_id": folder.name, "table": table} | row for row in found]
        return out

    def rows(self, batch_id: str, *, rule: str | None = None) -> dict[str, pa.Table]:
        """Return {table: quarantined rows} of a batch.

        Args:
            rule: only rows that broke this rule; None: all.

        Raises:
            QuarantineError: there is no such batch or no such row.
        """
        folder = self.root / batch_id
        paths = [folder / f"{table}.parquet" for table in TABLES]
        found = {path.stem: pq.read_table(path) for path in paths if path.is_file()}
        if not found:
            there = ", ".join(sorted(p.name for p in self.root.glob("*"))) or "none"
            raise QuarantineError(f"{folder}: no such batch in quarantine; there are {there}")
        if rule is None:
            return found
        out = {}
        for name, table in found.items():
            chosen = table.filter(broke_rule(table, rule))
            if chosen.num_rows:
                out[name] = chosen
        if not out:
            raise QuarantineError(f"{folder}: no row broke '{rule}'")
        return out

    def mappings(self, batch_id: str) -> list[dict[str, Any]]:
        """Return the mappings of the batch's files. The column `mapping` is a position in the list.

        Raises:
            QuarantineError: the batch was written by an earlier version, which stored no mappings.
        """
        path = self.root / batch_id / MAPPINGS
        try:
            return json.loads(path.read_text())["mappings"]
        except FileNotFoundError:
            raise QuarantineError(
                f"{path}: is missing: an older version of shortlist quarantined this batch and"
                " didn't store how its files were read; correct the source and ingest it again"
            ) from None

    def replace_events(
        self, batch_id: str, *, rule: str | None, by: str, places: dict[tuple[str, int], RowOrigin]
    ) -> None:
        """Update a batch's quarantine after a restore, by an atomic replace.

        The events that were read again are removed, and those that are still bad are added again.

        Args:
            rule: only events that broke this rule were restored; None: all.
            by: batch id of the restore; its quarantined events are moved here.
            places: {(file, line) in the restore: original place of the row}.
        """
        path, left = (self.root / batch / "interactions.parquet" for batch in (batch_id, by))
        parts = []
        if rule is not None:
            table = pq.read_table(path)
            parts.append(table.filter(pc.invert(broke_rule(table, rule))))
        if left.is_file():
            parts.append(placed(pq.read_table(left), places))
        rest = pa.concat_tables(parts, promote_options="default") if parts else None
        if rest is None or rest.num_rows == 0:
            path.unlink()
        else:
            write_whole(rest, path)
        shutil.rmtree(left.parent, ignore_errors=True)
        if not any(path.parent.glob("*.parquet")):
            shutil.rmtree(path.parent)


def placed(table: pa.Table, places: dict[tuple[str, int], RowOrigin]) -> pa.Table:
    """Set `file`, `line` and `mapping` of a restore's quarantined rows to their original places."""
    restored = zip(table.column("file").to_pylist(), table.column("line").to_pylist(), strict=True)
    mine = [places[place] for place in restored]
    for name in RowOrigin._fields:
        column = table.schema.get_field_index(name)
        values = pa.array([getattr(place, name) for place in mine], table.schema.field(name).type)
        table = table.set_column(column, name, values)
    return table


def broke_rule(table: pa.Table, rule: str) -> pa.Array:
    """Return a mask of the quarantined rows that broke `rule`."""
    names = table.column("expectation").to_pylist()
    return pa.array([rule in (text or "").split("; ") for text in names], pa.bool_())


def _write_bad_rows(sorting: Sorting, table: str, target: Path) -> None:
    """Write a table's bad rows with their original text and the reasons.

    No file is written if there are none.
    """
    if not sorting.counts[table].bad and not sorting.batch.rejected.get(table):
        return
    whole = f"SELECT number, original FROM {table}_prepared"
    text = "o.original"
    if table == "interactions":
        order = f"{c.EVENT_ORDER} AS number"
        whole = f"SELECT {order}, original FROM {staged_events(sorting.folder, original=True)}"
        text = "to_json(o.original)::VARCHAR"
    path = sorting.folder / "rejected.parquet"
    sorting.connection.register("no_lines", REJECTED.empty_table())
    lines = parquet([path]) if path.is_file() else "no_lines"
    names = ", ".join(f"r.{n}" for n in SCHEMAS[table].names if n != c.EVENT_ORDER)
    whys = zip(("expectation", "reason"), zip(*sorting.reasons[table], strict=True), strict=True)
    why = ", ".join(
        f"array_to_string(list_transform(r.broken, lambda one: list_extract("
        f"[{', '.join(quoted(one) for one in texts)}], one + 1)), '; ') AS {alias}"
        for alias, texts in whys
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    sorting.connection.execute(f"""
        COPY (
            (SELECT {names}, r.file,
                r.number % (1::BIGINT << {PART_BITS}) + 1 - coalesce(l.so_far, 0) AS line,
                coalesce(json_extract_string({text}, '$._line'), {text}) AS original,
                {why}, {_mapping(sorting, table)} AS mapping
            FROM {table}_bad r JOIN ({whole}) o USING (number)
            ASOF LEFT JOIN ({_likes(sorting, table)}) l
                ON r.number >> {PART_BITS} = l.part AND r.number >= l.number
            ORDER BY r.number)
            UNION ALL BY NAME
            SELECT source AS file, line, original, reason, rule AS expectation, mapping
            FROM {lines} WHERE "table" = '{table}'
        ) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)
    """)


def _mapping(sorting: Sorting, table: str) -> str:
    """Return SQL for a row's position in the batch's `mappings`."""
    parts = sorting.batch.parts
    if table != "interactions" or not parts:
        return "NULL::BIGINT"
    places = [parts.get(str(part)) for part in range(max(int(part) for part in parts) + 1)]
    listed = ", ".join("NULL" if place is None else str(place) for place in places)
    return f"list_extract([{listed}]::BIGINT[], (r.number >> {PART_BITS}) + 1)"


def _likes(sorting: Sorting, table: str) -> str:
    """Return SQL that numbers the likes that ingest derived from ratings, per file.

    A derived like is an additional row without a line in the source. So a row's line number is its
    row number minus the number of earlier likes in the file.
    """
    staged = staged_events(sorting.folder)
    where = "event_type = 'like' AND ends_with(event_id, '-like')"
    where += f" AND {c.EVENT_ORDER} <= (SELECT max(number) FROM {table}_bad)"
    if table != "interactions":
        staged, where = f"(SELECT 0 AS {c.EVENT_ORDER})", "false"
    return (
        f"SELECT {c.EVENT_ORDER} AS number, {c.EVENT_ORDER} >> {PART_BITS} AS part,"
        f" row_number() OVER (PARTITION BY {c.EVENT_ORDER} >> {PART_BITS}"
        f" ORDER BY {c.EVENT_ORDER}) AS so_far FROM {staged} WHERE {where}"
    )
