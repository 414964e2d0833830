"""The SQL of batch states: from events to a row a change, for a whole lake and for one day alike.

Every event has a moment at which it became known, `m`, and a state stamped m holds exactly the
events known by m. `m` is the microsecond after the event, or its `ingested_at` if that came later:
what had not arrived could not be served, so nothing is trained on it. What an event counts, and
the exception for imported history: shortlist/counting.py.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from shortlist.contracts import BACKFILL_LAG, EVENT_TYPES
from shortlist.counting import HALF_LIFE, POSTED, TARGET_STATE
from shortlist.feature_store.states.running_sql import LATE_HALF_LIVES, changes, weight
from shortlist.features.event_groups import GROUPED_TYPES
from shortlist.features.searches import SEARCH
from shortlist.refusals import RATED, TAKING_BACK

T = "epoch_us(event_timestamp)"
_POSTED = " OR ".join(f"starts_with(coalesce(source, ''), '{one}')" for one in POSTED)
KNOWN_AT = f"""CASE WHEN NOT ({_POSTED})
    AND epoch_us(ingested_at) - {T} > {BACKFILL_LAG} THEN {T} + 1
    ELSE greatest({T} + 1, epoch_us(ingested_at)) END"""
"""`m` of a row of the lake, in microseconds: `counting.known_at`."""


def listed(types: Sequence[str]) -> str:
    """SQL: event types between the brackets of IN."""
    return ", ".join(f"'{event_type}'" for event_type in types)


def first_tick(tick: int) -> str:
    """SQL: the first tick by which an event is known, in microseconds."""
    return f"(m + {tick - 1}) // {tick} * {tick}"


def read_events(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    *,
    target_events: Sequence[str],
    until: int,
    after: int | None = None,
) -> None:
    """Table `events` of what became known in (after, until]; t and m in microseconds, value NULL
    where missing, type_code as `contracts.EVENT_CODE` has it.
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
    """Of each folder the number of events with a state that became known in (after, until], and
    the exclusive or of their hashes: both of two spans together are those of the whole.

    Hashed twice, since the last argument of `hash` is itself only joined by an exclusive or: what
    changed alike in two rows would cancel out.
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
    """Only what became known after it; row groups older by BACKFILL_LAG are not even read."""
    if after is None:
        return ""
    oldest = f"make_timestamptz({after - BACKFILL_LAG - 1})"
    posted = f"ingested_at > make_timestamptz({after})"
    return f"AND (event_timestamp >= {oldest} OR {posted}) AND {KNOWN_AT} > {after}"


def target_changes(
    key: str,
    *,
    carry: str | None = None,
    after: int | None = None,
    moment: str = "m",
    span: tuple[int, int] | None = None,
) -> str:
    """`changes` of the target events: a row of (key, m, *TARGET_STATE) each.

    Args:
        carry: table of (key, m, *TARGET_STATE), the states to go on from.
        after: leave out rows of moments up to here.
        moment: when an event counts, in SQL; at or after its `m`.
        span: first and last time of the events, where there is nothing to go on from.
    """
    w = weight("t", "weighed_at", half_life=HALF_LIFE)
    groups = f"""
        SELECT {key}, m, max(t) AS last_time, min(t) AS first_time,
            weighed_at, count(*)::DOUBLE AS events,
            coalesce(sum(value), 0.0) AS value_sum, count(value)::DOUBLE AS value_count,
            sum({w}) AS decayed, coalesce(sum(value * {w}), 0.0) AS value_decayed,
            coalesce(sum({w}) FILTER (WHERE value IS NOT NULL), 0.0) AS value_weight
        FROM ({_weighed(key, moment)}) GROUP BY {key}, m, weighed_at
    """
    if carry:
        groups += f"""
            UNION ALL BY NAME SELECT *, last_time AS weighed_at
            FROM {carry} WHERE {key} IN (SELECT {key} FROM events)
        """
    sums = ("events", "value_sum", "value_count")
    decayed: dict[str, int] = dict.fromkeys(("decayed", "value_decayed", "value_weight"), HALF_LIFE)
    return changes(key, groups, sums=sums, decayed=decayed, after=after, span=span)


def _weighed(key: str, moment: str) -> str:
    """Every event with its moment `m`, and `weighed_at`: that moment, or the newest event's time
    where all events of the moment came late.
    """
    late = f"{moment} - t > {LATE_HALF_LIVES * HALF_LIFE}"
    return f"""
        WITH late AS (
            SELECT {key}, {moment} AS m, max(t) AS newest FROM events
            WHERE ({key}, {moment}) IN (SELECT ({key}, {moment}) FROM events WHERE {late})
            GROUP BY {key}, {moment}
        )
        SELECT e.{key}, e.m, e.t, e.value, coalesce(late.newest, e.m) AS weighed_at
        FROM (SELECT {key}, {moment} AS m, t, value FROM events) e LEFT JOIN late USING ({key}, m)
    """


def state_columns(prefix: str) -> str:
    return ", ".join(f"{name} AS {prefix}_{name}" for name in TARGET_STATE)


def carried(prefix: str, key: str, path: str) -> str:
    """A file of newest states as the `carry` of `changes`."""
    names = ", ".join(f"{prefix}_{name} AS {name}" for name in TARGET_STATE)
    return f"(SELECT {key}, epoch_us(event_timestamp) AS m, {names} FROM read_parquet('{path}'))"


def stats_query(
    *, carry: str | None, after: int | None, span: tuple[int, int] | None = None
) -> str:
    """A row for each change of a user."""
    return f"""
        SELECT user_id, make_timestamptz(m) AS event_timestamp, {state_columns("user")}
        FROM ({target_changes("user_id", carry=carry, after=after, span=span)}) ORDER BY user_id, m
    """


def history_query(*, once: bool, after: int | None) -> str:
    """Single events, in the order in which they became known. event_lists.py collects them into
    lists.

    Args:
        once: a history holds each item once: of one item only the events that were the newest yet.
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
    carry: str | None,
    after: int | None,
    until: int,
    tick: int,
    span: tuple[int, int] | None = None,
) -> str:
    """The newest state of each `key` at each tick by which something new was known."""
    changed = target_changes(key, carry=carry, after=after, moment=first_tick(tick), span=span)
    return f"""
        SELECT {key}, make_timestamptz(m) AS event_timestamp, {state_columns(prefix)}
        FROM ({changed})
        WHERE m <= {until} AND {key} IS NOT NULL ORDER BY {key}, m
    """


ATTRIBUTES = "coalesce(to_json(attributes)::VARCHAR, '{}')"


def profile_query(*, known: str, stamp: int) -> str:
    """Attributes of those who are new or changed since `known` (a file of everyone's newest
    profiles), stamped `stamp`, because only then did we learn of it.
    """
    return f"""
        SELECT user_id, make_timestamptz({stamp}) AS event_timestamp, attributes_json
        FROM (SELECT user_id, {ATTRIBUTES} AS attributes_json FROM users)
        ANTI JOIN read_parquet('{known}') known USING (user_id, attributes_json)
    """


def all_profiles_query(*, before: str | None, until: int) -> str:
    """Attributes of everyone since he was made or first did something. Whoever has rows in `before`
    (files of profiles) keeps them, and has what changed since stamped `until`: the lake knows his
    newest attributes alone.
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
