"""Lists out of single events: what a user's history was at each request, in SQL.

A source's rows are events in the order in which they became known. A history at `at` is what was
known by then: each item at its newest event, oldest first, the newest MAX_HISTORY of them. An entry
of a user's list tells with which event it became known and with which one a newer event of its item
replaced it, so a request's history is a selection of one list.
"""

from collections.abc import Sequence

import duckdb

from shortlist.features import MAX_HISTORY

EVENT_LISTS = {
    "history_items": "item_id",
    "history_times": "event_time",
    "history_values": "value",
    "history_types": "type_code",
}
"""Feature -> column of the source. The key is `user_id`, the moment `event_timestamp`."""


def lists_at(
    connection: duckdb.DuckDBPyConnection, requests: str, source: str, names: Sequence[str]
) -> str:
    """A query of table `requests` (with user_id, event_timestamp) and the lists, null where there
    are none.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE list_events AS
        SELECT *, row_number() OVER (
            PARTITION BY user_id ORDER BY event_timestamp, event_time, event_order, item_id
        ) AS n
        FROM (
            SELECT * FROM {source} WHERE user_id IN (SELECT user_id FROM {requests})
            QUALIFY coalesce(event_time >= max(event_time) OVER (
                PARTITION BY user_id, item_id ORDER BY event_timestamp, event_time, event_order
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true)
        )
        """
    )
    connection.execute(
        """
        CREATE TEMP TABLE list_moments AS
        SELECT user_id, event_timestamp AS known_from, max(n) AS known
        FROM list_events GROUP BY ALL
        """
    )
    fields = ", ".join(f"'{name}': {EVENT_LISTS[name]}" for name in names)
    chosen = ", ".join(f"list_transform(kept, lambda e: e.{name}) AS {name}" for name in names)
    return f"""(
        WITH numbered AS (SELECT *, row_number() OVER () AS request_row FROM {requests}),
        lists AS (
            SELECT user_id, list(
                {{'known': n, 'replaced': replaced, {fields}}}
                ORDER BY event_time, event_order, item_id
            ) AS entries
            FROM (
                SELECT *, lead(n) OVER (PARTITION BY user_id, item_id ORDER BY n) AS replaced
                FROM list_events
            ) GROUP BY user_id
        ), cut AS (
            SELECT r.request_row, list_filter(
                entries,
                lambda e: e.known <= m.known AND coalesce(e.replaced > m.known, true)
            )[-{MAX_HISTORY}:] AS kept
            FROM numbered r
            ASOF JOIN list_moments m
                ON r.user_id = m.user_id AND r.event_timestamp::TIMESTAMPTZ >= m.known_from
            JOIN lists ON r.user_id = lists.user_id
        )
        SELECT r.* EXCLUDE request_row, {chosen}
        FROM numbered r LEFT JOIN cut USING (request_row)
    )"""


def latest_lists(source: str, between: str, end: int, names: Sequence[str]) -> str:
    """The newest lists of the users of whom something became known `between` (a condition)."""
    lists = ", ".join(
        f"list({EVENT_LISTS[name]} ORDER BY event_time, event_order, item_id)"
        f"[-{MAX_HISTORY}:] AS {name}"
        for name in names
    )
    return f"""
        SELECT user_id, {lists}, max(stamp) AS event_timestamp
        FROM (
            SELECT *, max(event_timestamp) OVER (PARTITION BY user_id) AS stamp
            FROM {source}
            WHERE event_timestamp <= make_timestamptz({end})
                AND user_id IN (SELECT user_id FROM {source} WHERE {between})
            QUALIFY row_number() OVER (
                PARTITION BY user_id, item_id
                ORDER BY event_time DESC, event_timestamp DESC, event_order DESC
            ) = 1
        ) GROUP BY user_id
    """
