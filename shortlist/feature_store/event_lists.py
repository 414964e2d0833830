"""Lists out of single events: what a user's history was at each request, in SQL.

A source's rows are events in the order in which they became known. A history at `at` is what was
known by then: each item at its earliest event, oldest first, the newest MAX_HISTORY of them. For
nearly everyone that is a piece of one list, cut where an ASOF join says; who has late events (an
event older than one known before it) is computed request by request.
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
            QUALIFY coalesce(event_time < min(event_time) OVER (
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
    connection.execute(
        """
        CREATE TEMP TABLE list_late AS
        SELECT DISTINCT user_id FROM (
            SELECT user_id, event_time, n,
                event_time < max(event_time) OVER (PARTITION BY user_id ORDER BY n) AS late
            FROM list_events
        ) WHERE late
        """
    )
    whole = ", ".join(
        f"list({column} ORDER BY n) AS {feature}" for feature, column in EVENT_LISTS.items()
    )
    cut = ", ".join(
        f"{name}[greatest(known - {MAX_HISTORY - 1}, 1):known] AS {name}" for name in names
    )
    slow = ", ".join(
        f"list({EVENT_LISTS[name]} ORDER BY event_time, event_order, item_id)"
        f"[-{MAX_HISTORY}:] AS {name}"
        for name in names
    )
    chosen = ", ".join(
        f"CASE WHEN l.user_id IS NULL THEN f.{n} ELSE s.{n} END AS {n}" for n in names
    )
    return f"""(
        WITH numbered AS (SELECT *, row_number() OVER () AS request_row FROM {requests}),
        lists AS (SELECT user_id, {whole} FROM list_events GROUP BY user_id),
        fast AS (
            SELECT r.request_row, {cut}
            FROM numbered r
            ASOF JOIN list_moments m
                ON r.user_id = m.user_id AND r.event_timestamp::TIMESTAMPTZ >= m.known_from
            JOIN lists ON r.user_id = lists.user_id
        ), slow AS (
            SELECT request_row, {slow}
            FROM (
                SELECT r.request_row, e.*
                FROM numbered r JOIN list_late USING (user_id) JOIN list_events e
                    ON r.user_id = e.user_id AND e.event_timestamp <= r.event_timestamp::TIMESTAMPTZ
                QUALIFY row_number() OVER (
                    PARTITION BY r.request_row, e.item_id ORDER BY e.event_time, e.event_order
                ) = 1
            ) GROUP BY request_row
        )
        SELECT r.* EXCLUDE request_row, {chosen}
        FROM numbered r
        LEFT JOIN list_late l USING (user_id)
        LEFT JOIN fast f USING (request_row)
        LEFT JOIN slow s USING (request_row)
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
                PARTITION BY user_id, item_id ORDER BY event_time, event_order
            ) = 1
        ) GROUP BY user_id
    """
