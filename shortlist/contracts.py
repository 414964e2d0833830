"""Schemas of the tables exchanged between packages, and the check of a table against its schema.

Times are UTC in microseconds: with nanoseconds in Parquet, Feast fails to copy states to the online
store through DuckDB.
Ids are strings, so that '00196' keeps its zeros and 196.0 is refused.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c

TIMESTAMP = pa.timestamp("us", tz="UTC")

EVENT_TYPES = (
    "impression",
    "view",
    "click",
    "add_to_cart",
    "purchase",
    "return",
    "rating",
    "review",
    "like",
    "dislike",
    "hide",
    "watch",
    "search",
    "survey",
)
EVENT_CODE = {name: code for code, name in enumerate(EVENT_TYPES, start=1)}
"""Event type -> integer code used in histories; 0 is padding or an unknown type."""
MEASURED = ("purchase", "add_to_cart", "watch")
"""Event types whose value is a price or a duration."""
WITHOUT_ITEM = ("search",)
"""Event types that may have no item."""
MAX_VALUE = 1e12
"""Upper limit of a valid price, duration or rating. Its square still fits a float32."""
MAX_DAYS_AHEAD = 1_000
"""Days that an item's publication date may be in the future."""
BACKFILL_LAG = 7 * c.MICROSECONDS_PER_DAY
"""Microseconds. An event that arrives more than this after it happened is imported history.

For point-in-time features, imported events count as known from the time they happened; all other
events count as known from their arrival.
"""


class ContractError(ValueError):
    """A table violates its contract; the message gives table, column and expected content."""


def _required(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


INTERACTIONS = pa.schema(
    [
        _required(c.EVENT_ID, pa.string()),
        _required(c.USER_ID, pa.string()),
        pa.field(c.ITEM_ID, pa.string()),  # null for WITHOUT_ITEM
        _required(c.EVENT_TYPE, pa.string()),
        _required(c.EVENT_TIMESTAMP, TIMESTAMP),
        _required(c.EVENT_ORDER, pa.int64()),
        _required(c.INGESTED_AT, TIMESTAMP),
        pa.field(c.VALUE, pa.float64()),
        pa.field(c.TEXT, pa.string()),
        pa.field(c.QUERY, pa.string()),
        pa.field(c.SESSION_ID, pa.string()),
        pa.field(c.REQUEST_ID, pa.string()),
        pa.field(c.POSITION, pa.int32()),
        pa.field(c.SURFACE, pa.string()),
        pa.field(c.DEVICE, pa.string()),
        _required(c.SOURCE, pa.string()),
    ]
)

ITEMS = pa.schema(
    [
        _required(c.ITEM_ID, pa.string()),
        pa.field(c.TITLE, pa.string()),
        pa.field(c.DESCRIPTION, pa.string()),
        _required(c.CATEGORIES, pa.list_(pa.string())),
        pa.field(c.BRAND, pa.string()),
        pa.field(c.PRICE, pa.float64()),
        pa.field(c.PUBLISHED_AT, TIMESTAMP),
        _required(c.AVAILABLE, pa.bool_()),
        pa.field(c.IMAGE, pa.string()),
        pa.field(c.ATTRIBUTES, pa.map_(pa.string(), pa.string())),
        pa.field(c.UPDATED_AT, TIMESTAMP),
    ]
)

ITEM_VERSIONS = pa.schema([*ITEMS, _required(c.KNOWN_AT, pa.int64())])
"""One row per version of an item. `known_at` is in microseconds; 0: known from the beginning."""

USERS = pa.schema(
    [
        _required(c.USER_ID, pa.string()),
        pa.field(c.ATTRIBUTES, pa.map_(pa.string(), pa.string())),
        pa.field(c.CREATED_AT, TIMESTAMP),
    ]
)

# One row per shown item. `features` has the order of the release's ranking schema.
SERVING_LOG = pa.schema(
    [
        _required(c.REQUEST_ID, pa.string()),
        _required("release_id", pa.string()),
        pa.field("pack_id", pa.string()),
        _required("arm", pa.string()),
        _required(c.USER_ID, pa.string()),
        _required(c.CONTEXT_ID, pa.string()),
        _required(c.EVENT_TIMESTAMP, TIMESTAMP),
        pa.field("user_as_of", TIMESTAMP),
        _required("delta_epoch", pa.int64()),
        _required("rules_version", pa.string()),
        pa.field("seed", pa.int64()),
        _required("skipped_stages", pa.list_(pa.string())),
        _required(c.ITEM_ID, pa.string()),
        _required(c.POSITION, pa.int32()),
        _required(c.SOURCE, pa.string()),
        _required(c.SCORE, pa.float64()),
        _required("propensity", pa.float64()),
        _required("features", pa.list_(pa.float32())),
    ]
)


def check(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """Check `table` against `schema` and return it with the columns in the schema's order.

    Missing nullable columns are filled with nulls. Extra `vector_<modality>` columns (list<float>)
    of item tables are kept at the end.

    Raises:
        ContractError: a required column is missing or has nulls, a column has another type, or a
            column is unknown.
    """
    arrays = []
    for field in schema:
        if field.name not in table.column_names:
            if not field.nullable:
                raise ContractError(
                    f"{where}: required column '{field.name}' is missing;"
                    f" the table has {', '.join(table.column_names)}"
                )
            arrays.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if column.type != field.type:
            raise ContractError(
                f"{where}: column '{field.name}' is {column.type}, want {field.type}"
                + _type_hint(column.type, field.type)
            )
        if not field.nullable and column.null_count:
            raise ContractError(
                f"{where}: column '{field.name}' has {column.null_count} nulls in"
                f" {table.num_rows} rows, want none"
            )
        arrays.append(column)
    vectors = [name for name in table.column_names if name.startswith("vector_")]
    unknown = set(table.column_names) - set(schema.names) - set(vectors)
    if unknown:
        raise ContractError(
            f"{where}: unknown columns {', '.join(sorted(unknown))}; the contract has"
            f" {', '.join(schema.names)}"
        )
    fields = list(schema) + [table.schema.field(name) for name in vectors]
    return pa.table(arrays + [table.column(name) for name in vectors], schema=pa.schema(fields))


def _type_hint(got: pa.DataType, want: pa.DataType) -> str:
    if pa.types.is_floating(got) and pa.types.is_string(want):
        return " (missing ids became NaN?)"
    if pa.types.is_timestamp(got) and pa.types.is_timestamp(want):
        return " (UTC, microseconds)"
    return ""


def sort_by_time(interactions: pa.Table) -> pa.Table:
    """Sort by the sort key of all interactions: (event_timestamp, event_order)."""
    return interactions.sort_by([(c.EVENT_TIMESTAMP, "ascending"), (c.EVENT_ORDER, "ascending")])


def microseconds(timestamps: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert timestamps to int64 microseconds since 1970 (UTC)."""
    return pc.cast(timestamps, pa.int64())


def event_codes(event_types: pa.ChunkedArray) -> np.ndarray:
    """Return EVENT_CODE of each event type as int64; 0 for null and unknown types."""
    code = pc.index_in(event_types, value_set=pa.array(EVENT_TYPES))
    return pc.add(pc.fill_null(code, -1), 1).to_numpy().astype(np.int64)
