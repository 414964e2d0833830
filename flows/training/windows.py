"""Reads the requests of a run's windows with their point-in-time features."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import (
    EvaluationBatch,
    RunData,
    draw_window,
    fit_profiles,
    judged_requests,
)
from flows.training.shown_lists import SHOWN, read_shown
from models.ranking.registry import RankerConfig, learns_from_shown
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
    rankers: Sequence[RankerConfig] = (),
    profiles: ProfileEncoder | None = None,
) -> tuple[dict[str, list[EvaluationBatch]], ProfileEncoder]:
    """Read the requests of some windows with their features, by Feast's point-in-time join.

    Args:
        searched: as for `judged_requests`.
        rankers: rankers that are trained on the window `ranker_train`. If one of them learns from
            shown lists and there are enough, the result has them as SHOWN.
        profiles: encoder of user attributes; None: it is fitted on the first window.

    Returns:
        {window: requests in batches}, and the encoder of user attributes.

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
    profiles = profiles or fit_profiles(run_data, end=run_data.windows["retrieval_train"][1])
    reader = OfflineReader(settings)
    moments = [draw_window(run_data, window, config).at for window in windows]
    lists = None
    if any(learns_from_shown(ranker) for ranker in rankers):
        lists = read_shown(run_data, config, "ranker_train")
    moments += [] if lists is None else [lists.requests.at]
    ticks = np.unique(newest_tick(np.concatenate(moments), config.tick))
    packs = read_pack_history(settings, ticks.tolist())
    judge = partial(
        judged_requests, run_data, profiles=profiles, reader=reader, packs=packs, config=config
    )
    found = {window: judge(window, searched=searched) for window in windows}
    if lists is not None:
        found[SHOWN] = judge("ranker_train", requests=lists.requests, shown=lists.items)
    return found, profiles
