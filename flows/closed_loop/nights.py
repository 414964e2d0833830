"""Between two days of a service: its inbox becomes lake, features and pack; now and then it learns.

Everything runs in an arm's own home, by the same code as the pipeline's commands.
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
from shortlist.lake.staging import settle, staging


def run_config(setting: Setting, arm: Arm) -> RunConfig:
    """The main job's config for an arm: its sources, and LambdaMART if it has a ranker."""
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
                "sources": [{"kind": kind} for kind in kinds],
                "rankers": [{"kind": "lambdamart"}] if arm.released else [],
                "mmr_strength": arm.mmr,
            },
            "evaluate": {"bootstrap_draws": 100},
        }
    )


def first_release(config: RunConfig) -> None:
    """The main job on the log of the days before the arm takes over, from ingest to promote."""
    from flows.run import run_flow

    summary = run_flow(config, monitor=False)
    _promote(summary["release_id"], summary["promoted"])


def learn_again(settings: Settings, config: RunConfig) -> None:
    """A new release from everything in the lake, whose features are up to date."""
    _, promoted = train_release(settings, config)
    _promote(promoted["release_id"], promoted["promoted"])


def _promote(release_id: str, promoted: bool) -> None:
    """A gate that stops a release stops it from serving; the first one has nothing to fall back on,
    and an arm is what it is: it serves, and the verdict stays in the log.
    """
    from shortlist.release import ReleaseStore

    store = ReleaseStore(Settings().releases)
    if not promoted and store.current_id() is None:
        store.promote(release_id)


def ingest_night(
    setting: Setting, settings: Settings, data: DataConfig, kept: list[pa.Table], *, day: int
) -> None:
    """The day's events into the lake, with the items and users of the day that begins; then every
    feature as of that midnight.
    """
    from flows.validate import ValidateConfig, validate_batch

    now = time.time_ns() // 1_000
    arrivals = stage_arrivals(setting, settings, data, kept, day=day, now=now)
    # A night without kept events is no fault: its items and users are what it is for.
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
    """Stage who and what is there tomorrow, and the events that the service could not take; the
    batch's id.
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
        settle(staged, settings.lake, stager.batch)
        return stager.batch.batch_id


def forget_unfinished(settings: Settings, *, since: int) -> None:
    """Take events of a day that was not finished out of the inbox: it will be lived again.

    Args:
        since: microseconds; events from then on go.
    """
    for path in settings.events.rglob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [
            line
            for line in lines
            if line.endswith("\n") and json.loads(line)["event_timestamp"] < since
        ]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(path)


def about_release(settings: Settings) -> dict[str, Any]:
    from shortlist.release import ReleaseStore

    release = ReleaseStore(settings.releases).open()
    catalogue = pq.read_table(release.path / "items.parquet", columns=["item_id"])
    return {"release_id": release.release_id, "items": catalogue.num_rows}
