"""SQL of target states: one row per change, for the whole lake or incrementally for new events.

Target states count the target events: those of the types that models learn to predict.

Each event has a time `m` at which it became known. A state stamped m contains exactly the events
known by m. `m` is one microsecond after the event, or `ingested_at` if that is later: an event that
had not arrived could not be served, so training must not use it either. The counting rules and the
exception for imported history are in shortlist/behaviour/counting.py.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.behaviour.counting import POSTED, TARGET_STATE
from shortlist.behaviour.refusals import RATED, TAKING_BACK
from shortlist.contracts import BACKFILL_LAG, EVENT_TYPES
from shortlist.feature_store.states.running_sql import carried_weights, changes, weight
from shortlist.features.event_groups import GROUPED_TYPES
from shortlist.features.searches import SEARCH

T = "epoch_us(event_timestamp)"
_POSTED = " OR ".join(f"starts_with(coalesce(source, ''), '{start}')" for start in POSTED)
KNOWN_AT = f"""CASE WHEN NOT ({_POSTED})
    AND epoch_us(ingested_at) - {T} > {BACKFILL_LAG} THEN {T} + 1
    ELSE greatest({T} + 1, epoch_us(ingested_at)) END"""
"""SQL expression of `m` in microseconds; the counterpart of `counting.known_at`."""


def listed(types: Sequence[str]) -> str:
    """Return an SQL list of event types for IN (...)."""
    return ", ".join(f"'{event_type}'" for event_type in types)


def first_tick(tick: int) -> str:
    """Return an SQL expression that rounds `m` up to a multiple of `tick`.

    `m` is the time at which an event became known. Both are in microseconds.
    """
    return f"(m + {tick - 1}) // {tick} * {tick}"


def read_events(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    target_events: Sequence[str],
    until: int,
    after: int | None = None,
) -> None:
    """Create the temporary table `events` of target events that became known in (after, until].

    Columns: user_id, item_id, event_order, t (time of the event) and m in microseconds, value (NULL
    if missing or not finite), type_code (`contracts.EVENT_CODE`), context_id.
    """
    connection.execute(
        f"""
        CREATE TEMP TABLE events AS
        SELECT user_id, item_id, event_order, {T} AS t, {KNOWN_AT} AS m,
            CASE WHEN isfinite(value) THEN value END AS value,
            coalesce(list_position($known, event_type), 0)::BIGINT AS type_code,
            concat_ws('|',
                coalesce(nullif(surface, ''), 'unknown'),
                coalesce(nullif(device, ''), 'unknown'),
                lpad(hour(event_timestamp)::VARCHAR, 2, '0')
            ) AS context_id
        FROM read_parquet($files, union_by_name = true)
        WHERE list_contains($types, event_type) AND {KNOWN_AT} <= {until} {recent(after)}
        """,
        {
            "files": [str(file) for file in files],
            "types": list(target_events),
            "known": list(EVENT_TYPES),
        },
    )


def fingerprints(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    target_events: Sequence[str],
    until: int,
    after: int | None = None,
) -> dict[str, tuple[int, int]]:
    """Return the fingerprint of each lake folder: (number of events, XOR of their hashes).

    By equal fingerprints a build recognises that a folder's events have not changed. Only events
    that count in some state and became known in (after, until] are included. For two consecutive
    spans of time, the sum of the counts and the XOR of the hashes are the fingerprint of both.

    The hash is applied twice: DuckDB's `hash` combines its last argument by XOR, so equal changes
    in two rows would otherwise cancel out.
    """
    if not files:
        return {}
    rows = connection.execute(
        f"""
        SELECT parse_path(filename)[-2] AS folder, count(*),
            bit_xor(hash(hash(user_id, item_id, event_type, {T}, value, surface, device,
                CASE WHEN event_type = '{SEARCH}' THEN query END)))
        FROM read_parquet($files, union_by_name = true, filename = true)
        WHERE list_contains($types, event_type) AND {KNOWN_AT} <= {until} {recent(after)}
        GROUP BY folder
        """,
        {
            "files": [str(file) for file in files],
            "types": sorted({*target_events, *GROUPED_TYPES, SEARCH, *TAKING_BACK, *RATED}),
        },
    ).fetchall()
    return {folder: (int(n), int(x)) for folder, n, x in rows}


def recent(after: int | None) -> str:
    """Return an SQL condition for events that became known after `after`; empty if `after` is None.

    It lets DuckDB skip row groups whose events are older than `after` by more than BACKFILL_LAG.
    """
    if after is None:
        return ""
    oldest = f"make_timestamptz({after - BACKFILL_LAG - 1})"
    posted = f"ingested_at > make_timestamptz({after})"
    return f"AND (event_timestamp >= {oldest} OR {posted}) AND {KNOWN_AT} > {after}"


def newest_event(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], *, until: int
) -> int:
    """Return the time of the lake's newest event before `until`; `until` if there is none.

    Times are in microseconds. Only one column is read.
    """
    ((newest,),) = connection.execute(
        f"""
        SELECT max({T}) FROM read_parquet($files, union_by_name = true)
        WHERE event_timestamp < make_timestamptz({until})
        """,
        {"files": [str(file) for file in files]},
    ).fetchall()
    return until if newest is None else int(newest)


def target_changes(
    key: str,
    *,
    origin: int,
    carry: str | None = None,
    after: int | None = None,
    moment: str = "m",
) -> str:
    """Return the SQL of the target states (key, m, *TARGET_STATE) after each change, see `changes`.

    Args:
        origin: origin of the weights, microseconds.
        carry: relation (key, m, *TARGET_STATE) of the states to continue from; None: start empty.
        after: leave out rows with m up to this time.
        moment: SQL expression of the time at which an event counts, at or after its `m`.
    """
    groups = f"""
        SELECT {key}, {moment} AS m, max(t) AS last_time, min(t) AS first_time,
            count(*)::DOUBLE AS events,
            coalesce(sum(value), 0.0) AS value_sum, count(value)::DOUBLE AS value_count,
            sum(w) AS decayed, coalesce(sum(value * w), 0.0) AS value_decayed,
            coalesce(sum(w) FILTER (WHERE value IS NOT NULL), 0.0) AS value_weight
        FROM (SELECT *, {weight("t", origin=origin)} AS w FROM events) GROUP BY ALL
    """
    decayed = ("decayed", "value_decayed", "value_weight")
    if carry:
        groups += f"""
            UNION ALL BY NAME
            SELECT * REPLACE ({carried_weights(decayed, origin=origin)})
            FROM {carry} WHERE {key} IN (SELECT {key} FROM events)
        """
    sums = ("events", "value_sum", "value_count")
    return changes(key, groups, sums=sums, decayed=decayed, origin=origin, after=after)


def state_columns(prefix: str) -> str:
    """Return an SQL select list that adds `prefix` to the names of TARGET_STATE."""
    return ", ".join(f"{name} AS {prefix}_{name}" for name in TARGET_STATE)


def carried(prefix: str, key: str, path: str) -> str:
    """Return an SQL relation of a file of newest states, as `carry` of `target_changes`."""
    names = ", ".join(f"{prefix}_{name} AS {name}" for name in TARGET_STATE)
    return f"(SELECT {key}, epoch_us(event_timestamp) AS m, {names} FROM read_parquet('{path}'))"


def stats_query(*, origin: int, carry: str | None, after: int | None) -> str:
    """Return the SQL of user_stats: one row per change of a user."""
    changed = target_changes("user_id", origin=origin, carry=carry, after=after)
    return f"""
        SELECT user_id, make_timestamptz(m) AS event_timestamp, {state_columns("user")}
        FROM ({changed}) ORDER BY user_id, m
    """


def history_query(*, once: bool, after: int | None) -> str:
    """Return the SQL of user_history: single events, sorted by `m`.

    event_lists.py collects them into lists.

    Args:
        once: whether a history holds each item once. Then an event is left out if a newer event of
            the same user and item was known before.
    """
    newer = """coalesce(t >= max(t) OVER (
        PARTITION BY user_id, item_id ORDER BY m, t, event_order
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true)"""
    only = "" if after is None else f"AND m > {after}"
    return f"""
        SELECT user_id, make_timestamptz(m) AS event_timestamp, item_id, t AS event_time,
            event_order, coalesce(value, 'nan'::DOUBLE) AS value, type_code,
            {str(once).lower()} AS once
        FROM events WHERE item_id IS NOT NULL {only} {f"QUALIFY {newer}" if once else ""}
        ORDER BY user_id, m, t, event_order, item_id
    """


def ticks_query(
    key: str,
    prefix: str,
    *,
    origin: int,
    carry: str | None,
    after: int | None,
    until: int,
    tick: int,
) -> str:
    """Return the SQL of target states of items or contexts: one row per key and tick with a new
    event.
    """
    changed = target_changes(key, origin=origin, carry=carry, after=after, moment=first_tick(tick))
    return f"""
        SELECT {key}, make_timestamptz(m) AS event_timestamp, {state_columns(prefix)}
        FROM ({changed})
        WHERE m <= {until} AND {key} IS NOT NULL ORDER BY {key}, m
    """


ATTRIBUTES = "coalesce(to_json(attributes)::VARCHAR, '{}')"


def profile_query(*, known: str, stamp: int) -> str:
    """Return the SQL of the user profiles (attributes as JSON) that are new or have changed.

    Args:
        known: file of the newest stored profile of each user.
        stamp: microseconds, time at which the changes became known.
    """
    return f"""
        SELECT user_id, make_timestamptz({stamp}) AS event_timestamp, attributes_json
        FROM (SELECT user_id, {ATTRIBUTES} AS attributes_json FROM users)
        ANTI JOIN read_parquet('{known}') known USING (user_id, attributes_json)
    """


def all_profiles_query(*, before: str | None, until: int) -> str:
    """Return the SQL of the profiles of all users, for a full build.

    The stamp of a new user's profile is the earlier of `created_at` and the time of the first event
    (1970 if there is neither). A user's earlier profile rows are kept, because the lake has only
    the newest attributes. A changed profile is added with the stamp `until`.

    Args:
        before: file pattern of the earlier profile rows; None: there are none.
        until: microseconds, end of the build.
    """
    since = "coalesce(least(u.created_at, f.t), make_timestamptz(0::BIGINT))"
    everyone = f"""
        SELECT u.user_id, {since} AS event_timestamp, {ATTRIBUTES} AS attributes_json
        FROM users u LEFT JOIN (
            SELECT user_id, make_timestamptz(min(t)) AS t FROM events GROUP BY user_id
        ) f USING (user_id)
    """
    if before is None:
        return everyone
    return f"""
        WITH kept AS (
            SELECT user_id, event_timestamp, attributes_json FROM read_parquet('{before}')
            SEMI JOIN users USING (user_id) WHERE event_timestamp <= make_timestamptz({until})
        ), newest AS (
            SELECT user_id, max_by(attributes_json, event_timestamp) AS attributes_json
            FROM kept GROUP BY user_id
        )
        FROM kept
        UNION ALL
        SELECT user_id, make_timestamptz({until}), {ATTRIBUTES} FROM users
        JOIN newest USING (user_id) WHERE attributes_json <> {ATTRIBUTES}
        UNION ALL
        FROM ({everyone}) ANTI JOIN newest USING (user_id)
    """
