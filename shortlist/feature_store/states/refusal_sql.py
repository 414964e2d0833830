"""SQL of user refusals (shortlist/behaviour/refusals.py); time rules as in target_sql.py.

A refusal is an event by which a user rejects an item, such as `hide`. A later event, such as a
purchase, withdraws it.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.behaviour.refusals import RATED, REFUSING, TAKING_BACK
from shortlist.feature_store.states.target_sql import KNOWN_AT, T, listed, recent


def refuses_sql(low_rating: float | None) -> str:
    """Return the SQL counterpart of `refusals.refuses` on event_type and value: true, false or
    null.
    """
    rated = ""
    if low_rating is not None:
        finite = f"event_type IN ({listed(RATED)}) AND isfinite(value)"
        rated = f"WHEN {finite} THEN value <= {float(low_rating)!r}"
    return (
        f"CASE WHEN event_type IN ({listed(REFUSING)}) THEN true"
        f" WHEN event_type IN ({listed(TAKING_BACK)}) THEN false {rated} END"
    )


def read_refusals(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    low_rating: float | None,
    until: int,
    after: int | None,
) -> None:
    """Create the temporary table `refusals`: events that refuse an item or withdraw a refusal.

    Args:
        low_rating: ratings up to this value refuse their item; None: no rating does.
        until, after: microseconds; only events that became known in (after, until] are included.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE refusals AS
        SELECT user_id, item_id, {T} AS t, {KNOWN_AT} AS m, event_order,
            {refuses_sql(low_rating)} AS refused
        FROM read_parquet($files, union_by_name = true)
        WHERE item_id IS NOT NULL AND {refuses_sql(low_rating)} IS NOT NULL
            AND {KNOWN_AT} <= {until} {recent(after)}
        """,
        {"files": [str(file) for file in files]},
    )


def refusals_query(*, parts: str | None) -> str:
    """Return the SQL of user_refusals: single events, sorted by the time `m` at which each became
    known.

    Events that withdraw nothing are left out, such as purchases of items that the user did not
    refuse.

    Args:
        parts: file pattern of the earlier parts to continue from; None: start empty.
    """
    earlier = "SELECT NULL AS user_id, NULL AS item_id WHERE false"
    if parts:
        earlier = f"SELECT DISTINCT user_id, item_id FROM read_parquet('{parts}')"
    return f"""
        WITH earlier AS ({earlier})
        SELECT user_id, make_timestamptz(m) AS event_timestamp, item_id, t AS event_time,
            event_order, refused
        FROM (
            SELECT r.*, e.item_id IS NOT NULL OR coalesce(bool_or(refused) OVER (
                PARTITION BY r.user_id, r.item_id ORDER BY m, t, event_order
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), false) AS held
            FROM refusals r LEFT JOIN earlier e
                ON r.user_id = e.user_id AND r.item_id = e.item_id
        ) WHERE held ORDER BY user_id, m, t, event_order, item_id
    """
