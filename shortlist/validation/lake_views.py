"""Views of the lake with the columns of a batch that is prepared for validation.

With them, users can run the expectations on the published rows when no batch is staged.
"""

from pathlib import Path

from shortlist.lake.engine import name, quoted
from shortlist.validation.figures import Figures, one_row
from shortlist.validation.rules import SCHEMAS, Rule

FLAGS = {
    "interactions": {
        "item_is_known": "true",
        "user_is_known": "true",
        "id_conflict": "false",
        "operation_misses": "false",
        "in_burst": "false",
    },
    "items": {"id_conflict": "false", "number": "row_number() OVER () - 1"},
    "users": {"id_conflict": "false", "number": "row_number() OVER () - 1"},
}
"""Table -> column -> SQL. Validation computes these columns by comparing staged rows with others.

Here they are constants that break no rule, and row numbers. They serve for rows that are not
compared: published rows, which have passed, and rows that dry_run.py counts before staging.
"""


def views_of_lake(root: Path, rules: list[Rule], figures: Figures) -> dict[str, str]:
    """Return {view: SQL}: the tables of the lake's current snapshot and the figures of a batch.

    Args:
        root: folder of the lake.
        rules: rules whose derived columns are added to the tables.
    """
    views = {"batch_rows": one_row(figures)}
    for table in SCHEMAS:
        path = root.absolute() / "current" / f"{table}.parquet"
        if table == "interactions":
            path = root.absolute() / "current" / table / "**" / "*.parquet"
        flags = {"operation": "'insert'", "faults": "NULL::VARCHAR[]"} | FLAGS[table]
        given = ", ".join(f"{value} AS {column}" for column, value in flags.items())
        source = f"read_parquet({quoted(str(path))}, hive_partitioning = false)"
        derived = [
            f"{rule.value} AS {name(rule.check.column)}"
            for rule in rules
            if rule.table == table and rule.value
        ]
        columns = ", ".join(["*", *derived])
        views[f"{table}_rows"] = f"SELECT {columns} FROM (SELECT *, {given} FROM {source})"
    return views
