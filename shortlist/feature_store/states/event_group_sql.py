"""SQL of event-group states (shortlist/features/event_groups.py); time rules as in target_sql.py.

There may be many more impressions than target events, so no table of single events is created. The
files are scanned twice: grouped by user and `m`, and grouped by item and tick.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.feature_store.states.running_sql import LATE_HALF_LIVES, changes, weight
from shortlist.feature_store.states.target_sql import KNOWN_AT, T, first_tick, listed, recent
from shortlist.features.event_groups import EVENT_GROUPS, GROUPED_TYPES, HALF_LIVES

DECAYED = {
    f"{group}_{name}": half_life for name, half_life in HALF_LIVES.items() for group in EVENT_GROUPS
}
"""Column of a decayed sum -> half-life, in the order of the state's list."""


def read_event_groups(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    key: str,
    until: int,
    after: int | None,
    tick: int,
) -> None:
    """Create the temporary table `<key>_event_groups`: counts and decayed sums per key and `m` of
    events that became known in (after, until].

    For users, `m` is the time at which events became known; for items it is rounded up to a tick.
    """
    moment = first_tick(tick) if key == "item_id" else "m"
    events = f"""
        SELECT {key}, event_type, t, {moment} AS m FROM (
            SELECT {key}, event_type, {T} AS t, {KNOWN_AT} AS m
            FROM read_parquet($files, union_by_name = true)
            WHERE {key} IS NOT NULL AND event_type IN ({listed(GROUPED_TYPES)})
                AND {KNOWN_AT} <= {until} {recent(after)}
        )
    """
    given = {"files": [str(file) for file in files]}
    table = f"{key}_event_groups"
    connection.execute(f"CREATE TEMP TABLE {table} AS {_grouped(key, events, 'm')}", given)
    late = f"m - last_time > {LATE_HALF_LIVES * min(HALF_LIVES.values())}"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE late AS SELECT {key}, m, last_time FROM {table} WHERE {late}"
    )
    if connection.execute("SELECT count(*) FROM late").fetchall() == [(0,)]:
        return
    connection.execute(f"DELETE FROM {table} WHERE {late}")
    events = f"SELECT * FROM ({events}) JOIN late USING ({key}, m)"
    connection.execute(f"INSERT INTO {table} {_grouped(key, events, 'last_time')}", given)


def _grouped(key: str, events: str, weighed_at: str) -> str:
    """Return the SQL of counts and decayed sums per key and `m`, from events (key, event_type, t,
    m).

    Args:
        weighed_at: column with the time of the decayed sums, constant per key and `m`.
    """
    columns = []
    for group, types in EVENT_GROUPS.items():
        chosen = f"FILTER (event_type IN ({listed(types)}))"
        columns.append(f"count(*) {chosen}::DOUBLE AS {group}")
        columns += [
            f"coalesce(sum(weight_{name}) {chosen}, 0.0) AS {group}_{name}" for name in HALF_LIVES
        ]
    weights = ", ".join(
        f"{weight('t', weighed_at, half_life=half_life)} AS weight_{name}"
        for name, half_life in HALF_LIVES.items()
    )
    return f"""
        SELECT {key}, m, first({weighed_at}) AS weighed_at, max(t) AS last_time,
            min(t) AS first_time, {", ".join(columns)}
        FROM (SELECT *, {weights} FROM ({events})) GROUP BY {key}, m
    """


def span_of(key: str) -> str:
    """Return SQL (without SELECT) of the first and last event time in `<key>_event_groups`."""
    return f"min(first_time), max(last_time) FROM {key}_event_groups"


def event_groups_query(
    key: str,
    *,
    carry: str | None,
    after: int | None,
    until: int,
    span: tuple[int, int] | None = None,
) -> str:
    """Return the SQL of user_kinds (one row per change) or item_kinds (one row per tick with new
    events).

    Args:
        carry: file of the newest states to continue from; None: start empty.
        after: leave out rows with `m` up to this time.
        until: leave out rows with a later `m`.
        span: first and last time of the events, if there is no `carry`.
    """
    prefix = key.removesuffix("_id")
    groups = f"SELECT * FROM {key}_event_groups"
    if carry:
        groups += f"""
            UNION ALL BY NAME SELECT {_carried(key, prefix)} FROM read_parquet('{carry}')
            WHERE {key} IN (SELECT {key} FROM {key}_event_groups)
        """
    sums, decayed = tuple(EVENT_GROUPS), DECAYED
    changed = changes(key, groups, sums=sums, decayed=decayed, after=after, span=span)
    return f"""
        SELECT {key}, make_timestamptz(m) AS event_timestamp,
            [{", ".join(EVENT_GROUPS)}] AS {prefix}_kind_counts,
            [{", ".join(DECAYED)}] AS {prefix}_kind_decayed,
            last_time AS {prefix}_kind_last_time, first_time AS {prefix}_kind_first_time
        FROM ({changed})
        WHERE m <= {until} ORDER BY {key}, m
    """


def _carried(key: str, prefix: str) -> str:
    lists = ", ".join(
        f"{prefix}_kind_{which}[{place}] AS {name}"
        for which, names in (("counts", tuple(EVENT_GROUPS)), ("decayed", tuple(DECAYED)))
        for place, name in enumerate(names, start=1)
    )
    return f"""{key}, epoch_us(event_timestamp) AS m, {prefix}_kind_last_time AS weighed_at,
        {prefix}_kind_last_time AS last_time, {prefix}_kind_first_time AS first_time, {lists}"""
