"""Finds the items that users chose after a search."""

from pathlib import Path

import pyarrow as pa

from shortlist import columns as c
from shortlist.lake.engine import connect

MINUTES = 30
"""An event belongs to the user's last search if it follows within this time."""


def chosen_after_search(searches: pa.Table, events: pa.Table, *, temporary: Path) -> pa.Table:
    """Return the pairs of a search and an event that followed it, sorted by the event's time.

    If both have a request id (of the list that showed the item), it must be the same.

    Args:
        searches: events with a query, INTERACTIONS contract.
        events: INTERACTIONS contract.
        temporary: folder for DuckDB's spill files.

    Returns:
        Columns `query` and `searched_at` of the search; user_id, item_id, event_timestamp,
        ingested_at and source of the event.
    """
    with connect(temporary) as connection:
        connection.register("searches", searches)
        connection.register("events", events)
        return connection.sql(
            f"""
            WITH written AS (
                SELECT user_id, event_timestamp, query, request_id
                FROM searches WHERE trim(query) != ''
            )
            SELECT s.query AS {c.QUERY}, s.event_timestamp AS searched_at,
                e.user_id AS {c.USER_ID}, e.item_id AS {c.ITEM_ID},
                e.event_timestamp AS {c.EVENT_TIMESTAMP}, e.ingested_at AS {c.INGESTED_AT},
                e.source AS {c.SOURCE}
            FROM events e ASOF JOIN written s
                ON e.user_id = s.user_id AND e.event_timestamp >= s.event_timestamp
            WHERE e.item_id IS NOT NULL
                AND e.event_timestamp - s.event_timestamp <= INTERVAL {MINUTES} MINUTE
                AND (e.request_id IS NULL OR s.request_id IS NULL OR e.request_id = s.request_id)
            ORDER BY e.event_timestamp, e.event_id
            """
        ).to_arrow_table()
