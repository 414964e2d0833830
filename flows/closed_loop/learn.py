"""Trains the sources (candidate models) and the ranker of an arm on its log before a midnight.

An arm is a policy that fills the home pages of the simulated site.

Shapes: R impressions, F features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.closed_loop.arms import Arm
from flows.closed_loop.journal import DayLog
from flows.closed_loop.memory import MemoryStore, Targets
from flows.closed_loop.setting import Setting
from models import registry
from models.baselines.ease import EaseConfig
from models.baselines.item_knn import ItemKnnConfig
from models.baselines.popularity import PopularityConfig, RecentPopularityConfig
from models.content.fusion import ContentConfig
from models.data import TrainingData, Validation
from models.queries import Source
from models.ranking.value import ValueConfig, ValueRanker, fit_value
from models.recommend.chain import Chain, ChainConfig
from models.recommend.cold_start.new_positions import NewItemsConfig
from models.recommend.queries import build_queries
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from models.user_log import UserLog
from shortlist.behaviour.repeats import repeat_after
from shortlist.config import ConfigError

# One value per hyperparameter, so nothing is tuned: a loop retrains often, and worlds are similar.
SOURCES: Mapping[str, Any] = {
    "popularity": PopularityConfig(),
    "recent_popularity": RecentPopularityConfig(days=(7,)),
    "item_knn": ItemKnnConfig(neighbours=(100,), shrinkage=(10.0,), decay=(0.9,)),
    "ease": EaseConfig(l2=(200.0,), decay=(0.9,)),
    "content": ContentConfig.model_validate(
        {
            "embedding_dim": 32,
            "num_negatives": 256,
            "negatives": "used",
            # The vectors of a simulated world are near to the latent ones. Without them the arm
            # reads what a shop's catalogue usually has, as in the published findings.
            "features": {"vectors": False},
            "optimiser": {"learning_rate": 5e-3, "num_epochs": 5, "patience": 5},
        }
    ),
}
CANDIDATES = 60
VALIDATION_DAYS = 2
VALIDATION_USERS = 60


def fit_recommender(
    setting: Setting, arm: Arm, store: MemoryStore, logs: Sequence[DayLog], *, day: int
) -> Recommender:
    """Train an arm's models on the events before `day`. The result is deterministic.

    Args:
        store: feature store with all events before `day`; later ones are ignored.
        logs: logs of the days before `day`, in order.

    Raises:
        ConfigError: there is no target event before `day`.
    """
    options = TrainingOptions(seed=day, num_threads=1, cache=setting.cache)
    catalogue = setting.catalogue(day)
    before = store.targets().before(setting.world.midnight(day))
    if len(before.user) == 0:
        raise ConfigError(
            f"world '{setting.world.config.name}': no click, rating or survey in {day} days, so"
            f" arm '{arm.name}' has no training data; want more users, or a higher"
            " behaviour.click"
        )
    data = training_data(setting, before, catalogue=catalogue)
    pack = store.tick(setting.world.midnight(day))
    validation = validation_of(setting, store, before, catalogue=catalogue, day=day, pack=pack)
    sources: dict[str, Source] = {
        source_type: registry.fit(SOURCES[source_type], data, validation, options)
        for source_type in arm.sources
    }
    chain = Chain(
        ChainConfig(
            candidate_sources=arm.sources,
            score_sources=arm.sources,
            candidates_per_source=CANDIDATES,
            rerank=arm.rerank,
            repeats=setting.repeats,
            new_items=NewItemsConfig() if "content" in arm.sources else None,
        ),
        sources=sources,
        ranker=fit_ranker(setting, arm, logs, options, day=day),
        catalogue=catalogue,
        profiles=setting.profiles,
    )
    return Recommender(
        chain=chain,
        catalogue=catalogue,
        profiles=setting.profiles,
        reader=store,
        pack=pack,
        about={},
    )


def fit_ranker(
    setting: Setting, arm: Arm, logs: Sequence[DayLog], options: TrainingOptions, *, day: int
) -> ValueRanker | None:
    """Train the value ranker on the impressions of the last `window_days` days.

    Returns None if the arm has no value ranker, if `day` is before the arm's start, or if no
    features were logged.
    """
    if arm.weights is None or day < setting.schedule.start:
        return None
    recent = [log.shown for log in logs if log.day >= day - setting.schedule.window_days]
    recent = [shown for shown in recent if len(shown["label"])]
    if not recent:
        return None
    x = np.concatenate([shown["features"] for shown in recent])
    label = np.concatenate([shown["label"] for shown in recent])
    return fit_value(ValueConfig(), x, label, options)


def training_data(setting: Setting, targets: Targets, *, catalogue) -> TrainingData:
    """Return the training data of the sources from all target events."""
    users, user = np.unique(targets.user, return_inverse=True)
    user_ids = [setting.user_ids[u] for u in users]
    profiles = setting.profiles
    log = UserLog.build(
        user,
        num_users=len(users),
        num_items=catalogue.num_items,
        item_idx=targets.item + 1,
        time=targets.time,
        known=targets.time + 1,
        value=targets.value,
        type_code=targets.type_code,
        repeat_after=repeat_after(setting.repeats),
    )
    return TrainingData.from_log(
        log,
        catalogue=catalogue,
        user_ids=user_ids,
        profile=profiles.encode(setting.attributes[user_id] for user_id in user_ids),
        profile_cardinalities=profiles.cardinalities,
    )


def validation_of(
    setting: Setting, store: MemoryStore, targets: Targets, *, catalogue, day: int, pack
) -> Validation:
    """Return the validation queries: up to VALIDATION_USERS users and their items of the last
    VALIDATION_DAYS days.

    No hyperparameter is chosen, so validation only controls early stopping.
    """
    since = setting.world.midnight(max(day - VALIDATION_DAYS, 0))
    late = targets.take(np.flatnonzero(targets.time >= since))
    users = np.unique(late.user)[:VALIDATION_USERS]
    names = [setting.user_ids[u] for u in users]
    rows = store.read(names, [""] * len(names), np.full(len(names), since))
    queries = build_queries(
        rows,
        catalogue=catalogue,
        profiles=setting.profiles,
        repeat_after=repeat_after(setting.repeats),
    )
    relevant = [np.unique(late.item[late.user == u]) + 1 for u in users]
    return Validation([(queries, pack.align(catalogue.vocab), relevant)])
