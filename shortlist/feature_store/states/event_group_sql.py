"""SQL of event-group states (shortlist/features/event_groups.py); time rules as in target_sql.py.

An event group is a set of similar event types, such as click and view. Its state is a count and a
decayed sum.

There may be many more impressions than target events, so no table of single events is created. The
files are scanned twice: grouped by user and by `m`, the time at which events became known; and
grouped by item and by the tick that follows `m` (shortlist/ticks.py).
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.feature_store.states.running_sql import carried_weights, changes, weight
from shortlist.feature_store.states.target_sql import KNOWN_AT, T, first_tick, listed, recent
from shortlist.features.event_groups import EVENT_GROUPS, GROUPED_TYPES

DECAYED = tuple(f"{group}_decayed" for group in EVENT_GROUPS)
"""Columns of the decayed sums, in the order of the state's list."""


def read_event_groups(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    key: str,
    origin: int,
    until: int,
    after: int | None,
    tick: int,
) -> None:
    """Create the temporary table `<key>_event_groups`: counts and sums of weights per key and `m`.

    For users, `m` is the time at which events became known; for items it is rounded up to a tick.

    Args:
        key: "user_id" or "item_id".
        origin: origin of the weights, microseconds.
        until, after: microseconds; only events that became known in (after, until] are included.
        tick: tick length in microseconds.
    """
    moment = first_tick(tick) if key == "item_id" else "m"
    columns = []
    for group, types in EVENT_GROUPS.items():
        chosen = f"FILTER (event_type IN ({listed(types)}))"
        columns.append(f"count(*) {chosen}::DOUBLE AS {group}")
        columns.append(f"coalesce(sum(w) {chosen}, 0.0) AS {group}_decayed")
    connection.execute(
        f"""
        CREATE TEMP TABLE {key}_event_groups AS
        SELECT {key}, {moment} AS m, max(t) AS last_time, min(t) AS first_time, {", ".join(columns)}
        FROM (
            SELECT {key}, event_type, {T} AS t, {KNOWN_AT} AS m,
                {weight(T, origin=origin)} AS w
            FROM read_parquet($files, union_by_name = true)
            WHERE {key} IS NOT NULL AND event_type IN ({listed(GROUPED_TYPES)})
                AND {KNOWN_AT} <= {until} {recent(after)}
        ) GROUP BY ALL
        """,
        {"files": [str(file) for file in files]},
    )


def event_groups_query(
    key: str, *, origin: int, carry: str | None, after: int | None, until: int
) -> str:
    """Return the SQL of user_event_groups (one row per change) or item_event_groups (one row per
    tick with new events).

    Args:
        origin: origin of the weights, microseconds.
        carry: file of the newest states to continue from; None: start empty.
        after: leave out rows with `m` up to this time.
        until: leave out rows with a later `m`.
    """
    prefix = key.removesuffix("_id")
    groups = f"SELECT * FROM {key}_event_groups"
    if carry:
        groups += f"""
            UNION ALL BY NAME
            SELECT * REPLACE ({carried_weights(DECAYED, origin=origin)})
            FROM ({_carried(key, prefix, carry)})
            WHERE {key} IN (SELECT {key} FROM {key}_event_groups)
        """
    sums = tuple(EVENT_GROUPS)
    changed = changes(key, groups, sums=sums, decayed=DECAYED, origin=origin, after=after)
    return f"""
        SELECT {key}, make_timestamptz(m) AS event_timestamp,
            [{", ".join(EVENT_GROUPS)}] AS {prefix}_group_counts,
            [{", ".join(DECAYED)}] AS {prefix}_group_decayed,
            last_time AS {prefix}_group_last_time, first_time AS {prefix}_group_first_time
        FROM ({changed})
        WHERE m <= {until} ORDER BY {key}, m
    """


def _carried(key: str, prefix: str, path: str) -> str:
    lists = ", ".join(
        f"{prefix}_group_{which}[{number}] AS {name}"
        for which, names in (("counts", tuple(EVENT_GROUPS)), ("decayed", DECAYED))
        for number, name in enumerate(names, start=1)
    )
    return f"""
        SELECT {key}, epoch_us(event_timestamp) AS m, {prefix}_group_last_time AS last_time,
            {prefix}_group_first_time AS first_time, {lists}
        FROM read_parquet('{path}')
    """
