"""Mapping of posted events, and evaluation of a run's `exclude` on them."""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS
from shortlist.counting import INBOX
from shortlist.datasets.config import InteractionFile
from shortlist.datasets.mapping import events_sql
from shortlist.datasets.readers import objects_of
from shortlist.datasets.staging import excluded_sql

RECEIVED_AT = "received_at"
POSTED = InteractionFile(
    path="(inbox)",
    columns={
        **{name: name for name in INTERACTIONS.names if name not in (c.EVENT_ORDER, c.SOURCE)},
        c.INGESTED_AT: RECEIVED_AT,
    },
    format="jsonl",
    timestamp_unit="us",
    sparse=True,
    exact_ids=True,
)


def excluded_ids(events: Sequence[dict[str, Any]], exclude: Sequence[str]) -> set[str]:
    """Return the event_ids of the posted events that `exclude` leaves out.

    Args:
        events: events in the form of inbox lines.
        exclude: SQL conditions on the contract's columns. Here `source` is only "service:", while
            staging appends the name of the inbox file.

    Raises:
        duckdb.Error: a condition can't be evaluated.
    """
    if not exclude or not events:
        return set()
    raw = objects_of("posted", list(POSTED.columns.values()))
    query = events_sql(raw, POSTED, source=INBOX, where="posted events", now=0)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("posted", pa.table({"line": [json.dumps(event) for event in events]}))
        found = connection.execute(
            f"SELECT {c.EVENT_ID} FROM ({query}) WHERE {excluded_sql(exclude)}"
        ).fetchall()
    return {event_id for (event_id,) in found}
