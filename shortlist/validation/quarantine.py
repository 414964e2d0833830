"""Quarantine: rows that were held back, as the source had them, with the reasons.

quarantine/<batch_id>/<table>.parquet   contract columns, file, line, original, reason,
                                        expectation (names of the rules, "; " between them)
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.lake.engine import parquet
from shortlist.validation.figures import Figures
from shortlist.validation.rules import Rule
from shortlist.validation.sorting import Sorting

TABLES = ("interactions", "items", "users")


class QuarantineError(ValueError):
    """There is no such batch in quarantine, or nothing in it can be replayed."""


class Quarantine:
    """The folder of all batches that left rows behind."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, sorting: Sorting, rules: list[Rule], figures: Figures) -> Path | None:
        """Put a batch's bad rows aside; None if it has none. An earlier try's are replaced."""
        folder = self.root / sorting.batch.batch_id
        shutil.rmtree(folder, ignore_errors=True)
        for table in TABLES:
            if figures.bad(table):
                written = sorting.bad_rows(table, rules, folder / f"{table}.parquet")
                assert written == figures.bad(table), f"{table}: {written} rows quarantined"
        return folder if folder.is_dir() else None

    def batches(self) -> list[dict[str, Any]]:
        """One row for each batch, table and set of broken rules: how many rows, and an example."""
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
                        f" FROM {parquet([path])} GROUP BY 1 ORDER BY 2 DESC"
                    )
                    found = relation.to_arrow_table().to_pylist()
                out += [{"batch_id": folder.name, "table": table} | row for row in found]
        return out

    def rows(self, batch_id: str, *, rule: str | None = None) -> dict[str, pa.Table]:
        """A batch's rows by table.

        Args:
            rule: only rows that broke this one.

        Raises:
            QuarantineError: the batch has none.
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
            names = table.column("expectation").to_pylist()
            mask = [rule in (text or "").split("; ") for text in names]
            if any(mask):
                out[name] = table.filter(pa.array(mask))
        if not out:
            raise QuarantineError(f"{folder}: no row broke '{rule}'")
        return out

    def export(self, batch_id: str, target: Path) -> int:
        """Write the originals of a batch's events as lines, to be mended and replayed."""
        table = self.rows(batch_id).get("interactions")
        if table is None:
            raise QuarantineError(f"{self.root / batch_id}: has no events")
        lines = [text or "" for text in table.column("original").to_pylist()]
        target.write_text("".join(line.replace("\n", " ") + "\n" for line in lines))
        return len(lines)

    def drop(self, batch_id: str, table: str) -> None:
        """Rows that found their place leave quarantine."""
        folder = self.root / batch_id
        (folder / f"{table}.parquet").unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
