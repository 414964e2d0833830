"""What every loader returns, and the pieces that loaders share."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS, check


class DatasetError(ValueError):
    """A source cannot be read; the message names file, line or column, and what would be right."""


@dataclass(frozen=True)
class Batch:
    """Three contract-checked tables; `excluded` counts rows that a rule of the config left out."""

    interactions: pa.Table
    items: pa.Table
    users: pa.Table
    excluded: int = 0

    @classmethod
    def checked(
        cls, where: str, interactions: pa.Table, items: pa.Table, users: pa.Table
    ) -> "Batch":
        """Raises ContractError if a table does not keep its contract."""
        return cls(
            check(interactions, INTERACTIONS, where=f"{where}: interactions"),
            check(items, ITEMS, where=f"{where}: items"),
            check(users, USERS, where=f"{where}: users"),
        )

    @property
    def batch_id(self) -> str:
        """By content: the same events, items and users are the same batch, whenever they come."""
        digest = hashlib.sha256()
        for table in (self.interactions.drop_columns([c.INGESTED_AT]), self.items, self.users):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            digest.update(sink.getvalue())
        return digest.hexdigest()[:16]


def interactions_table(
    *,
    user_id: Iterable[str],
    item_id: Iterable[str],
    event_type: str | pa.Array,
    seconds: np.ndarray,
    value: np.ndarray | None,
    source: str,
    ingested_at: int,
    surface: str | None = None,
) -> pa.Table:
    """Interactions with event_order from the order given and event_id derived from the content.

    Args:
        seconds: (E,) times in seconds since 1970, UTC; fractions are kept to the microsecond.
        value: (E,) float64, NaN becomes null.
        ingested_at: microseconds.
    """
    user, item = pa.array(user_id, pa.string()), pa.array(item_id, pa.string())
    n = len(user)
    time = pa.array(np.round(np.asarray(seconds, dtype=np.float64) * 1e6).astype(np.int64))
    kind = pa.array([event_type] * n, pa.string()) if isinstance(event_type, str) else event_type
    columns = {
        c.USER_ID: user,
        c.ITEM_ID: item,
        c.EVENT_TYPE: kind,
        c.EVENT_TIMESTAMP: time.cast(TIMESTAMP),
        c.EVENT_ORDER: pa.array(np.arange(n), pa.int64()),
        c.INGESTED_AT: pa.array(np.full(n, ingested_at), pa.int64()).cast(TIMESTAMP),
        c.VALUE: pa.array(value, pa.float64(), from_pandas=True)
        if value is not None
        else pa.nulls(n, pa.float64()),
        c.SURFACE: pa.array([surface] * n, pa.string()),
        c.SOURCE: pa.array([source] * n, pa.string()),
    }
    columns[c.EVENT_ID] = event_ids(user, item, kind, time, columns[c.VALUE])
    return pa.table(columns)


def event_ids(
    user: pa.Array, item: pa.Array, kind: pa.Array, time: pa.Array, value: pa.Array
) -> pa.Array:
    """Ids by content: the same event always has the same one, so that a second reading adds
    nothing.
    """
    # A missing id is for the contract check to name, not for a hash to stumble over.
    parts = [user, item, kind, time.cast(pa.string()), value.cast(pa.string())]
    parts = [pc.fill_null(part, "") for part in parts]
    keys = pc.binary_join_element_wise(*parts, "\x1f")
    return pa.array(
        [hashlib.blake2b(key.encode(), digest_size=12).hexdigest() for key in keys.to_pylist()],
        pa.string(),
    )


def with_likes(interactions: pa.Table, threshold: float | None) -> pa.Table:
    """Add a `like` right after every rating of `threshold` and more; the order in time is kept."""
    if threshold is None:
        return interactions
    is_like = pc.and_kleene(
        pc.equal(interactions.column(c.EVENT_TYPE), "rating"),
        pc.greater_equal(interactions.column(c.VALUE), threshold),
    )
    likes = interactions.filter(pc.fill_null(is_like, False))
    order = likes.column(c.EVENT_ORDER)
    kind = pa.array(["like"] * likes.num_rows, pa.string())
    ids = pc.binary_join_element_wise(likes.column(c.EVENT_ID), "like", "-")
    likes = (
        likes.set_column(likes.schema.get_field_index(c.EVENT_TYPE), c.EVENT_TYPE, kind)
        .set_column(likes.schema.get_field_index(c.EVENT_ID), c.EVENT_ID, ids)
        .set_column(
            likes.schema.get_field_index(c.EVENT_ORDER),
            c.EVENT_ORDER,
            pc.add(pc.multiply(order, 2), 1),
        )
    )
    doubled = pc.multiply(interactions.column(c.EVENT_ORDER), 2)
    at = interactions.schema.get_field_index(c.EVENT_ORDER)
    return pa.concat_tables([interactions.set_column(at, c.EVENT_ORDER, doubled), likes])


def attribute_maps(columns: dict[str, list[str | None]]) -> pa.Array:
    """{name: N values} -> N maps of the values that are there."""
    rows = [
        [(name, value) for name, value in zip(columns, values, strict=True) if value]
        for values in zip(*columns.values(), strict=True)
    ]
    return pa.array(rows, pa.map_(pa.string(), pa.string()))
