"""SQL that builds a user's lists (history, refusals) as of each request from single events.

The rows of a source are events, sorted by the time at which they became known. A list as of a
request contains the entries known by then, oldest first. All entries of a user are collected once,
each with the number of the event that added it and of the event that replaced it. The list of a
request is then a filter on these two numbers.

- History: if the rows have `once`, each item is kept at its newest event; otherwise every event is.
- Refusals: of a user's refusing and withdrawing events about an item, the one that became known
  last decides whether the item is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from shortlist.behaviour.refusals import MAX_REFUSED
from shortlist.features.finalize import MAX_HISTORY


@dataclass(frozen=True)
class EventLists:
    """How the lists of a view are built from its source.

    `user_id` is the key; `event_timestamp` is the time at which an event became known.
    """

    columns: dict[str, str]
    """Feature -> column of the source."""
    slot: str
    """SQL expression of an event's slot: a later event of the same user and slot replaces an
    earlier one. For a history with each item once, the slot is the item.
    """
    read: str
    """SQL query of the relevant events; `{events}` stands for the events of the requested users."""
    newest: str
    """SQL sort order of the events of a slot; the first one is kept."""
    kept: str
    """SQL condition for an entry to be in the list."""
    order: str
    """SQL sort order of the list."""
    limit: int
    """Maximum length of the list; the newest entries are kept."""


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
    """Return the EventLists with one of these features; None if they are not event lists."""
    for lists in (HISTORY, REFUSALS):
        if set(names) & lists.columns.keys():
            return lists
    return None


def lists_at(
    connection: duckdb.DuckDBPyConnection, requests: str, source: str, names: Sequence[str]
) -> str:
    """Return an SQL query of the table `requests` (user_id, event_timestamp, ...) joined with the
    lists as of each request.

    Lists are null for users without events. Creates two temporary tables.

    Args:
        requests: name of the table of requests.
        source: SQL relation of the view's events.
        names: requested features.
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
    """Return an SQL query of the newest lists of users with an event that satisfies a condition.

    Args:
        source: SQL relation of the view's events.
        between: SQL condition on the events.
        end: microseconds; events that became known later are ignored.
        names: requested features.
    """
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
