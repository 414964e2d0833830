"""Refresh: adds new rows, posted events and impressions to the lake and updates all features.

The lake stores validated events, items and users. Posted events are those that clients sent to the
service. Impressions are the lists in the serving log. A refresh doesn't train.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from prefect import flow
from prefect.client.schemas.objects import State

from flows.featurize import featurize_flow
from flows.ingest import ingest_flow
from flows.operations import artifacts, lineage
from flows.operations.endings import REFUSED, ended
from flows.runtime.configuration import RunConfig, load_run_config
from flows.validate import ValidationFailed, validate_flow
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, USERS
from shortlist.datasets import DatasetError
from shortlist.datasets.service.item_commands import carried_out, num_pending
from shortlist.datasets.service.log_archive import archive_logs
from shortlist.forgetting.erase import forget_in_lake
from shortlist.home.home_lock import REFRESH_WAIT, home_lock
from shortlist.home.low_priority import yielding_to_service
from shortlist.items.commands import Command, CommandError, CommandInbox
from shortlist.items.item_changes import changed_rows
from shortlist.lake import Lake, LakeError
from shortlist.lake.snapshot import current_manifest

GROWING = ("files", "database")
"""Source types that can get new rows; unchanged files or rows are not read again."""


@flow(name="refresh", log_prints=True)
def refresh_flow(config: str = "configs/movielens-100k.toml") -> dict[str, Any] | State[Any]:
    """Ingest new rows, posted events and impressions, validate them, and update all features.

    Args:
        config: path of the run's TOML file.

    Returns:
        {"ingested": number of posted events and impressions that are new to the lake, "until": time
        in microseconds up to which features were updated, "features": result of `featurize`}.

    Raises:
        ValidationFailed: new rows or posted changes were refused; the flow run ends as Refused.
    """
    settings = Settings()
    try:
        with yielding_to_service(settings):
            result = refresh(settings, load_run_config(config))
    except ValidationFailed as error:
        return ended(REFUSED, error)
    lineage.updated_features(settings, Lake(settings.lake).manifest.version, result["features"])
    return result


def refresh(settings: Settings, run_config: RunConfig, *, source: bool = True) -> dict[str, Any]:
    """Do the work of `refresh_flow`; also the step `featurize` of a run.

    All features are updated to the time `until`. It is taken from the clock before the inbox (the
    files with posted events) is read, so the inbox holds every event that arrived by then. Later
    events stay in the online store's tail. Each request adds them to the stored state of its user.

    Args:
        source: also ingest new rows of the run's files or database. False if the run did so before.

    Raises:
        DatasetError, OSError, ValidationFailed: the source can't be read or its batch is refused.
            If the lake has events already, this is raised only after posted events were ingested
            and all features updated. ValidationFailed is also raised if validation refuses the
            posted changes of items.
    """
    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=REFRESH_WAIT):
        return _refresh(settings, run_config, source=source)


def _refresh(settings: Settings, run_config: RunConfig, *, source: bool) -> dict[str, Any]:
    started = datetime.now(UTC)
    failed = take_in_source(run_config) if source else None
    if failed is not None:
        if current_manifest(settings.lake).latest is None:
            raise failed
        print(f"refresh: new rows of the source are not ingested: {failed}")
    clock = run_config.clock(settings)
    if clock.now() == 0:
        raise LakeError(f"{settings.lake}: no interactions yet; run `shortlist run` or `ingest`")
    until = clock.cut()
    refused = carry_out_commands(settings, run_config, until=until)
    failed = failed or refused
    if forgotten := forget_in_lake(settings):
        print(f"refresh: {forgotten} rows of people who asked to be forgotten were removed")
    ingested = 0
    if any(service_files(settings)):
        service = {"source": "service", "files": None, "database": None}
        inbox = run_config.data.model_copy(update=service)
        batch = ingest_flow(inbox, now=until)
        # Keep all events that the service accepted: their item or user may be added later.
        kept = {"unknown_items": "keep", "unknown_users": "create", "max_age_days": None}
        limits = run_config.validation.model_copy(update=kept)
        validated = validate_flow(batch["batch_id"], limits, clock=clock.kind)
        ingested = validated["accepted"]
        artifacts.show_data(settings, validated)
        lineage.published_lake(settings, "service", validated)
    else:
        print(f"refresh: nothing was posted or shown ({settings.events} is empty)")
    data = run_config.data
    features = featurize_flow(data.target_events, until, run_config.tick, data.lists)
    archived = archive_logs(settings, read_until=started)
    if archived:
        print(f"refresh: converted {len(archived)} files of the serving log to Parquet")
    if failed is not None:
        raise failed
    return {"ingested": ingested, "until": until, "features": features}


def take_in_source(run_config: RunConfig) -> Exception | None:
    """Ingest and validate new rows of the run's files or database. Other source types are skipped.

    Returns:
        The error if the source can't be read or its batch was refused; None on success.
    """
    if run_config.data.source not in GROWING:
        return None
    try:
        batch = ingest_flow(run_config.data)
        config = run_config.validation
        done = validate_flow(batch["batch_id"], config, clock=run_config.data.clock)
        artifacts.show_data(Settings(), done)
        lineage.published_lake(Settings(), run_config.data.source, done)
    except (DatasetError, OSError, ValidationFailed) as error:
        return error
    return None


def carry_out_commands(
    settings: Settings, run_config: RunConfig, *, until: int
) -> Exception | None:
    """Add the catalogue changes that clients posted to the service (POST /items) to the lake.

    Returns:
        The error if the inbox can't be read, or if the batch was refused. The commands then stay
        pending. None on success.
    """
    try:
        pending = num_pending(settings)
        if pending == 0:
            return None
        before = carried_out(current_manifest(settings.lake))
        commands = CommandInbox.of(settings).after(before)
        posted = {"source": "commands", "files": None, "database": None, "simulated": None}
        batch = ingest_flow(run_config.data.model_copy(update=posted), now=until)
        # One client's bad rows must not stop the changes of all others: they are quarantined. A
        # user's aggregates over the items table are meant for whole catalogues.
        of_rows = tuple(
            expectation
            for expectation in run_config.validation.expectations
            if expectation.row is not None
        )
        limits = run_config.validation.model_copy(
            update={"failure_budget": 1.0, "expectations": of_rows}
        )
        done = validate_flow(batch["batch_id"], limits, clock=run_config.clock(settings).kind)
    except (CommandError, ValidationFailed) as error:
        print(f"refresh: posted changes of items stay pending: {error}")
        return error
    bad = done["quarantined_items"]
    print(
        f"refresh: {pending} posted changes of items were carried out"
        + (f"; {bad} items broke a rule and are in quarantine" if bad else "")
    )
    withdraw(settings, commands, until=until)
    return None


def withdraw(settings: Settings, commands: Sequence[Command], *, until: int) -> None:
    """Make items unavailable whose withdrawal was posted, but whose row broke a rule of validation.

    The lake keeps its row of such an item, which may still be available.
    """
    lake = Lake(settings.lake)
    items = lake.items()
    last = changed_rows(items, commands)
    gone = last.filter(pc.invert(last.column(c.AVAILABLE))).column(c.ITEM_ID)
    still = pc.and_(pc.is_in(items.column(c.ITEM_ID), value_set=gone), items.column(c.AVAILABLE))
    rows = items.filter(still)
    if rows.num_rows == 0:
        return
    changes = [
        Command(number, until, {c.ITEM_ID: item_id, c.AVAILABLE: False})
        for number, item_id in enumerate(rows.column(c.ITEM_ID).to_pylist(), start=1)
    ]
    lake.publish(
        f"withdrawn-{until}",
        INTERACTIONS.empty_table(),
        changed_rows(rows, changes),
        USERS.empty_table(),
        arrived=until,
    )
    print(f"refresh: {rows.num_rows} withdrawn items keep their previous row, as unavailable")


def service_files(settings: Settings) -> Iterator[Path]:
    """Yield the JSONL files that the service wrote: posted events and the serving log."""
    for folder in (settings.events, settings.serving_log):
        yield from folder.rglob("*.jsonl")
