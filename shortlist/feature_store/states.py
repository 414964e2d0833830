"""Batch states: DuckDB SQL over the lake's events -> Parquet snapshots, the offline side of Feast.

A row stamped t holds the events strictly before t. Users get a row per change (stamped one
microsecond after it). Items and contexts get rows at 00:00 UTC ticks; a tick that would repeat the
row before it is left out, because a point-in-time join finds the older row anyway. That keeps the
item snapshot at DAY_BUCKETS + 1 rows for a day with events, instead of items x days.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features import DAY_BUCKETS, HALF_LIFE, MAX_HISTORY

VIEWS = ("user_stats", "user_history", "user_profile", "item_state", "context_trend")
"""Feature views and, with `.parquet`, their snapshot files."""

ERA_HALF_LIVES = 512
"""Decayed sums are summed within eras of so many half-lives: 2^512 fits, 2^-512 is nothing."""


def build_states(
    files: Sequence[Path],
    users: pa.Table,
    *,
    folder: Path,
    target_events: Sequence[str],
    until: int,
    max_history: int = MAX_HISTORY,
) -> dict[str, int]:
    """Write one snapshot file a view into `folder`, all of them or none.

    Args:
        files: Parquet files of the INTERACTIONS contract.
        users: USERS contract; every user here gets a profile, with or without events.
        folder: replaced as a whole; a reader sees the old snapshots or the new ones.
        target_events: event types that count.
        until: microseconds; only events strictly before it are read.

    Returns:
        Rows of each view.

    Raises:
        FeatureStoreError: there is no such event.
    """
    if not files:
        raise FeatureStoreError(
            "no interactions in the lake; run `shortlist ingest` and `validate`"
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = {}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        _read_events(connection, files, target_events=target_events, until=until)
        if connection.execute("SELECT count(*) FROM events").fetchall() == [(0,)]:
            shutil.rmtree(partial)
            raise FeatureStoreError(
                f"{len(files)} interaction files hold no event of type {', '.join(target_events)}"
                f" before {until} us; want at least one"
            )
        connection.register("users", users)
        for view, query in _queries(until=until, max_history=max_history).items():
            path = str(partial / f"{view}.parquet").replace("'", "''")
            ((written,),) = connection.execute(
                f"COPY ({query}) TO '{path}'"
                " (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 16384)"
            ).fetchall()
            rows[view] = int(written)
    _swap(partial, folder)
    return rows


def _swap(partial: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_events(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    target_events: Sequence[str],
    until: int,
) -> None:
    """Table `events`: t in microseconds, value NULL where missing, is_first for (user, item)."""
    connection.execute(
        """
        CREATE TEMP TABLE events AS
        SELECT
            user_id, item_id, event_order,
            epoch_us(event_timestamp) AS t,
            CASE WHEN isfinite(value) THEN value END AS value,
            concat_ws('|',
                coalesce(nullif(surface, ''), 'unknown'),
                coalesce(nullif(device, ''), 'unknown'),
                lpad(hour(event_timestamp)::VARCHAR, 2, '0')
            ) AS context_id,
            row_number() OVER (
                PARTITION BY user_id, item_id ORDER BY t, event_order
            ) = 1 AS is_first
        FROM read_parquet($files, union_by_name = true)
        WHERE list_contains($types, event_type) AND epoch_us(event_timestamp) < $until
        """,
        {"files": [str(file) for file in files], "types": list(target_events), "until": until},
    )


def _queries(*, until: int, max_history: int) -> dict[str, str]:
    return {
        "user_stats": f"""
            SELECT user_id, make_timestamptz(t + 1) AS event_timestamp,
                {_state_columns("user")}
            FROM ({_changes("user_id")}) ORDER BY user_id, t
        """,
        "user_history": _history_query(max_history),
        "user_profile": """
            SELECT u.user_id,
                coalesce(least(u.created_at, f.t), make_timestamptz(0::BIGINT)) AS event_timestamp,
                coalesce(to_json(u.attributes)::VARCHAR, '{}') AS attributes_json
            FROM users u LEFT JOIN (
                SELECT user_id, make_timestamptz(min(t)) AS t FROM events GROUP BY user_id
            ) f USING (user_id)
        """,
        "item_state": _item_query(until),
        "context_trend": f"""
            SELECT context_id, make_timestamptz(tick) AS event_timestamp,
                events AS context_events, decayed AS context_decayed, last_time AS context_last_time
            FROM (
                SELECT *, (t // {MICROSECONDS_PER_DAY} + 1) * {MICROSECONDS_PER_DAY} AS tick
                FROM ({_changes("context_id")})
            )
            WHERE tick <= {until}
            QUALIFY row_number() OVER (PARTITION BY context_id, tick ORDER BY t DESC) = 1
        """,
    }


def _changes(key: str) -> str:
    """State of each `key` right after each of its distinct event times t.

    The decayed sum of weights 2^((t_i - t) / HALF_LIFE) is a running sum of
    2^((t_i - start) / HALF_LIFE) divided by its own term; `start` is the era's, so that no span of
    time overflows. What is more than one era old weighs less than 2^-512, nothing beside the newest
    event's 1.
    """
    era = ERA_HALF_LIVES * HALF_LIFE
    return f"""
        SELECT {key}, t,
            sum(n) OVER past AS events,
            (
                sum(n * weight) OVER (PARTITION BY {key}, era ORDER BY t)
                + coalesce(sum(n * weight) OVER (
                    PARTITION BY {key} ORDER BY era RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING
                ), 0) * pow(2.0, -{ERA_HALF_LIVES})
            ) / weight AS decayed,
            t AS last_time,
            min(t) OVER (PARTITION BY {key}) AS first_time,
            sum(value_sum) OVER past AS value_sum,
            sum(value_count) OVER past AS value_count
        FROM (
            SELECT *, pow(2.0, (t - era * {era}) / {HALF_LIFE}.0) AS weight
            FROM (
                SELECT {key}, t, floor(t / {era}.0)::BIGINT AS era,
                    count(*)::DOUBLE AS n,
                    coalesce(sum(value), 0.0) AS value_sum,
                    count(value)::DOUBLE AS value_count
                FROM events GROUP BY {key}, t
            )
        )
        WINDOW past AS (PARTITION BY {key} ORDER BY t)
    """


def _state_columns(prefix: str) -> str:
    names = ("events", "decayed", "last_time", "first_time", "value_sum", "value_count")
    return ", ".join(f"{name} AS {prefix}_{name}" for name in names)


def _history_query(max_history: int) -> str:
    """The newest `max_history` of the user's items, each at its first event, oldest first."""
    order = "ORDER BY t, event_order, item_id"
    newest = f"[greatest(known - {max_history} + 1, 1):known]"
    return f"""
        WITH lists AS (
            SELECT user_id,
                list(item_id {order}) AS items,
                list(t {order}) AS times,
                list(coalesce(value, 'nan'::DOUBLE) {order}) AS values
            FROM events WHERE is_first GROUP BY user_id
        ), moments AS (
            SELECT user_id, t, sum(new) OVER (PARTITION BY user_id ORDER BY t)::BIGINT AS known
            FROM (SELECT user_id, t, count(*) FILTER (is_first) AS new FROM events GROUP BY ALL)
        )
        SELECT user_id, make_timestamptz(t + 1) AS event_timestamp,
            items{newest} AS history_items,
            times{newest} AS history_times,
            values{newest} AS history_values
        FROM moments JOIN lists USING (user_id)
    """


def _item_query(until: int) -> str:
    """Each day with events feeds the ticks of the next DAY_BUCKETS days; one more shows it gone."""
    day = MICROSECONDS_PER_DAY
    buckets = ", ".join(
        f"coalesce(sum(n) FILTER (age = {age}), 0)::BIGINT" for age in range(DAY_BUCKETS, 0, -1)
    )
    return f"""
        WITH days AS (
            SELECT item_id, t // {day} AS day, count(*) AS n FROM events GROUP BY ALL
        ), grid AS (
            SELECT item_id, (day + age) * {day} AS tick, [{buckets}] AS item_day_counts
            FROM days, (SELECT unnest(range(1, {DAY_BUCKETS + 2})) AS age)
            WHERE (day + age) * {day} <= {until}
            GROUP BY ALL
        )
        SELECT grid.item_id, make_timestamptz(tick) AS event_timestamp,
            {_state_columns("item")}, item_day_counts
        FROM grid ASOF JOIN ({_changes("item_id")}) changes
            ON grid.item_id = changes.item_id AND grid.tick > changes.t
        ORDER BY grid.item_id, tick
    """
