"""SQL of a user's refusals (shortlist/refusals.py); rules as in target_sql.py."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.feature_store.states.target_sql import KNOWN_AT, T, listed, recent
from shortlist.refusals import RATED, REFUSING, TAKING_BACK


def refuses_sql(low_rating: float | None) -> str:
    """`refusals.refuses` in SQL, of the columns event_type and value: true, false or null."""
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
    """Table `refusals` of the events that refuse an item or take a refusal back and became known in
    (after, until].
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
    """Single events in the order in which they became known. What takes nothing back is left out:
    the many purchases of items that nobody refused.

    Args:
        parts: the files before, to go on from.
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
