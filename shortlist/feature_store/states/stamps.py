"""Which stored row a served state was: found by the time of its newest event, which a service logs.

A row's stamp is when it became known, which for a batch of yesterday's events is hours after the
newest of them; only the rows themselves tell one from the other.
"""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from shortlist.feature_store.states.snapshots import sql_path

NEWEST_EVENT = {
    "user_stats": ("user_id", "user_last_time"),
    "user_kinds": ("user_id", "user_kind_last_time"),
    "user_searches": ("user_id", "list_max(search_times)"),
    "context_trend": ("context_id", "context_last_time"),
}
"""View -> its key, and in SQL the time of a row's newest event: it never falls from row to row."""


def stamps_around(
    folder: Path, view: str, *, keys: list[str], as_of: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows at the border of what a served state had, of those known by the request.

    Args:
        folder: snapshots, as build_states writes them.
        view: one of NEWEST_EVENT.
        keys: (B,) users or contexts.
        as_of: (B,) int64 microseconds, time of the newest event in the served state; 0 for none.
        at: (B,) int64 microseconds, time of the request.

    Returns:
        (B,) stamp of the newest row that has no newer event, (B,) stamp of the first one that has;
        0 where there is none.
    """
    key, time = NEWEST_EVENT[view]
    places = np.arange(len(keys))
    requests = pa.table(
        {"place": places, key: pa.array(keys, pa.string()), "served": as_of, "asked": at}
    )
    stamp = "epoch_us(event_timestamp)"
    had, missed = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
    with duckdb.connect() as connection:
        connection.register("requests", requests)
        found = connection.execute(
            f"""
            SELECT place, coalesce(max({stamp}) FILTER ({time} <= served), 0) AS had,
                coalesce(min({stamp}) FILTER ({time} > served), 0) AS missed
            FROM requests JOIN read_parquet('{sql_path(folder / view / "*.parquet")}') USING ({key})
            WHERE {stamp} <= asked GROUP BY place
            """
        ).fetchnumpy()
    had[found["place"]], missed[found["place"]] = found["had"], found["missed"]
    return had, missed
