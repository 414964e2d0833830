"""Item versions: the history of each catalogue row, with the time from which it is known.

    items_versions.parquet    ITEMS columns without vectors, and `known_at` (microseconds)

A batch adds one row for each item whose content changed. Ingesting the same catalogue again adds
nothing. `known_at` follows the rule for events (feature_store/states/target_sql.py): a version is
known from its arrival, because it can't be served earlier. A version whose `updated_at` is more
than BACKFILL_LAG before its arrival is imported history and counts from `updated_at`.

All versions of an item have distinct `known_at`, increasing with arrival, so the newest version is
always the current catalogue row.

The lake's first catalogue has `known_at` 0 (SINCE_EVER), because its items existed before the lake.
Later items are known from their arrival. For an event about an unknown item, validation may create
a row that contains only the id. It is not a version: the first row with content replaces it.
"""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist import columns as c
from shortlist.contracts import BACKFILL_LAG, ITEM_VERSIONS, ITEMS
from shortlist.lake.engine import parquet, quoted

VERSIONS = "items_versions.parquet"
SINCE_EVER = 0
"""`known_at` of a version that was known from the beginning."""
CONTENT = [name for name in ITEMS.names if name not in (c.ITEM_ID, c.UPDATED_AT)]
BARE = "len(a.categories) = 0 AND " + " AND ".join(
    f"a.{name} IS NULL" for name in CONTENT if ITEMS.field(name).nullable
)
"""SQL condition that is true for a row `a` that contains only an id."""


def add_versions(
    connection: duckdb.DuckDBPyConnection,
    old: Path | None,
    items: pa.Table,
    target: Path,
    *,
    arrived: int,
) -> bool:
    """Write the item versions of the next snapshot to `target`: those of `old` and the new ones.

    Args:
        old: folder of the previous snapshot; None for the first one.
        items: valid rows of a batch, one per item, with the ITEMS columns and vectors.
        arrived: microseconds, arrival time of the batch.

    Returns:
        False if no item changed; then no file is written and the old one remains valid.
    """
    catalogue = None if old is None else old / "items.parquet"
    there = catalogue is not None and catalogue.is_file()
    before = pq.read_table(catalogue) if there else ITEMS.empty_table()
    for name, table in (("before_items", before), ("batch_items", items)):
        connection.register(name, _columns(table, ITEMS))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE changed_items AS
        SELECT b.*, a.item_id IS NOT NULL AND {BARE} AS bare
        FROM batch_items b LEFT JOIN before_items a USING (item_id)
        WHERE a.item_id IS NULL OR {_hash("a")} <> {_hash("b")}
    """)
    if connection.execute("SELECT count(*) FROM changed_items").fetchall() == [(0,)]:
        return False
    names = ", ".join(ITEMS.names)
    kept = f"(SELECT *, {SINCE_EVER}::BIGINT AS known_at FROM before_items)"
    if old is not None and (old / VERSIONS).is_file():
        kept = parquet([old / VERSIONS])
    updated = f"epoch_us(n.{c.UPDATED_AT})"
    known_at = f"""CASE WHEN n.bare THEN p.known_at
        ELSE greatest(coalesce(p.known_at + 1, 0), CASE WHEN {arrived} - {updated} > {BACKFILL_LAG}
            THEN {updated} ELSE {arrived} END) END"""
    if before.num_rows == 0:
        known_at = str(SINCE_EVER)
    connection.execute(f"""
        COPY (
            SELECT {names}, known_at FROM {kept}
            ANTI JOIN (SELECT item_id FROM changed_items WHERE bare) USING (item_id)
            UNION ALL
            SELECT {names}, ({known_at})::BIGINT AS known_at
            FROM changed_items n LEFT JOIN (
                SELECT item_id, max(known_at) AS known_at FROM {kept}
                SEMI JOIN changed_items USING (item_id) GROUP BY item_id
            ) p USING (item_id)
        ) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)
    """)
    return True


def read_versions(folder: Path, *, columns: list[str] | None = None) -> pa.Table:
    """Return all item versions of a snapshot, in no particular order.

    Snapshots written by earlier versions of the code have no versions file. Their items then count
    as first versions.
    """
    path = folder / VERSIONS
    if path.is_file():
        table = pq.read_table(path, columns=columns)
    else:
        items = pq.read_table(folder / "items.parquet")
        since = pa.array([SINCE_EVER] * items.num_rows, pa.int64())
        table = items.append_column(c.KNOWN_AT, since)
    fields = [ITEM_VERSIONS.field(name) for name in columns or ITEM_VERSIONS.names]
    return _columns(table, pa.schema(fields))


def _hash(row: str) -> str:
    """Return an SQL expression for the hash of a version's content."""
    return f"hash({', '.join(f'{row}.{name}' for name in CONTENT)})"


def _columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Select the columns of `schema`; columns that older files lack become null."""
    arrays = [
        table.column(field.name)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(arrays, names=schema.names).cast(
        pa.schema([pa.field(field.name, field.type) for field in schema])
    )
