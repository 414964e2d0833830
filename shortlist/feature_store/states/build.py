"""Batch states: DuckDB over the lake's events -> Parquet snapshots, the offline side of Feast.

    features/<view>/<part>.parquet    rows stamped later than those of every part before it;
                                      small parts are made one when there are many
    features/current/<part>/          the newest row of each user, item and context
    features/manifest.json            the lake's folders, target events, tick, `until` of the newest
                                      part

A row stamped t holds what was known by t, of events strictly before it. Users get a row a change,
items and contexts one at each tick by which something new was known.

A day's new events are added as one more part: states go on from `current`, and only the lake's new
files and the row groups of the last days are read. Since a part's stamps are later than all before,
nothing that was written is ever wrong, and a point-in-time join reads the parts as one table. When
that is not so (another tick, other target events, imported history, events or users that left), all
is built anew; both ways end in the same rows. Profiles alone are not built from the lake, which has
but the newest attributes: those of before are kept.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa

from shortlist.counting import ListRules
from shortlist.feature_store.states import (
    event_group_sql,
    item_days,
    refusal_sql,
    search_sql,
    target_sql,
)
from shortlist.feature_store.states.parts import (
    merge_parts,
    recover,
    swap,
    write_current,
    write_items,
    write_part,
)
from shortlist.feature_store.states.snapshots import Snapshots, can_go_on, lake_folders, sql_path
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features.finalize import schema_hash
from shortlist.plain_json import write_json
from shortlist.ticks import DAILY, newest_tick

VIEWS = (
    "user_stats",
    "user_history",
    "user_profile",
    "user_kinds",
    "user_searches",
    "user_refusals",
    "item_state",
    "item_kinds",
    "context_trend",
)
"""Feature views, each with its folder of parts."""
EVENTS = ("user_history", "user_refusals")
"""Views whose rows are single events."""
CURRENT = {view: f"{view.split('_')[0]}_id" for view in VIEWS if view not in EVENTS}
"""Views whose newest rows are kept, and their keys."""


def build_states(
    files: Sequence[Path],
    users: pa.Table,
    *,
    folder: Path,
    target_events: Sequence[str],
    until: int,
    tick: int = DAILY,
    lists: ListRules = ListRules(),
    anew: bool = False,
    profiles: Path | None = None,
) -> dict[str, int]:
    """Bring the snapshots to `until`: one part more, or all of them or none.

    Args:
        files: Parquet files of the INTERACTIONS contract.
        users: USERS contract; every user here gets a profile, with or without events.
        folder: as above; a reader sees the old rows or the new ones.
        target_events: event types that count; states by kind of event and searches are of
            all types.
        until: microseconds; only events strictly before it that were known by it are read.
        tick: microseconds, a whole part of a day: the grid of items and contexts.
        lists: what a user's lists of events hold, and what the lake did with the events.
        anew: do not go on from what is there.
        profiles: snapshots whose profiles are kept where all is built anew; `folder` itself if not
            given.

    Returns:
        Rows written of each view.

    Raises:
        FeatureStoreError: there is no such event.
    """
    if not files:
        raise FeatureStoreError(
            "no interactions in the lake; run `shortlist ingest` and `validate`"
        )
    now = Snapshots(
        generation=hashlib.blake2b(
            json.dumps([until, *map(str, files)]).encode(), digest_size=6
        ).hexdigest(),
        part=0,
        until=until,
        target_events=tuple(target_events),
        schema=schema_hash(),
        tick=tick,
        once=lists.once,
        low_rating=lists.low_rating,
        like_threshold=lists.like_threshold,
        exclude=lists.exclude,
        folders=lake_folders(files),
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("users", users)
        recover(folder)
        before = None if anew else Snapshots.read(folder)
        if before is not None and can_go_on(connection, before, now, files, folder=folder):
            return _add_part(connection, before, now, files, folder=folder)
        return _build_anew(connection, now, files, folder=folder, profiles=profiles or folder)


def _build_anew(
    connection: duckdb.DuckDBPyConnection,
    now: Snapshots,
    files: Sequence[Path],
    *,
    folder: Path,
    profiles: Path,
) -> dict[str, int]:
    target_sql.read_events(connection, files, target_events=now.target_events, until=now.until)
    if connection.execute("SELECT count(*) FROM events").fetchall() == [(0,)]:
        raise FeatureStoreError(
            f"{len(files)} interaction files hold no event of type {', '.join(now.target_events)}"
            f" before {now.until} us; want at least one"
        )
    known = target_sql.fingerprints(
        connection, files, target_events=now.target_events, until=now.until
    )
    for name, lake_folder in now.folders.items():
        lake_folder["known"] = known.get(name, (0, 0))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    before = profiles / "user_profile"
    query = target_sql.all_profiles_query(
        before=sql_path(before / "*.parquet") if any(before.glob("*.parquet")) else None,
        until=now.until,
    )
    rows = _write_part(connection, partial, now, files, profiles=query, carry={}, after=None)
    for view, key in CURRENT.items():
        write_current(connection, partial, view, key, part=0, before=None)
    write_json(partial / "manifest.json", asdict(now))
    swap(partial, folder)
    return rows


def _add_part(
    connection: duckdb.DuckDBPyConnection,
    before: Snapshots,
    now: Snapshots,
    files: Sequence[Path],
    *,
    folder: Path,
) -> dict[str, int]:
    new = target_sql.fingerprints(
        connection,
        files,
        target_events=now.target_events,
        until=now.until,
        after=before.until,
    )
    for name, lake_folder in now.folders.items():
        n, xor = before.folders.get(name, {"known": (0, 0)})["known"]
        more, other = new.get(name, (0, 0))
        lake_folder["known"] = (n + more, xor ^ other)
    part = before.part + 1
    after = Snapshots(**asdict(now) | {"generation": before.generation, "part": part})
    old = folder / "current" / str(before.part)
    carry = {view: sql_path(old / f"{view}.parquet") for view in CURRENT}
    for view in VIEWS:  # what a build that was cut off may have left
        (folder / view / f"{part:06}.parquet").unlink(missing_ok=True)
    shutil.rmtree(folder / "current" / str(part), ignore_errors=True)
    merge_parts(folder, VIEWS)
    # Items and contexts go on from the last tick: what came after it is in none yet.
    target_sql.read_events(
        connection,
        files,
        target_events=now.target_events,
        until=now.until,
        after=newest_tick(before.until, before.tick),
    )
    query = target_sql.profile_query(known=carry["user_profile"], stamp=now.until)
    rows = _write_part(
        connection, folder, after, files, profiles=query, carry=carry, after=before.until
    )
    for view, key in CURRENT.items():
        write_current(connection, folder, view, key, part=part, before=before.part)
    write_json(folder / "manifest.json", asdict(after))
    shutil.rmtree(old, ignore_errors=True)
    return rows


def _write_part(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    now: Snapshots,
    files: Sequence[Path],
    *,
    profiles: str,
    carry: dict[str, str],
    after: int | None,
) -> dict[str, int]:
    """Write a part of every view; `carry` names the files of newest states to go on from,
    `profiles` is the query of theirs.
    """
    rows = {}
    tick = None if after is None else newest_tick(after, now.tick)
    known = {
        view: target_sql.carried(prefix, key, carry[view]) if carry else None
        for view, key, prefix in (
            ("user_stats", "user_id", "user"),
            ("item_state", "item_id", "item"),
        )
    }
    span = None if carry else _span(connection, "min(t), max(t) FROM events")
    queries = {
        "item_state": target_sql.ticks_query(
            "item_id",
            "item",
            carry=known["item_state"],
            after=tick,
            until=now.until,
            tick=now.tick,
            span=span,
        ),
        "context_trend": target_sql.ticks_query(
            "context_id",
            "context",
            carry=_context_carry(carry),
            after=tick,
            until=now.until,
            tick=now.tick,
            span=span,
        ),
        "user_profile": profiles,
    }
    entries = item_days.entries(now.tick)
    if carry:
        entries += f"UNION ALL {item_days.carried_entries(carry['item_state'], now.tick)}"
    for view, query in queries.items():
        if view == "item_state":
            continue
        rows[view] = write_part(connection, query, folder, view, now.part)
    rows["item_state"] = write_items(
        connection, queries["item_state"], entries, folder, part=now.part, tick=now.tick
    )
    if after is not None:
        connection.execute(f"DELETE FROM events WHERE m <= {after}")
    rows["user_stats"] = write_part(
        connection,
        target_sql.stats_query(carry=known["user_stats"], after=after, span=span),
        folder,
        "user_stats",
        now.part,
    )
    rows["user_history"] = write_part(
        connection,
        target_sql.history_query(once=now.once, after=after),
        folder,
        "user_history",
        now.part,
    )
    for view, key, since in (("user_kinds", "user_id", after), ("item_kinds", "item_id", tick)):
        event_group_sql.read_event_groups(
            connection, files, key=key, until=now.until, after=since, tick=now.tick
        )
        span = None if carry else _span(connection, event_group_sql.span_of(key))
        query = event_group_sql.event_groups_query(
            key, carry=carry.get(view), after=since, until=now.until, span=span
        )
        rows[view] = write_part(connection, query, folder, view, now.part)
    search_sql.read_searches(connection, files, until=now.until, after=after)
    query = search_sql.searches_query(carry=carry.get("user_searches"), after=after)
    rows["user_searches"] = write_part(connection, query, folder, "user_searches", now.part)
    refusal_sql.read_refusals(
        connection, files, low_rating=now.low_rating, until=now.until, after=after
    )
    parts = sql_path(folder / "user_refusals" / "*.parquet") if carry else None
    query = refusal_sql.refusals_query(parts=parts)
    rows["user_refusals"] = write_part(connection, query, folder, "user_refusals", now.part)
    return {view: rows[view] for view in VIEWS}


def _span(connection: duckdb.DuckDBPyConnection, of: str) -> tuple[int, int] | None:
    ((first, last),) = connection.execute(f"SELECT {of}").fetchall()
    return None if first is None else (first, last)


def _context_carry(carry: dict[str, str]) -> str | None:
    if not carry:
        return None
    return target_sql.carried("context", "context_id", carry["context_trend"])
