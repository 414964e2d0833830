"""Refresh: posted events become lake, features and pack; nothing is trained."""

import time
from typing import Any

from prefect import flow

from flows.configuration import RunConfig, load_run_config
from flows.featurize import featurize_flow
from flows.ingest import ingest_flow
from flows.validate import validate_flow
from shortlist.config import Settings
from shortlist.home_lock import REFRESH_WAIT, home_lock
from shortlist.lake import Lake, LakeError


@flow(name="refresh", log_prints=True)
def refresh_flow(config: str = "configs/movielens-100k.toml") -> dict[str, Any]:
    """Ingest the service's posted events, validate them, and bring every feature up to now.

    Args:
        config: path of the run's TOML file: its target events, limits and clock.

    Returns:
        {"ingested": rows new to the lake, "features": what featurize says, "until": microseconds}.
    """
    settings = Settings()
    run_config = load_run_config(config)
    with home_lock(settings, "refresh", what="shortlist refresh", wait_seconds=REFRESH_WAIT):
        return refresh(settings, run_config)


def refresh(settings: Settings, run_config: RunConfig) -> dict[str, Any]:
    """The flow's work; the caller holds the lock `refresh`."""
    ingested = 0
    if any(settings.events.rglob("*.jsonl")):
        source = run_config.data.model_copy(update={"source": "service", "files": None})
        batch = ingest_flow(source)
        validated = validate_flow(
            batch["batch_id"], run_config.validation, clock=run_config.data.clock
        )
        ingested = validated["accepted"]
    else:
        print(f"refresh: nothing was posted ({settings.events} is empty)")
    until = now_of(settings, run_config.data.clock)
    features = featurize_flow(run_config.data.target_events, until)
    return {"ingested": ingested, "until": until, "features": features}


def now_of(settings: Settings, clock: str) -> int:
    """Microseconds: the wall's time, or just after the newest event under the replay clock."""
    if (settings.clock or clock) == "wall":
        return time.time_ns() // 1_000
    newest = Lake(settings.lake).manifest.latest
    if newest is None:
        raise LakeError(f"{settings.lake}: no interactions yet; run `shortlist run` or `ingest`")
    return newest + 1
