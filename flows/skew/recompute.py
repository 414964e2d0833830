"""Recomputes the lake's states for one skew check, in a separate folder.

A check leases the lake's current version, so that no other process removes its files. It builds the
states under `<home>/skew/<id>/`. So a check can run at the same time as other checks and refreshes.
Folders of killed checks are removed by the next check.
"""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from flows.featurize import quietly
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.datasets.service.service_log import load_posted_events
from shortlist.feature_store import apply, build_states
from shortlist.feature_store.states.frozen import side_home
from shortlist.feature_store.states.snapshots import Snapshots, sql_path
from shortlist.lake import Lake
from shortlist.lake.leases import dead_holders, end_lease, take_lease

HOLDER = "skew-"


class SkewError(RuntimeError):
    """No response can be compared, or there are no feature states; the message gives the fix."""


@contextmanager
def recomputed_states(
    settings: Settings, target_events: tuple[str, ...], *, until: int
) -> Iterator[tuple[Settings, list[Path]]]:
    """Recompute the states in a separate home folder.

    Yields the settings of this folder, and the Parquet files of the events that were used.

    The events are those of the lake up to the last featurize, and posted events since then. At the
    end of the block the folder and the lease are removed.

    Args:
        target_events: event types that models learn from and that most states count.
        until: microseconds; events that became known (happened and arrived) later are ignored.

    Raises:
        SkewError: there are no feature states yet.
    """
    snapshots = Snapshots.read(settings.features)
    if snapshots is None:
        raise SkewError(f"{settings.features}: no feature snapshots; run `shortlist refresh`")
    folder = settings.home / "skew"
    for left in dead_holders(settings.lake):
        if left.startswith(HOLDER):
            _give_back(settings, folder / left)
    version = Lake(settings.lake).manifest.version
    side = side_home(settings, folder / f"{HOLDER}{uuid.uuid4().hex[:12]}")
    take_lease(settings.lake, side.home.name, version=version)
    try:
        lake = Lake(settings.lake, version=version)
        side.home.mkdir(parents=True)
        events = _events_until(
            lake.interaction_files(), settings, side.home / "events.parquet", snapshots=snapshots
        )
        build_states(
            events,
            lake.users(),
            folder=side.features,
            target_events=target_events,
            until=until,
            tick=snapshots.tick,
            lists=snapshots.lists,
            anew=True,
            profiles=settings.features,
        )
        quietly(apply, side)
        yield side, events
    finally:
        _give_back(settings, side.home)


def _give_back(settings: Settings, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    end_lease(settings.lake, folder.name)


def _events_until(
    files: Sequence[Path], settings: Settings, target: Path, *, snapshots: Snapshots
) -> list[Path]:
    """Write the lake's events before `snapshots.until`, and the posted events known only later.

    An event becomes known when it has happened and arrived. Posted events that became known earlier
    are read only from the lake, not from the posted files. A refresh has validated them, and those
    that it refused must not count.

    Returns:
        The Parquet files.
    """
    until = snapshots.until
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT * FROM read_parquet($files, union_by_name = true)"
            f" WHERE epoch_us(event_timestamp) < {until}) TO '{sql_path(target)}' (FORMAT parquet)",
            {"files": [str(file) for file in files]},
        )
        if not any(settings.events.rglob("*.jsonl")):
            return [target]
        posted = load_posted_events(
            settings, now=until, since=until, lists=snapshots.lists
        ).interactions
        connection.register("posted", posted)
        new = target.with_name("posted.parquet")
        kept = connection.sql(
            f"SELECT * FROM posted ANTI JOIN '{sql_path(target)}' USING ({c.EVENT_ID}) WHERE"
            f" greatest(epoch_us(event_timestamp) + 1, epoch_us(ingested_at)) > {until}"
        ).to_arrow_table()
        pq.write_table(kept.cast(posted.schema), new)
    return [target, new]
