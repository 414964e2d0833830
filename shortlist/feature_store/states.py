"""Batch states: DuckDB over the lake's events -> Parquet snapshots, the offline side of Feast.

    features/<view>/<part>.parquet    rows stamped later than those of every part before it
    features/current/<part>/          the newest row of each user, item and context
    features/manifest.json            the lake's folders, target events, `until` of the newest part

A row stamped t holds what was known by t, of events strictly before it. Users get a row a change,
items and contexts one at each 00:00 UTC by which something new was known.

A day's new events are added as one more part: states go on from `current`, and only the lake's new
files and the row groups of the last days are read. Since a part's stamps are later than all before,
nothing that was written is ever wrong, and a point-in-time join reads the parts as one table. When
that is not so (other target events, imported history, events or users that left), all is built
anew; both ways end in the same rows.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shortlist.columns import MICROSECONDS_PER_DAY, midnight
from shortlist.feature_store import item_days, kind_sql, search_sql, state_sql
from shortlist.feature_store.snapshots import Snapshots, can_go_on, lake_folders, sql_path
from shortlist.feature_store.store import FeatureStoreError
from shortlist.features import schema_hash
from shortlist.plain_json import write_json

VIEWS = (
    "user_stats",
    "user_history",
    "user_profile",
    "user_kinds",
    "user_searches",
    "item_state",
    "item_kinds",
    "context_trend",
)
"""Feature views, each with its folder of parts."""
CURRENT = {view: f"{view.split('_')[0]}_id" for view in VIEWS if view != "user_history"}
"""Views whose newest rows are kept, and their keys."""


def build_states(
    files: Sequence[Path],
    users: pa.Table,
    *,
    folder: Path,
    target_events: Sequence[str],
    until: int,
    anew: bool = False,
) -> dict[str, int]:
    """Bring the snapshots to `until`: one part more, or all of them or none.

    Args:
        files: Parquet files of the INTERACTIONS contract.
        users: USERS contract; every user here gets a profile, with or without events.
        folder: as above; a reader sees the old rows or the new ones.
        target_events: event types that count; states by kind of event and searches are of
            all types.
        until: microseconds; only events strictly before it that were known by it are read.
        anew: do not go on from what is there.

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
        folders=lake_folders(files),
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("users", users)
        before = None if anew else Snapshots.read(folder)
        if before is not None and can_go_on(connection, before, now, files, folder=folder):
            return _add_part(connection, before, now, files, folder=folder)
        return _build_anew(connection, now, files, folder=folder)


def _build_anew(
    connection: duckdb.DuckDBPyConnection, now: Snapshots, files: Sequence[Path], *, folder: Path
) -> dict[str, int]:
    state_sql.read_events(connection, files, target_events=now.target_events, until=now.until)
    if connection.execute("SELECT count(*) FROM events").fetchall() == [(0,)]:
        raise FeatureStoreError(
            f"{len(files)} interaction files hold no event of type {', '.join(now.target_events)}"
            f" before {now.until} us; want at least one"
        )
    known = state_sql.fingerprints(
        connection, files, target_events=now.target_events, until=now.until
    )
    for name, lake_folder in now.folders.items():
        lake_folder["known"] = known.get(name, (0, 0))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    rows = _write_part(connection, partial, now, files, carry={}, after=None)
    for view, key in CURRENT.items():
        _write_current(connection, partial, view, key, part=0, before=None)
    write_json(partial / "manifest.json", asdict(now))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return rows


def _add_part(
    connection: duckdb.DuckDBPyConnection,
    before: Snapshots,
    now: Snapshots,
    files: Sequence[Path],
    *,
    folder: Path,
) -> dict[str, int]:
    new = state_sql.fingerprints(
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
    # Items and contexts go on from the last midnight: what came after it is in no tick yet.
    tick = midnight(before.until)
    state_sql.read_events(
        connection,
        files,
        target_events=now.target_events,
        until=now.until,
        after=tick,
    )
    rows = _write_part(connection, folder, after, files, carry=carry, after=before.until)
    for view, key in CURRENT.items():
        _write_current(connection, folder, view, key, part=part, before=before.part)
    write_json(folder / "manifest.json", asdict(after))
    shutil.rmtree(old, ignore_errors=True)
    return rows


def _write_part(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    now: Snapshots,
    files: Sequence[Path],
    *,
    carry: dict[str, str],
    after: int | None,
) -> dict[str, int]:
    """Write a part of every view; `carry` names the files of newest states to go on from."""
    rows = {}
    tick = None if after is None else midnight(after)
    known = {
        view: state_sql.carried(prefix, key, carry[view]) if carry else None
        for view, key, prefix in (
            ("user_stats", "user_id", "user"),
            ("item_state", "item_id", "item"),
        )
    }
    queries = {
        "item_state": state_sql.ticks_query(
            "item_id", "item", carry=known["item_state"], after=tick, until=now.until
        ),
        "context_trend": state_sql.ticks_query(
            "context_id", "context", carry=_context_carry(carry), after=tick, until=now.until
        ),
        "user_profile": state_sql.profile_query(known=carry.get("user_profile"), stamp=now.until),
    }
    entries = item_days.ENTRIES
    if carry:
        entries += f"UNION ALL {item_days.carried_entries(carry['item_state'])}"
    for view, query in queries.items():
        if view == "item_state":
            continue
        rows[view] = _copy(connection, query, folder, view, now.part)
    rows["item_state"] = _copy_items(
        connection, queries["item_state"], entries, folder, part=now.part
    )
    if after is not None:
        connection.execute(f"DELETE FROM events WHERE m <= {after}")
    rows["user_stats"] = _copy(
        connection,
        state_sql.stats_query(carry=known["user_stats"], after=after),
        folder,
        "user_stats",
        now.part,
    )
    rows["user_history"] = _copy(
        connection, state_sql.history_query(after=after), folder, "user_history", now.part
    )
    for view, key, since in (("user_kinds", "user_id", after), ("item_kinds", "item_id", tick)):
        kind_sql.read_kinds(connection, files, key=key, until=now.until, after=since)
        query = kind_sql.kinds_query(key, carry=carry.get(view), after=since, until=now.until)
        rows[view] = _copy(connection, query, folder, view, now.part)
    search_sql.read_searches(connection, files, until=now.until, after=after)
    query = search_sql.searches_query(carry=carry.get("user_searches"), after=after)
    rows["user_searches"] = _copy(connection, query, folder, "user_searches", now.part)
    return {view: rows[view] for view in VIEWS}


def _context_carry(carry: dict[str, str]) -> str | None:
    if not carry:
        return None
    return state_sql.carried("context", "context_id", carry["context_trend"])


def _copy(
    connection: duckdb.DuckDBPyConnection, query: str, folder: Path, view: str, part: int
) -> int:
    target = folder / view / f"{part:06}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    ((written,),) = connection.execute(
        f"COPY ({query}) TO '{sql_path(partial)}'"
        " (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
    ).fetchall()
    partial.rename(target)
    return int(written)


def _copy_items(
    connection: duckdb.DuckDBPyConnection, query: str, entries: str, folder: Path, *, part: int
) -> int:
    rows = connection.sql(
        f"SELECT *, epoch_us(event_timestamp) AS item_tick_time FROM ({query})"
    ).to_arrow_table()
    counts = item_days.day_counts(
        connection.sql(f"SELECT * FROM ({entries}) ORDER BY item_id, tick").to_arrow_table(),
        pa.table({"item_id": rows["item_id"], "tick_day": _days(rows["item_tick_time"])}),
    )
    target = folder / "item_state" / f"{part:06}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    pq.write_table(rows.append_column("item_day_counts", counts), partial, compression="zstd")
    partial.rename(target)
    return rows.num_rows


def _days(microseconds: pa.ChunkedArray) -> pa.Array:
    return pa.array(microseconds.to_numpy() // MICROSECONDS_PER_DAY)


def _write_current(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    view: str,
    key: str,
    *,
    part: int,
    before: int | None,
) -> None:
    """The newest row of each key: those of this part, and the old ones of everyone else."""
    target = folder / "current" / str(part) / f"{view}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    new = f"""
        SELECT * FROM read_parquet('{sql_path(folder / view / f"{part:06}.parquet")}')
        QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY event_timestamp DESC) = 1
    """
    query = new
    if before is not None:
        old = folder / "current" / str(before) / f"{view}.parquet"
        query = f"""
            WITH new AS ({new})
            SELECT * FROM new UNION ALL BY NAME
            SELECT * FROM read_parquet('{sql_path(old)}') ANTI JOIN new USING ({key})
        """
    connection.execute(f"COPY ({query}) TO '{sql_path(target)}' (FORMAT parquet)")
