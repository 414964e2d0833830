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
    """The flow's work, which is also the step `featurize` of a run."""
    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=REFRESH_WAIT):
        return _refresh(settings, run_config)


def _refresh(settings: Settings, run_config: RunConfig) -> dict[str, Any]:
    ingested = 0
    clock = run_config.clock(settings)
    if any(wrote(settings)):
        source = run_config.data.model_copy(update={"source": "service", "files": None})
        batch = ingest_flow(source, now=clock.now())
        validated = validate_flow(
            batch["batch_id"], run_config.validation, clock=run_config.data.clock
        )
        ingested = validated["accepted"]
    else:
        print(f"refresh: nothing was posted or shown ({settings.events} is empty)")
    until = clock.now()
    features = featurize_flow(run_config.data.target_events, until)
    return {"ingested": ingested, "until": until, "features": features}


def wrote(settings: Settings) -> Iterator[Path]:
    """Files that the service wrote: posted events and shown lists."""
    for folder in (settings.events, settings.serving_log):
        yield from folder.rglob("*.jsonl")
