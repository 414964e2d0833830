"""Ingest: reads new rows of the source, maps them to the contracts, and stages them as a batch.

The source is a file, database or other origin of data. The contracts are the table schemas of
interactions, items and users.
"""

import time
from typing import Any

from prefect import flow, task

from flows.runtime.retries import step_options
from shortlist.config import Settings
from shortlist.datasets import DataConfig, stage_source
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from simulation.source import stage_simulated


@flow(name="ingest", log_prints=True)
def ingest_flow(
    data: DataConfig, now: int | None = None, between: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Stage one batch, which `shortlist validate` adds to the lake.

    Args:
        now: microseconds, `ingested_at` of rows whose source gives none. None: the current time.
        between: microseconds: read only events from the first time on and before the second one,
            also those that were read before. None: read all that is new.
    """
    with home_lock(Settings(), "refresh", what="shortlist ingest", wait_seconds=REFRESH_WAIT):
        return stage_task(data, now, between)


@task(name="stage", **step_options("ingest", hours=2, retried=True))
def stage_task(
    data: DataConfig, now: int | None, between: tuple[int, int] | None
) -> dict[str, Any]:
    return stage(Settings(), data, now=now, between=between)


def stage(
    settings: Settings,
    data: DataConfig,
    *,
    now: int | None = None,
    between: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Do the work of `ingest_flow`, without Prefect and without the home's lock."""
    batch = stage_source(
        data,
        settings,
        now=now or time.time_ns() // 1_000,
        between=between,
        readers={"simulated": stage_simulated},
    )
    result = {
        "batch_id": batch.batch_id,
        "read": batch.read["interactions"],
        "items": batch.read["items"],
        "users": batch.read["users"],
        "files": list(batch.files),
        "unchanged": batch.unchanged,
        "anonymous": batch.anonymous,
    }
    print(
        f"ingest: batch {batch.batch_id}: {result['read']:,} events read,"
        f" {result['items']:,} items, {result['users']:,} users"
        + (f"; {batch.unchanged} unchanged files left out" if batch.unchanged else "")
        + (f"; {batch.anonymous:,} lists shown to visitors without an id" * bool(batch.anonymous))
    )
    if between is None and (skipped := without_look_back(data)):
        print(
            f"ingest: {', '.join(skipped)}: a row that is committed late, below the watermark, is"
            ' never read; set look_back to more than your longest transaction ("10 minutes", or a'
            " number for ids), or to 0 if rows are committed in order"
        )
    return result


def without_look_back(data: DataConfig) -> list[str]:
    """Return the tables of a database source that have a watermark and no `look_back`."""
    database = data.database
    if database is None:
        return []
    tables = {
        "interactions": database.interactions,
        "items": database.items,
        "users": database.users,
    }
    return [
        f"data.database.{name}"
        for name, table in tables.items()
        if table is not None and table.watermark is not None and table.look_back is None
    ]
