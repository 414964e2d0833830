"""The nightly pipeline of an arm (page policy) that is served over HTTP: ingest, features, train.

Everything runs in the arm's home (a separate SHORTLIST_HOME folder), with the code of the
pipeline's commands.
"""

import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.closed_loop.arms import Arm
from flows.closed_loop.observe import TARGET_EVENTS
from flows.closed_loop.setting import Setting
from flows.featurize import featurize
from flows.runtime.configuration import RunConfig
from flows.training.release import train_release
from shortlist.config import Settings
from shortlist.datasets import DataConfig, stage_source
from shortlist.datasets.staging import Stager, complete
from shortlist.datasets.tables import stage_catalogue, stage_stream
from shortlist.lake.engine import connect
from shortlist.lake.staging import finish_batch, staging


def run_config(setting: Setting, arm: Arm) -> RunConfig:
    """Return the run config of an arm.

    It trains the arm's sources and recent popularity, and LambdaMART if the arm is `released`.
    """
    config = setting.world.config
    kinds = list(dict.fromkeys([*arm.sources, "recent_popularity"]))
    return RunConfig.model_validate(
        {
            "name": f"{config.name}-{arm.name.replace('+', '-')}",
            "seed": config.seed,
            "data": {
                "source": "simulated",
                "target_events": TARGET_EVENTS,
                "clock": "replay",
                "repeats": setting.repeats,
                "simulated": {
                    "preset": setting.preset,
                    "seed": config.seed,
                    "days": config.days,
                    "log_days": setting.schedule.start,
                },
            },
            "train": {
                "sources": [{"kind": source_type} for source_type in kinds],
                "rankers": [{"kind": "lambdamart"}] if arm.released else [],
                "rerank": arm.rerank and arm.rerank.model_dump(),
            },
            "evaluate": {"bootstrap_draws": 100},
        }
    )


def first_release(config: RunConfig) -> None:
    """Run the main job, from ingest to promote, on the log of the days before the arm's start."""
    from flows.operations.endings import result_of
    from flows.run import run_flow

    summary = result_of(run_flow, config, monitor=False)
    _promote(summary["release_id"], summary["promoted"])


def train_new_release(settings: Settings, config: RunConfig) -> None:
    """Train a new release on the whole lake; features must be up to date."""
    _, promoted = train_release(settings, config)
    _promote(promoted["release_id"], promoted["promoted"])


def _promote(release_id: str, promoted: bool) -> None:
    """Promote the first release of a home even if it failed a gate (a condition for promotion).

    Without a release the service can't start. Later releases that fail a gate are not promoted.
    """
    from shortlist.releases.release import ReleaseStore

    store = ReleaseStore(Settings().releases)
    if not promoted and store.current_id() is None:
        store.promote(release_id)


def ingest_night(
    setting: Setting, settings: Settings, data: DataConfig, kept: list[pa.Table], *, day: int
) -> None:
    """Ingest the events of `day` and the items and users of the next day; then update the features.

    Args:
        kept: events that could not be posted, because their items are not in the release.
    """
    from flows.validate import ValidateConfig, validate_batch

    now = time.time_ns() // 1_000
    arrivals = stage_arrivals(setting, settings, data, kept, day=day, now=now)
    # This batch may have only items and users, so a low number of events is just a warning.
    few = ValidateConfig.model_validate({"rules": {"volume.rows": {"action": "warn"}}})
    validate_batch(settings, arrivals, few, clock="replay")
    if any(settings.events.rglob("*.jsonl")):
        inbox = data.model_copy(update={"source": "service", "simulated": None})
        posted = stage_source(inbox, settings, now=now)
        validate_batch(settings, posted.batch_id, ValidateConfig(), clock="replay")
    until = setting.world.midnight(day + 1)
    featurize(settings, TARGET_EVENTS, until=until, lists=data.lists)


def stage_arrivals(
    setting: Setting,
    settings: Settings,
    data: DataConfig,
    kept: list[pa.Table],
    *,
    day: int,
    now: int,
) -> str:
    """Stage the items and users of the next day and the events that could not be posted (`kept`).

    Returns:
        The batch id.
    """
    world, publisher = setting.world, setting.publisher
    with staging(settings.lake) as staged, connect(staged.folder) as connection:
        stager = Stager(staged, connection, data, settings, now)
        stager.batch.create = ()
        stage_stream(stager, "night", [table for table in kept if table.num_rows])
        items = publisher.items(0, world.items_on(day + 1))
        stage_catalogue(stager, items, publisher.users(0, world.users_on(day + 1)))
        complete(stager)
        stager.batch.batch_id = f"night-{setting.key}-{day:04d}"
        finish_batch(staged, settings.lake, stager.batch)
        return stager.batch.batch_id


def drop_unfinished_events(settings: Settings, *, since: int) -> None:
    """Remove the events of an unfinished day from the inbox, because the day is simulated again.

    Args:
        since: microseconds; events at or after it are removed, and incomplete lines too.
    """
    for path in settings.events.rglob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        kept_lines = [
            line
            for line in lines
            if line.endswith("\n") and json.loads(line)["event_timestamp"] < since
        ]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept_lines))
        partial.replace(path)


def release_info(settings: Settings) -> dict[str, Any]:
    """Return {"release_id", "items": number of items} of the current release."""
    from shortlist.releases.release import ReleaseStore

    release = ReleaseStore(settings.releases).open()
    catalogue = pq.read_table(release.path / "items.parquet", columns=["item_id"])
    return {"release_id": release.release_id, "items": catalogue.num_rows}
