"""The requests of one day, on which benchmarks judge releases that were trained before it."""

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import EvaluationBatch, RunData, draw_window, judged_requests
from shortlist.config import Settings
from shortlist.feature_store import OfflineReader, read_pack_history
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue
from shortlist.items.catalogue_history import COLUMNS
from shortlist.lake import Lake
from shortlist.splits import Windows
from shortlist.ticks import newest_tick


def requests_of_day(
    settings: Settings,
    config: RunConfig,
    window: tuple[int, int],
    *,
    start: int,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
) -> list[EvaluationBatch]:
    """Return the requests of a day, with features and histories as of each of them.

    Args:
        window: start and end of the day, in microseconds; the lake has its events.
        start: microseconds, start of the log.
    """
    lake = Lake(settings.lake)
    interactions = lake.interactions(event_types=config.data.target_events, until=window[1])
    run_data = RunData(
        interactions=interactions,
        asked=lake.asked_at(interactions),
        users=lake.users(),
        catalogue=catalogue,
        windows=Windows((start, start + 1, start + 2, *window)),
        versions=lake.item_versions(COLUMNS),
    )
    moments = newest_tick(draw_window(run_data, "test", config).at, config.tick)
    return judged_requests(
        run_data,
        "test",
        profiles=profiles,
        reader=OfflineReader(settings),
        packs=read_pack_history(settings, np.unique(moments).tolist()),
        config=config,
    )
