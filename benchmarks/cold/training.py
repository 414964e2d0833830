"""Trains the benchmark's chain on everything but the hidden items.

Sources are fitted on the first window, the ranker on the requests of the second one. Of these
requests, a third of the users is held out for early stopping and for the choice of the fallback.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.cold.log import Log, without_items
from benchmarks.cold.requests import Request, StoreTimeline, requests_of
from flows.closed_loop.memory import Targets
from flows.training.assemble import EvaluationBatch
from flows.training.choose_fallback import choose_min_history
from flows.training.ranking_data import RankingWindows, gather
from models import registry
from models.data import TrainingData, Validation
from models.queries import Source
from models.ranking.trees.lambdamart import LambdamartConfig, fit_lambdamart
from models.recommend.chain import Chain, ChainConfig
from models.recommend.cold_start.new_positions import NewItemsConfig
from models.recommend.queries import build_queries
from models.training import TrainingOptions
from models.user_log import UserLog
from shortlist.features.finalize import RequestRows
from shortlist.features.pack import FeaturePack
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue

CHAIN, WITHOUT = "chain", "chain_without_quota"
CANDIDATES = 100
RANKER_USERS = 900
SOURCES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "ml-1m": (
        {"kind": "audience"},
        {"kind": "item_knn", "neighbours": [200], "decay": [0.9], "shrinkage": [10.0]},
        {"kind": "ease", "l2": [300.0], "decay": [0.9]},
        {"kind": "popularity"},
    ),
    "movielens-100k": (
        {"kind": "audience"},
        {"kind": "item_knn"},
        {"kind": "ease"},
        {"kind": "popularity"},
        {"kind": "recent_popularity"},
    ),
    "shop": (
        {"kind": "audience"},
        {"kind": "item_knn"},
        {"kind": "ease"},
        {"kind": "popularity"},
        {"kind": "recent_popularity"},
    ),
}
"""Sources of each data set: a part of those of its main run, so that three seeds take minutes."""
RANKER = LambdamartConfig(num_models=2, num_rounds=200, early_stopping_rounds=30)


@dataclass(frozen=True)
class TrainedChains:
    """Trained chains, their catalogue without hidden items, and the events that a store may get."""

    chains: dict[str, Chain]
    catalogue: Catalogue
    events: Targets
    chosen: dict[str, Any]
    """Values that were chosen on validation."""


def fit_chain(log: Log, hidden: np.ndarray, options: TrainingOptions) -> TrainedChains:
    """Train sources and ranker without the hidden items.

    Args:
        hidden: (N,) bool by item row.
    """
    catalogue, rows = without_items(log, hidden)
    events = log.events.take(rows)
    idx_of = np.zeros(len(hidden), dtype=np.int64)
    idx_of[~hidden] = np.arange(1, catalogue.num_items + 1)
    profiles = ProfileEncoder.fit(log.attributes.values())
    data = training_data(log, events.before(log.edges[0]), idx_of, catalogue, profiles)
    judged = ranker_requests(log, replace(log, events=events), catalogue, profiles, options)
    held_out = [tick for user, tick in judged if user % 3 == 0]
    validation = Validation([(tick.queries, tick.items, tick.relevant) for tick in held_out])
    sources: dict[str, Source] = {}
    for settings in SOURCES[log.name]:
        config = registry.parse_source(json.dumps(settings))
        started = time.perf_counter()
        sources[config.kind] = registry.fit(config, data, validation, options)
        spent = time.perf_counter() - started
        print(f"{config.kind}: {spent:.0f} s", file=sys.stderr)
    names = tuple(sources)
    chain = Chain(
        ChainConfig(candidate_sources=names, score_sources=names, candidates_per_source=CANDIDATES),
        sources=sources,
        ranker=None,
        catalogue=catalogue,
        profiles=profiles,
    )
    ticks = {
        "ranker_train": [tick for user, tick in judged if user % 3],
        "validation": held_out,
    }
    window = RankingWindows.of(chain, ticks, {name: gather(chain, ticks[name]) for name in ticks})
    chain.ranker = fit_lambdamart(RANKER, window.train.data, window.valid.data, options)
    choice = choose_min_history(chain, held_out)
    chains = {
        name: Chain(
            chain.config.model_copy(
                update={"min_history": choice.min_history, "new_items": new_items}
            ),
            sources=sources,
            ranker=chain.ranker,
            catalogue=catalogue,
            profiles=profiles,
        )
        for name, new_items in ((CHAIN, NewItemsConfig()), (WITHOUT, None))
    }
    return TrainedChains(chains, catalogue, events, {"min_history": choice.min_history})


def training_data(
    log: Log,
    events: Targets,
    idx_of: np.ndarray,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
) -> TrainingData:
    """Return the sources' training data.

    Args:
        idx_of: (N,) item_idx in `catalogue` of each item row.
    """
    users, user = np.unique(events.user, return_inverse=True)
    user_ids = [log.user_ids[row] for row in users]
    return TrainingData.from_log(
        UserLog.build(
            user,
            num_users=len(users),
            num_items=catalogue.num_items,
            item_idx=idx_of[events.item],
            time=events.time,
            known=events.time + 1,
            value=events.value,
            type_code=events.type_code,
        ),
        catalogue=catalogue,
        user_ids=user_ids,
        profile=profiles.encode(log.attributes.get(user_id, {}) for user_id in user_ids),
        profile_cardinalities=profiles.cardinalities,
    )


def ranker_requests(
    log: Log,
    known: Log,
    catalogue: Catalogue,
    profiles: ProfileEncoder,
    options: TrainingOptions,
) -> list[tuple[int, EvaluationBatch]]:
    """Return the user and the states of each request of the ranker's window.

    Args:
        known: the log without the hidden items.
    """
    rng = options.rng("ranker requests")
    requests = requests_of(known, log.edges, rng=rng, most=RANKER_USERS)
    walk = StoreTimeline.start(log, known.events, at=log.edges[0])
    judged: list[tuple[int, EvaluationBatch]] = []
    packs: list[FeaturePack] = []
    states = []

    def on_day(pack: FeaturePack) -> None:
        packs.append(pack)
        states.append(pack.align(catalogue.vocab))

    def on_request(request: Request) -> None:
        rows = walk.store.read(
            [log.user_ids[request.user]], [""], np.array([request.at], dtype=np.int64)
        )
        judged.append((request.user, _tick(rows, request)))

    def _tick(rows: RequestRows, request: Request) -> EvaluationBatch:
        relevant = catalogue.vocab.encode([log.item_ids[i] for i in request.relevant])
        return EvaluationBatch(
            queries=build_queries(rows, catalogue=catalogue, profiles=profiles),
            items=states[-1],
            relevant=[relevant],
            next_set=[relevant],
            context_ids=[""],
        )

    walk.run(requests, on_day=on_day, on_request=on_request)
    return judged
