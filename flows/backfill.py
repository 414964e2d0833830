"""Backfill: reads the source again for a range of dates, and adds the events that the lake lacks.

A refresh reads only new files, and rows above the watermark of a database. Rows that were added to
the past afterwards, or were refused then, are found by a backfill. Events that the lake has are not
added twice, so a backfill can be repeated, and ranges may overlap.
"""

from datetime import date
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows.ingest import ingest_flow
from flows.operations import artifacts, lineage
from flows.operations.endings import REFUSED, ended
from flows.refresh import GROWING, refresh
from flows.runtime.configuration import load_run_config
from flows.validate import ValidationFailed, validate_flow
from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError
from shortlist.home_lock import REFRESH_WAIT, home_lock


@flow(name="backfill", log_prints=True)
def backfill_flow(config: str, start: date, end: date) -> dict[str, Any] | State[Any]:
    """Add the events of a range of dates that the lake lacks, and update all features.

    Args:
        config: path of the run's TOML file.
        start: first day, UTC.
        end: day after the last one, UTC.

    Returns:
        {"added": number of new events, "read": events that were read, "features": result of
        `featurize`}.

    Raises:
        DatasetError: the source has no history to read, can't be read, or the range is empty.
        ValidationFailed: the events were refused; the flow run ends as Refused.
    """
    settings, run_config = Settings(), load_run_config(config)
    data = data_between(run_config.data, start=start, end=end)
    # The age of a batch is no error here.
    limits = run_config.validation.model_copy(update={"max_age_days": None})
    with home_lock(settings, "refresh", what="shortlist backfill", wait_seconds=REFRESH_WAIT):
        batch = ingest_flow(data)
        try:
            done = validate_flow(batch["batch_id"], limits, clock=data.clock)
        except ValidationFailed as error:
            return ended(REFUSED, error)
        artifacts.show_data(settings, done)
        lineage.published_lake(settings, data.source, done)
        refreshed = refresh(settings, run_config, source=False)
    print(f"backfill: {done['accepted']:,} events from {start} to {end} are new to the lake")
    return {
        "added": done["accepted"],
        "read": batch["read"],
        "features": refreshed["features"],
    }


def data_between(data: DataConfig, *, start: date, end: date) -> DataConfig:
    """Return a source that reads everything again, and leaves out events outside of the range.

    Raises:
        DatasetError: the source has no history to read, or the range is empty.
    """
    if data.source not in GROWING:
        raise DatasetError(
            f"source '{data.source}' has nothing to read again, want {' or '.join(GROWING)}"
        )
    if start >= end:
        raise DatasetError(
            f"backfill from {start} to {end}: the range is empty, want an end after the start"
        )
    outside = (
        f"event_timestamp < TIMESTAMPTZ '{start.isoformat()} 00:00:00+00'",
        f"event_timestamp >= TIMESTAMPTZ '{end.isoformat()} 00:00:00+00'",
    )
    # Another `exclude` gives the source another reading state, so unchanged files are read too.
    update: dict[str, Any] = {"exclude": (*data.exclude, *outside)}
    if data.database is not None:
        tables = {name: getattr(data.database, name) for name in ("interactions", "items", "users")}
        everything = {"watermark": None, "look_back": None}
        update["database"] = data.database.model_copy(
            update={
                name: None if table is None else table.model_copy(update=everything)
                for name, table in tables.items()
            }
        )
    return data.model_copy(update=update)
