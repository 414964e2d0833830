"""Reads the requests of a run's windows with their point-in-time features."""

from collections.abc import Sequence

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import (
    EvaluationBatch,
    RunData,
    draw_window,
    fit_profiles,
    judged_requests,
)
from shortlist.config import Settings
from shortlist.feature_store import FeatureStoreError, OfflineReader, read_pack_history
from shortlist.feature_store.packs import tick_of
from shortlist.features.profiles import ProfileEncoder
from shortlist.ticks import newest_tick


def read_windows(
    settings: Settings,
    run_data: RunData,
    config: RunConfig,
    *,
    windows: tuple[str, ...],
    searched: Sequence[str] | None = None,
) -> tuple[dict[str, list[EvaluationBatch]], ProfileEncoder]:
    """Read the requests of some windows with their features, by Feast's point-in-time join.

    Args:
        searched: as for `judged_requests`.

    Returns:
        {window: requests in batches}, and the encoder of user attributes, fitted on the first
        window.

    Raises:
        FeatureStoreError: the item states have another tick length than the run.
    """
    built = tick_of(settings.features)
    if built != config.tick:
        raise FeatureStoreError(
            f"{settings.features}: item states have a tick of {built // 1_000_000} s, the run's"
            f" [features] tick is {config.tick // 1_000_000} s; run `shortlist refresh` with the"
            " run's config"
        )
    profiles = fit_profiles(run_data, end=run_data.windows["retrieval_train"][1])
    reader = OfflineReader(settings)
    moments = [draw_window(run_data, window, config).at for window in windows]
    ticks = np.unique(newest_tick(np.concatenate(moments), config.tick))
    packs = read_pack_history(settings, ticks.tolist())
    return {
        window: judged_requests(
            run_data,
            window,
            profiles=profiles,
            reader=reader,
            packs=packs,
            config=config,
            searched=searched,
        )
        for window in windows
    }, profiles
