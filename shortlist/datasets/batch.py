"""Tables of a data source that is small enough to be held in memory."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, ITEMS, TIMESTAMP, USERS, check
from shortlist.datasets.identity import event_ids


@dataclass(frozen=True)
class Batch:
    """Events, items and users as tables that satisfy their contracts."""

    interactions: pa.Table
    items: pa.Table
    users: pa.Table

    @classmethod
    def checked(
        cls, where: str, interactions: pa.Table, items: pa.Table, users: pa.Table
    ) -> "Batch":
        """Check the tables and return them as a batch.

        Args:
            where: name of the source for error messages.

        Raises:
            ContractError: a table violates its contract.
        """
        return cls(
            check(interactions, INTERACTIONS, where=f"{where}: interactions"),
            check(items, ITEMS, where=f"{where}: items"),
            check(users, USERS, where=f"{where}: users"),
        )

    @property
    def batch_id(self) -> str:
        """Hash of the content without `ingested_at`, so that a repeated read gives the same id."""
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
    """Build an INTERACTIONS table; event_order is the given order, event_id a hash of the content.

    Args:
        seconds: (E,) times in seconds since 1970, UTC; fractions are kept to the microsecond.
        value: (E,) float64, NaN becomes null.
        ingested_at: microseconds.
    """
    user, item = pa.array(user_id, pa.string()), pa.array(item_id, pa.string())
    n = len(user)
    time = pa.array(np.round(np.asarray(seconds, dtype=np.float64) * 1e6).astype(np.int64))
    event_types = (
        pa.array([event_type] * n, pa.string()) if isinstance(event_type, str) else event_type
    )
    columns = {
        c.USER_ID: user,
        c.ITEM_ID: item,
        c.EVENT_TYPE: event_types,
        c.EVENT_TIMESTAMP: time.cast(TIMESTAMP),
        c.EVENT_ORDER: pa.array(np.arange(n), pa.int64()),
        c.INGESTED_AT: pa.array(np.full(n, ingested_at), pa.int64()).cast(TIMESTAMP),
        c.VALUE: pa.array(value, pa.float64(), from_pandas=True)
        if value is not None
        else pa.nulls(n, pa.float64()),
        c.SURFACE: pa.array([surface] * n, pa.string()),
        c.SOURCE: pa.array([source] * n, pa.string()),
    }
    return pa.table(columns | {c.EVENT_ID: event_ids(pa.table(columns))})


def attribute_maps(columns: dict[str, list[str | None]]) -> pa.Array:
    """Convert {name: N values} to N maps without missing and empty values."""
    rows = [
        [(name, value) for name, value in zip(columns, values, strict=True) if value]
        for values in zip(*columns.values(), strict=True)
    ]
    return pa.array(rows, pa.map_(pa.string(), pa.string()))
