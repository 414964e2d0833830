"""Versions of items: what the catalogue said about an item, and since when the lake has known it.

    items_versions.parquet    ITEMS columns without vectors, and `known_at` (microseconds)

A batch adds a row for each item whose content changed, so ingesting the same catalogue again adds
nothing. `known_at` follows the rule for events (feature_store/states/target_sql.py): a version is
known when it arrives, since it can't be served before. A version whose `updated_at` is more than
BACKFILL_LAG older than its arrival is imported history and counts from `updated_at` on.

Two versions of an item never have the same `known_at`, and a later arrival has a later one, so the
newest version is always the catalogue's row.

The lake's first catalogue is known since ever (0): it describes items that were there before the
lake. An item that comes later is known from its arrival on. A row with an id and nothing else, made
for an event about an unknown item, isn't a version: the first row with content takes its place.
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
CONTENT = [name for name in ITEMS.names if name not in (c.ITEM_ID, c.UPDATED_AT)]
BARE = "len(a.categories) = 0 AND " + " AND ".join(
    f"a.{name} IS NULL" for name in CONTENT if ITEMS.field(name).nullable
)


def add_versions(
    connection: duckdb.DuckDBPyConnection,
    old: Path | None,
    items: pa.Table,
    target: Path,
    *,
    arrived: int,
) -> bool:
    """Write the versions of a snapshot to `target`: those of `old`, and what is new in `items`.

    Args:
        old: folder of the snapshot before.
        items: good rows of a batch, each item once, ITEMS columns and vectors.
        arrived: microseconds, when the batch reached the lake.

    Returns:
        False if nothing changed; then no file is written and the old one stays.
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
    """All versions, in no particular order; each item's differ in `known_at`.

    A snapshot that an earlier version of the code wrote has no versions: its items are the first.
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
    """SQL: of what a version says."""
    return f"hash({', '.join(f'{row}.{name}' for name in CONTENT)})"


def _columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Without vectors; columns that an older contract didn't have are null."""
    arrays = [
        table.column(field.name)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(arrays, names=schema.names).cast(
        pa.schema([pa.field(field.name, field.type) for field in schema])
    )
