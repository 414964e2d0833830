"""Builds batch states with DuckDB from the lake's events, as Parquet snapshots for Feast.

A state is an aggregate of a user, item or context, such as counts, decayed sums or newest events.

    features/<view>/<part>.parquet    rows with later stamps than all rows of earlier parts;
                                      small parts are merged when there are many
    features/current/<part>/          the newest row of each user, item and context
    features/manifest.json            lake folders, target events, tick, `until` of the newest part

A row's stamp is its `event_timestamp`. A row stamped t contains the events known by t, all strictly
before t. Users have one row per change. Items and contexts have one row per tick with new events.
Ticks are the times, for example each full hour, at which item features change (shortlist/ticks.py).

New events are added as one more part: states continue from `current`, and only the lake's new files
and recent row groups are read. A new part has later stamps than all earlier parts. So earlier parts
stay valid, and a point-in-time join can read all parts as one table.

All states are rebuilt if this is not possible: another tick, other target events, imported history,
or removed events or users. Both ways yield the same rows. Profiles are an exception: the lake has
only the newest attributes, so a rebuild keeps the earlier profile rows.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa

from shortlist.behaviour.counting import ListRules
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
from shortlist.feature_store.states.running_sql import origin_of
from shortlist.feature_store.states.snapshots import Snapshots, can_append, lake_folders, sql_path
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features.finalize import schema_hash
from shortlist.files.plain_json import write_json
from shortlist.ticks import DAILY, newest_tick

VIEWS = (
    "user_stats",
    "user_history",
    "user_profile",
    "user_event_groups",
    "user_searches",
    "user_refusals",
    "item_state",
    "item_event_groups",
    "context_trend",
)
"""Feature views; each has a folder of parts."""
EVENTS = ("user_history", "user_refusals")
"""Views whose rows are single events; the offline store collects them into lists."""
CURRENT = {view: f"{view.split('_')[0]}_id" for view in VIEWS if view not in EVENTS}
"""View -> key column, for the views whose newest rows are stored in `current`."""


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
    """Update the snapshots to `until`, by adding a part or by a full rebuild.

    Args:
        files: Parquet files of the INTERACTIONS contract.
        users: USERS contract; all of them get a profile (their attributes), with or without events.
        folder: folder of the snapshots. It changes atomically: readers see old or new rows.
        target_events: event types of the target states and histories. States of event groups,
            searches and refusals don't depend on them.
        until: microseconds; events that became known later are ignored.
        tick: tick length of items and contexts in microseconds; it must divide a day.
        lists: rules of the users' event lists, likes derived from ratings, and exclusions.
        anew: force a full rebuild.
        profiles: folder of the snapshots whose profile rows a rebuild keeps; default: `folder`.

    Returns:
        View -> number of rows written.

    Raises:
        FeatureStoreError: there are no interactions, or no target events before `until`.
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
        if before is not None and can_append(connection, before, now, files, folder=folder):
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
    for view in VIEWS:  # remove files of an interrupted build
        (folder / view / f"{part:06}.parquet").unlink(missing_ok=True)
    shutil.rmtree(folder / "current" / str(part), ignore_errors=True)
    merge_parts(folder, VIEWS)
    # Read events from the last tick on: rows of items and contexts contain no later events yet.
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
    """Write a part of every view.

    Args:
        profiles: SQL of the profile rows.
        carry: view -> file of newest states to continue from; empty for a full build.
        after: microseconds, `until` of the previous part; None for a full build.

    Returns:
        View -> number of rows written.
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
    origin = origin_of(target_sql.newest_event(connection, files, until=now.until))
    queries = {
        "item_state": target_sql.ticks_query(
            "item_id",
            "item",
            origin=origin,
            carry=known["item_state"],
            after=tick,
            until=now.until,
            tick=now.tick,
        ),
        "context_trend": target_sql.ticks_query(
            "context_id",
            "context",
            origin=origin,
            carry=_context_carry(carry),
            after=tick,
            until=now.until,
            tick=now.tick,
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
        target_sql.stats_query(origin=origin, carry=known["user_stats"], after=after),
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
    for view, key, since in (
        ("user_event_groups", "user_id", after),
        ("item_event_groups", "item_id", tick),
    ):
        event_group_sql.read_event_groups(
            connection, files, key=key, origin=origin, until=now.until, after=since, tick=now.tick
        )
        query = event_group_sql.event_groups_query(
            key, origin=origin, carry=carry.get(view), after=since, until=now.until
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


def _context_carry(carry: dict[str, str]) -> str | None:
    if not carry:
        return None
    return target_sql.carried("context", "context_id", carry["context_trend"])
