"""Lists out of single events: what a user's lists were at each request, in SQL.

A source's rows are events in the order in which they became known. A list at `at` is made of what
was known by then, oldest first. An entry tells with which event it became known and with which one
a later event of its item replaced it, so a request's list is a selection of one list of the user.

- History: rows with `once` hold each item at its newest event, rows without hold every event.
- Refusals: the last event of an item to become known decides whether it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from shortlist.features.finalize import MAX_HISTORY
from shortlist.refusals import MAX_REFUSED


@dataclass(frozen=True)
class EventLists:
    """How a view's lists are made. The key is `user_id`, the moment `event_timestamp`."""

    columns: dict[str, str]
    """Feature -> column of the source."""
    slot: str
    """SQL: events of one user and slot replace each other."""
    read: str
    """SQL that reads the events of a source that count; `{events}` are those of the users."""
    newest: str
    """SQL: by which of the events of a slot stays."""
    kept: str
    """SQL condition of the entries that are listed."""
    order: str
    limit: int


HISTORY = EventLists(
    columns={
        "history_items": "item_id",
        "history_times": "event_time",
        "history_values": "value",
        "history_types": "type_code",
    },
    slot="item_id, CASE WHEN once THEN 0 ELSE hash(event_timestamp, event_time, event_order) END",
    read="""
        SELECT * FROM {events} QUALIFY coalesce(NOT once OR event_time >= max(event_time) OVER (
            PARTITION BY user_id, item_id ORDER BY event_timestamp, event_time, event_order
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true)
    """,
    newest="event_time DESC, event_timestamp DESC, event_order DESC",
    kept="true",
    order="event_time, event_order, item_id",
    limit=MAX_HISTORY,
)
REFUSALS = EventLists(
    columns={"refused_items": "item_id", "refused_times": "event_time"},
    slot="item_id",
    read="SELECT * FROM {events}",
    newest="event_timestamp DESC, event_time DESC, event_order DESC",
    kept="refused",
    order="event_time, event_timestamp, event_order, item_id",
    limit=MAX_REFUSED,
)


def lists_of(names: Sequence[str]) -> EventLists | None:
    """The lists that have these features; None if they are no lists of events."""
    for lists in (HISTORY, REFUSALS):
        if set(names) & lists.columns.keys():
            return lists
    return None


def lists_at(
    connection: duckdb.DuckDBPyConnection, requests: str, source: str, names: Sequence[str]
) -> str:
    """A query of table `requests` (with user_id, event_timestamp) and the lists, null where there
    are none.
    """
    lists = lists_of(names)
    assert lists is not None, f"no lists of events: {names}"
    of_users = f"(SELECT * FROM {source} WHERE user_id IN (SELECT user_id FROM {requests}))"
    events, moments = f"events_of_{names[0]}", f"moments_of_{names[0]}"
    connection.execute(
        f"""
        CREATE TEMP TABLE {events} AS
        SELECT *, row_number() OVER (
            PARTITION BY user_id ORDER BY event_timestamp, event_time, event_order, item_id
        ) AS n
        FROM ({lists.read.format(events=of_users)})
        """
    )
    connection.execute(
        f"""
        CREATE TEMP TABLE {moments} AS
        SELECT user_id, event_timestamp AS known_from, max(n) AS known
        FROM {events} GROUP BY ALL
        """
    )
    fields = ", ".join(f"'{name}': {lists.columns[name]}" for name in names)
    chosen = ", ".join(f"list_transform(kept, lambda e: e.{name}) AS {name}" for name in names)
    return f"""(
        WITH numbered AS (SELECT *, row_number() OVER () AS request_row FROM {requests}),
        lists AS (
            SELECT user_id, list(
                {{'known': n, 'replaced': replaced, {fields}}} ORDER BY {lists.order}
            ) AS entries
            FROM (
                SELECT *, lead(n) OVER (PARTITION BY user_id, {lists.slot} ORDER BY n) AS replaced
                FROM {events}
            ) WHERE {lists.kept} GROUP BY user_id
        ), cut AS (
            SELECT r.request_row, list_filter(
                entries,
                lambda e: e.known <= m.known AND coalesce(e.replaced > m.known, true)
            )[-{lists.limit}:] AS kept
            FROM numbered r
            ASOF JOIN {moments} m
                ON r.user_id = m.user_id AND r.event_timestamp::TIMESTAMPTZ >= m.known_from
            JOIN lists ON r.user_id = lists.user_id
        )
        SELECT r.* EXCLUDE request_row, {chosen}
        FROM numbered r LEFT JOIN cut USING (request_row)
    )"""


def latest_lists(source: str, between: str, end: int, names: Sequence[str]) -> str:
    """The newest lists of the users of whom something became known `between` (a condition)."""
    lists = lists_of(names)
    assert lists is not None, f"no lists of events: {names}"
    columns = ", ".join(
        f"list({lists.columns[name]} ORDER BY {lists.order}) FILTER (WHERE {lists.kept})"
        f"[-{lists.limit}:] AS {name}"
        for name in names
    )
    return f"""
        SELECT user_id, {columns}, max(stamp) AS event_timestamp
        FROM (
            SELECT *, max(event_timestamp) OVER (PARTITION BY user_id) AS stamp
            FROM {source}
            WHERE event_timestamp <= make_timestamptz({end})
                AND user_id IN (SELECT user_id FROM {source} WHERE {between})
            QUALIFY row_number() OVER (
                PARTITION BY user_id, {lists.slot} ORDER BY {lists.newest}
            ) = 1
        ) GROUP BY user_id
    """
