"""Refresh: posted events and shown lists become lake, features and pack; nothing is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow

from flows.configuration import RunConfig, load_run_config
from flows.featurize import featurize_flow
from flows.ingest import ingest_flow
from flows.validate import validate_flow
from shortlist.config import Settings
from shortlist.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import LakeError


@flow(name="refresh", log_prints=True)
def refresh_flow(config: str = "configs/movielens-100k.toml") -> dict[str, Any]:
    """Ingest posted events and shown lists, validate them, and bring every feature up to now.

    Args:
        config: path of the run's TOML file: its target events, limits and clock.

    Returns:
        {"ingested": rows new to the lake, "features": what featurize says, "until": microseconds}.
    """
    return refresh(Settings(), load_run_config(config))


def refresh(settings: Settings, run_config: RunConfig) -> dict[str, Any]:
    """The flow's work, which is also the step `featurize` of a run.

    `until` is taken before the inbox is read: every event that arrived by then is in the inbox, and
    later ones stay in the tail of the online rows.
    """
    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=REFRESH_WAIT):
        return _refresh(settings, run_config)


def _refresh(settings: Settings, run_config: RunConfig) -> dict[str, Any]:
    clock = run_config.clock(settings)
    if clock.now() == 0:
        raise LakeError(f"{settings.lake}: no interactions yet; run `shortlist run` or `ingest`")
    until = clock.cut()
    ingested = 0
    if any(wrote(settings)):
        source = run_config.data.model_copy(update={"source": "service", "files": None})
        batch = ingest_flow(source, now=until)
        # What was acknowledged is kept: an item may come into the catalogue after its events.
        limits = run_config.validation.model_copy(update={"unknown_items": "keep"})
        validated = validate_flow(batch["batch_id"], limits, clock=clock.kind)
        ingested = validated["accepted"]
    else:
        print(f"refresh: nothing was posted or shown ({settings.events} is empty)")
    features = featurize_flow(run_config.data.target_events, until, run_config.tick)
    return {"ingested": ingested, "until": until, "features": features}


def wrote(settings: Settings) -> Iterator[Path]:
    """Files that the service wrote: posted events and shown lists."""
    for folder in (settings.events, settings.serving_log):
        yield from folder.rglob("*.jsonl")
