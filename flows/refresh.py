"""Refresh: posted events and shown lists become lake, features and pack; nothing is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow

from flows.featurize import featurize_flow
from flows.ingest import ingest_flow
from flows.runtime.configuration import RunConfig, load_run_config
from flows.validate import ValidationFailed, validate_flow
from shortlist.config import Settings
from shortlist.datasets import DatasetError
from shortlist.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import LakeError
from shortlist.lake.snapshot import current_manifest

GROWING = ("files", "database")
"""Sources of a deployment that goes on; what is unchanged in them is not read again."""


@flow(name="refresh", log_prints=True)
def refresh_flow(config: str = "configs/movielens-100k.toml") -> dict[str, Any]:
    """Ingest posted events and shown lists, validate them, and bring every feature up to now.

    Args:
        config: path of the run's TOML file: its target events, limits and clock.

    Returns:
        {"ingested": rows new to the lake, "features": what featurize says, "until": microseconds}.
    """
    return refresh(Settings(), load_run_config(config))


def refresh(settings: Settings, run_config: RunConfig, *, source: bool = True) -> dict[str, Any]:
    """The flow's work, which is also the step `featurize` of a run.

    `until` is taken before the inbox is read: every event that arrived by then is in the inbox, and
    later ones stay in the tail of the online rows.

    Args:
        source: also read what is new of the run's files or database. A run has done so before.

    Raises:
        DatasetError, OSError, ValidationFailed: the source can't be read or its batch is refused.
            This is raised at the end, when posted events have reached lake and features.
    """
    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=REFRESH_WAIT):
        return _refresh(settings, run_config, source=source)


def _refresh(settings: Settings, run_config: RunConfig, *, source: bool) -> dict[str, Any]:
    failed = take_in_source(run_config) if source else None
    if failed is not None:
        if current_manifest(settings.lake).latest is None:
            raise failed
        print(f"refresh: the source is left out: {failed}")
    clock = run_config.clock(settings)
    if clock.now() == 0:
        raise LakeError(f"{settings.lake}: no interactions yet; run `shortlist run` or `ingest`")
    until = clock.cut()
    ingested = 0
    if any(wrote(settings)):
        service = {"source": "service", "files": None, "database": None}
        inbox = run_config.data.model_copy(update=service)
        batch = ingest_flow(inbox, now=until)
        # What was acknowledged is kept: an item may come into the catalogue after its events.
        kept = {"unknown_items": "keep", "max_age_days": None}
        limits = run_config.validation.model_copy(update=kept)
        validated = validate_flow(batch["batch_id"], limits, clock=clock.kind)
        ingested = validated["accepted"]
    else:
        print(f"refresh: nothing was posted or shown ({settings.events} is empty)")
    data = run_config.data
    features = featurize_flow(data.target_events, until, run_config.tick, data.lists)
    if failed is not None:
        raise failed
    return {"ingested": ingested, "until": until, "features": features}


def take_in_source(run_config: RunConfig) -> Exception | None:
    """New events, items and users of the run's own files or database; other sources don't grow.

    Returns:
        why the source can't be read or its batch was refused; None: it was taken in.
    """
    if run_config.data.source not in GROWING:
        return None
    try:
        batch = ingest_flow(run_config.data)
        validate_flow(batch["batch_id"], run_config.validation, clock=run_config.data.clock)
    except (DatasetError, OSError, ValidationFailed) as error:
        return error
    return None


def wrote(settings: Settings) -> Iterator[Path]:
    """Files that the service wrote: posted events and shown lists."""
    for folder in (settings.events, settings.serving_log):
        yield from folder.rglob("*.jsonl")
