"""Finds the stored row that corresponds to a served state, by the time of its newest event.

The service logs the time of the newest event of each state. This differs from the stamp of the
stored row, which is the time at which its newest events became known. Events that are ingested a
day later, for example, become known hours after they happened. The stored rows give the stamp for
the logged time.
"""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from shortlist.feature_store.states.snapshots import sql_path

NEWEST_EVENT = {
    "user_stats": ("user_id", "user_last_time"),
    "user_event_groups": ("user_id", "user_group_last_time"),
    "user_searches": ("user_id", "list_max(search_times)"),
    "context_trend": ("context_id", "context_last_time"),
}
"""View -> (key, SQL expression of the time of a row's newest event). Within a key this time never
decreases from row to row.
"""


def stamps_around(
    folder: Path, view: str, *, keys: list[str], as_of: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the stamps of the stored rows before and after each served state.

    The first is that of the last row whose events the state contained, the second that of the first
    row with an event that it lacked. Only rows known by the time of the request are considered.

    Args:
        folder: snapshots written by build_states.
        view: a key of NEWEST_EVENT.
        keys: (B,) users or contexts.
        as_of: (B,) int64 microseconds, time of the newest event in the served state; 0 for none.
        at: (B,) int64 microseconds, time of the request.

    Returns:
        (B,) stamp of the newest row without an event after `as_of`; (B,) stamp of the first row
        with such an event; 0 if there is no such row.
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
