"""SQL of the last searches (shortlist/features/searches.py); time rules as in target_sql.py."""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.feature_store.states.target_sql import KNOWN_AT, T, recent
from shortlist.features.searches import MAX_QUERY, MAX_SEARCHES, SEARCH


def read_searches(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    until: int,
    after: int | None,
) -> None:
    """Create the temporary table `searches` of queries that became known in (after, until]."""
    connection.execute(
        f"""
        CREATE TEMP TABLE searches AS
        SELECT user_id, {T} AS t, {KNOWN_AT} AS m, event_order AS place,
            left(query, {MAX_QUERY}) AS query, 1 AS n
        FROM read_parquet($files, union_by_name = true)
        WHERE event_type = '{SEARCH}' AND query <> '' AND {KNOWN_AT} <= {until} {recent(after)}
        """,
        {"files": [str(file) for file in files]},
    )


def searches_query(*, carry: str | None, after: int | None) -> str:
    """Return the SQL of user_searches: one row per user and time at which a search became known.

    A row has the newest MAX_SEARCHES searches by time. Of searches at equal times, those that
    became known later are preferred, as for posted events.

    Args:
        carry: file of the newest states to continue from; None: start empty.
        after: microseconds; leave out rows of searches that became known up to this time.
    """
    found = "SELECT * FROM searches"
    if carry:
        found += f"""
            UNION ALL BY NAME
            SELECT * EXCLUDE search_count, CASE WHEN place = 0 THEN search_count ELSE 0 END AS n
            FROM (
                SELECT user_id, epoch_us(event_timestamp) AS m, unnest(search_queries) AS query,
                    unnest(search_times) AS t, unnest(range(len(search_times))) AS place,
                    search_count
                FROM read_parquet('{carry}') WHERE user_id IN (SELECT user_id FROM searches)
            )
        """
    only = "" if after is None else f"WHERE m > {after}"
    return f"""
        SELECT user_id, make_timestamptz(m) AS event_timestamp,
            list_transform(held, lambda s: s.query) AS search_queries,
            list_transform(held, lambda s: s.t) AS search_times, search_count
        FROM (
            SELECT user_id, m, (sum(n) OVER past)::BIGINT AS search_count, list_reverse(
                max({{'t': t, 'm': m, 'place': place, 'query': query}}, {MAX_SEARCHES}) OVER past
            ) AS held
            FROM ({found})
            WINDOW past AS (PARTITION BY user_id ORDER BY m)
            QUALIFY row_number() OVER (PARTITION BY user_id, m) = 1
        ) {only} ORDER BY user_id, m
    """
