"""Derives event_ids from the content of events, so that a repeated read adds nothing."""

import duckdb
import pyarrow as pa

from shortlist import columns as c

IDENTITY = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIMESTAMP, c.VALUE, c.QUERY, c.REQUEST_ID)
"""Columns whose values identify an event that has no event_id in its source."""


def derived_id() -> str:
    """Return SQL of the derived event_id, an expression on contract columns."""
    # Missing values become empty: the hash must not be NULL, and validation reports the row.
    time = f"epoch_us({c.EVENT_TIMESTAMP})"
    parts = ", ".join(
        f"coalesce({time if key == c.EVENT_TIMESTAMP else key}::VARCHAR, '')" for key in IDENTITY
    )
    return f"substr(md5(concat_ws(chr(31), {parts})), 1, 24)"


def event_ids(interactions: pa.Table) -> pa.Array:
    """Return the derived event_ids of a table.

    Args:
        interactions: table with columns of IDENTITY; missing columns are treated as null.
    """
    for name in set(IDENTITY) - set(interactions.column_names):
        nothing = pa.nulls(interactions.num_rows, pa.string())
        interactions = interactions.append_column(name, nothing)
    with duckdb.connect() as connection:
        connection.register("rows", interactions)
        found = connection.sql(f"SELECT {derived_id()} AS id FROM rows").to_arrow_table()
    return found.column("id").combine_chunks().cast(pa.string())
