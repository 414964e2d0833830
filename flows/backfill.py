"""Backfill: reads the source again for a range of dates, and adds the events that the lake lacks.

A refresh reads only new files, and rows above the watermark of a database. Rows that were added to
the past afterwards, or were refused then, are found by a backfill. Events that the lake has are not
added twice, so a backfill can be repeated, and ranges may overlap. Items and users are not read:
their rows describe the present, and changes of items may have been posted since.
"""

from datetime import UTC, date, datetime
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
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.validation import ValidateConfig


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
    data = run_config.data
    between = range_of(data, start=start, end=end)
    with home_lock(settings, "refresh", what="shortlist backfill", wait_seconds=REFRESH_WAIT):
        batch = ingest_flow(data, between=between)
        limits = limits_of_a_range(run_config.validation)
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


def range_of(data: DataConfig, *, start: date, end: date) -> tuple[int, int]:
    """Return the start of two days in microseconds, UTC.

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
    first, after = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (start, end))
    return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000


def limits_of_a_range(config: ValidateConfig) -> ValidateConfig:
    """Return the settings without the least number of rows and the greatest age of a batch."""
    rules = dict(config.rules)
    for name, limit in (("volume.rows", "min"), ("time.age_days", "max")):
        if name in rules:
            rules[name] = rules[name].model_copy(update={limit: None})
    return config.model_copy(update={"min_rows": 1, "max_age_days": None, "rules": rules})
