"""The id of an event that has none: the same event always has the same one, so that a second
reading adds nothing.
"""

import duckdb
import pyarrow as pa

from shortlist import columns as c

IDENTITY = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIMESTAMP, c.VALUE, c.QUERY, c.REQUEST_ID)
"""What makes two events without an id the same event."""


def derived_id() -> str:
    """SQL of the id, over contract columns."""
    # A missing id is for validation to name, not for a hash to stumble over.
    time = f"epoch_us({c.EVENT_TIMESTAMP})"
    parts = ", ".join(
        f"coalesce({time if key == c.EVENT_TIMESTAMP else key}::VARCHAR, '')" for key in IDENTITY
    )
    return f"substr(md5(concat_ws(chr(31), {parts})), 1, 24)"


def event_ids(interactions: pa.Table) -> pa.Array:
    """The ids of a table's events.

    Args:
        interactions: the columns of IDENTITY; one that is missing is null.
    """
    for name in set(IDENTITY) - set(interactions.column_names):
        nothing = pa.nulls(interactions.num_rows, pa.string())
        interactions = interactions.append_column(name, nothing)
    with duckdb.connect() as connection:
        connection.register("rows", interactions)
        found = connection.sql(f"SELECT {derived_id()} AS id FROM rows").to_arrow_table()
    return found.column("id").combine_chunks().cast(pa.string())
