"""Train: fits sources and rankers, chooses the chain, and refits its sources on more data.

Sources are models that retrieve candidates. They are fitted on the first window of the data, and
rankers on the sources' candidates in the second. The chain is the combination of sources and ranker
that answers requests. It is chosen on validation, the third window.
"""

import json
import shutil
import time
from typing import Any

import numpy as np
from prefect import flow, task
from prefect.cache_policies import CachePolicy

from flows.runtime.configuration import RunConfig
from flows.runtime.retries import step_options
from flows.runtime.runs import Run
from flows.training.assemble import (
    JudgedTick,
    World,
    as_validation,
    draw_window,
    fit_profiles,
    judged_requests,
    load_world,
    training_data,
)
from flows.training.choose_chain import (
    SourceChoice,
    best_ranker,
    choose_sources,
    source_usage,
)
from flows.training.choose_fallback import choose_min_history
from flows.training.judgeable import require_judgeable
from flows.training.ranking_data import Windowed, fit_rankers, gather, ranker_options
from flows.training.refit import Recipe, fitted_on, refit_jobs
from flows.training.reuse import adopt, cache_key, record_key, trained_before
from flows.training.sources import Job, fit_sources, in_order, reference_sources
from models import registry
from models.ranking.gbdt import LambdamartConfig, fit_lambdamart
from models.ranking.protocol import RankingError
from models.recommend.chain import Chain, ChainConfig
from models.training import TrainingOptions
from shortlist.config import Settings
from shortlist.feature_store import FeatureStoreError, OfflineReader, read_pack_history
from shortlist.feature_store.packs import tick_of
from shortlist.features.finalize import ITEM_SERVICE, REQUEST_SERVICE, schema_hash
from shortlist.features.profiles import ProfileEncoder
from shortlist.home_lock import home_lock
from shortlist.ticks import newest_tick

PROBE = LambdamartConfig(num_models=1, num_rounds=120, learning_rate=0.1, early_stopping_rounds=20)
"""Config of a small, fast ranker that is used to decide which sources improve the chain."""


@flow(name="train", log_prints=True)
def train_flow(run_id: str) -> dict[str, Any]:
    """Train all models of the run's config and stage them in the run's folder.

    Args:
        run_id: id of the run, the name of its folder in <home>/runs.
    """
    with home_lock(Settings(), "train", what="shortlist train"):
        return train_step(run_id, again=True)


def train_step(run_id: str, *, again: bool = False) -> dict[str, Any]:
    """Train a run, or use the models of an earlier run of the same lake, config and code.

    Args:
        again: train even if there is such a run.
    """
    settings = Settings()
    run = Run.open(settings, run_id)
    earlier = None if again else trained_before(settings, run)
    result = train_task.with_options(refresh_cache=earlier is None)(run_id)
    if earlier is not None and result["run_id"] != run_id:
        adopt(earlier, run)
    return result


@task(
    name="train",
    **step_options("train", hours=24, cached=CachePolicy.from_cache_key_fn(cache_key)),
)
def train_task(run_id: str) -> dict[str, Any]:
    settings = Settings()
    run = Run.open(settings, run_id)
    result = train(settings, run)
    record_key(run)
    return result | {"run_id": run_id}


def train(settings: Settings, run: Run) -> dict[str, Any]:
    """Do the work of `train_flow`, without Prefect and without the lock.

    A retry starts from the beginning, on the same frozen data.

    Returns:
        {"sources": figures of each source, "ranker": type of the chosen ranker, "chain": its
        config, "data": number of items, users and events of the release's training data}.
    """
    config = run.config
    world = load_world(settings, run)
    require_judgeable(world, config)
    windows_read = ("ranker_train", "validation")
    ticks, profiles = read_windows(run.states(settings), world, config, windows=windows_read)
    edges = world.windows
    data = training_data(world, profiles, end=edges["retrieval_train"][1])
    validation = as_validation(ticks["validation"])
    print(
        f"train: {len(data.item_idx):,} events of {data.num_users:,} users,"
        f" {data.num_items:,} items; requests: "
        + ", ".join(f"{sum(len(t.queries) for t in v):,} {name}" for name, v in ticks.items())
    )
    for folder in (run.staging, run.trial, run.backtest, run.references):
        shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted training
    run.staging.mkdir()
    world.catalogue.save(run.staging / "items.parquet")
    (run.staging / "profiles.json").write_text(json.dumps(profiles.to_json()))
    # Tune the evaluation's baselines on everything before validation, so that no baseline has less
    # data than the chain's ranker.
    tuning = training_data(world, profiles, end=edges["ranker_train"][1])
    references = reference_sources(config, num_items=world.catalogue.num_items)
    trials = [Job(s, data, validation, run.trial) for s in in_order(config.train.sources)]
    figures = fit_sources(
        [*trials, *(Job(s, tuning, validation, None) for s in references)], config, settings.cache
    )
    trial = {job.config.kind: own for job, own in zip(trials, figures, strict=False)}
    tuned = dict(zip((s.kind for s in references), figures[len(trials) :], strict=True))
    sources = {
        source.kind: registry.load(source.kind, run.trial / source.kind, world.catalogue)
        for source in config.train.sources
    }
    about = train_ranking(run, config, world, profiles, sources, ticks)
    recipe = Recipe.of(
        config,
        chain=about["chain"],
        ranker=about["ranker"],
        frozen={kind: own["frozen"] for kind, own in trial.items()},
    )
    chosen = [source.kind for source in recipe.sources]
    before_test = training_data(world, profiles, end=edges["test"][0])
    released = training_data(world, profiles, end=edges["test"][1])
    release_jobs = refit_jobs(
        recipe.sources,
        released,
        validation,
        run.staging / "sources",
        frozen=recipe.frozen,
    )
    figures = fit_sources(
        [
            *release_jobs,
            *refit_jobs(
                recipe.sources, before_test, validation, run.backtest, frozen=recipe.frozen
            ),
            *(
                Job(s, before_test, validation, run.references, tuned[s.kind]["frozen"])
                for s in references
            ),
        ],
        config,
        settings.cache,
    )
    refitted = {job.config.kind: own for job, own in zip(release_jobs, figures, strict=False)}
    about |= {
        "dataset": config.name,
        "clock": config.data.clock,
        "tick": config.tick,
        "target_events": list(config.data.target_events),
        "wording": config.data.wording,
        "feature_schema": schema_hash(),
        "feature_services": [REQUEST_SERVICE, ITEM_SERVICE],
        "sources": {kind: kind for kind in chosen},
        "source_figures": trial,
        "refit": {
            "seconds": {kind: own["seconds"] for kind, own in refitted.items()},
            "index_recall@100": {
                kind: own["index_recall@100"]
                for kind, own in refitted.items()
                if "index_recall@100" in own
            },
        },
        "fitted": fitted_on(world, chosen),
        "recipe": recipe.to_json(),
        "windows": edges.to_json(),
        "data_end": run.data_end,
        "seed": config.seed,
    }
    run.write("about.json", about)
    return {
        "sources": trial,
        "ranker": about["ranker"],
        "chain": about["chain"],
        "data": {
            "items": released.num_items,
            "users": released.num_users,
            "events": len(released.item_idx),
        },
    }


def read_windows(
    settings: Settings, world: World, config: RunConfig, *, windows: tuple[str, ...]
) -> tuple[dict[str, list[JudgedTick]], ProfileEncoder]:
    """Read the requests of some windows with their features, by Feast's point-in-time join.

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
    profiles = fit_profiles(world, end=world.windows["retrieval_train"][1])
    reader = OfflineReader(settings)
    moments = [draw_window(world, window, config).at for window in windows]
    ticks = np.unique(newest_tick(np.concatenate(moments), config.tick))
    packs = read_pack_history(settings, ticks.tolist())
    return {
        window: judged_requests(
            world, window, profiles=profiles, reader=reader, packs=packs, config=config
        )
        for window in windows
    }, profiles


def train_ranking(
    run: Run,
    config: RunConfig,
    world: World,
    profiles: ProfileEncoder,
    sources: dict[str, Any],
    ticks: dict[str, list[JudgedTick]],
) -> dict[str, Any]:
    """Fit all rankers on the ranker-train window and choose sources and ranker on validation.

    The chosen ranker is saved in the run's release folder.

    Returns:
        Keys of the manifest: chain, ranker, ranking_schema, chain_verdict, chain_figures.
    """
    names = tuple(sources)
    chain = Chain(
        ChainConfig(
            candidate_sources=names,
            score_sources=names,
            candidates_per_source=config.train.candidates_per_source,
            rerank=config.train.rerank,
            repeats=config.data.repeats,
        ),
        sources=sources,
        ranker=None,
        catalogue=world.catalogue,
        profiles=profiles,
    )
    started = time.perf_counter()
    options = ranker_options(config)
    gathered = {window: gather(chain, ticks[window]) for window in ticks}
    everything = Windowed.of(chain, ticks, gathered)
    print(
        f"ranking data: {len(everything.train.data.label):,} rows x {len(chain.schema)} features"
        f" ({time.perf_counter() - started:.1f} s)"
    )
    try:
        choice = choose(chain, everything, options)
    except RankingError as error:
        return without_ranker(chain, everything, str(error))
    for line in choice.verdict:
        print(f"chain: {line}")
    chosen = Chain(
        chain.config.model_copy(
            update={
                "candidate_sources": choice.candidate_sources,
                "score_sources": choice.score_sources,
            }
        ),
        sources=sources,
        ranker=None,
        catalogue=world.catalogue,
        profiles=profiles,
    )
    same = chosen.schema == chain.schema and chosen.source_names == chain.source_names
    window = everything if same else None
    del everything  # free its memory before the data of the chosen chain is assembled
    window = window or Windowed.of(chosen, ticks, gathered)
    rankers = fit_rankers(config.train.rankers, window, options)
    kind, figures = best_ranker(rankers, window.valid)
    print(f"chain: {kind or 'fusion of ranks'} orders best on validation: " + as_text(figures))
    if kind is not None:
        folder = run.staging / "ranker"
        folder.mkdir()
        rankers[kind].save(folder)
    chosen.ranker = None if kind is None else rankers[kind]
    fallback = choose_min_history(chosen, ticks["validation"])
    print(f"chain: {fallback.verdict}")
    served = {"min_history": fallback.min_history, "new_items": config.train.new_items}
    return {
        "chain": chosen.config.model_copy(update=served).model_dump(mode="json"),
        "ranker": kind,
        "ranking_schema": chosen.schema.to_json(),
        "chain_verdict": [*choice.verdict, fallback.verdict],
        "chain_figures": choice.figures | {"rankers": figures, "short_history": fallback.figures},
    }


def choose(chain: Chain, everything: Windowed, options: TrainingOptions) -> SourceChoice:
    """Choose the chain's sources on validation, with rankers of the config PROBE.

    Args:
        chain: the chain with all sources.
        everything: ranking data of this chain.

    Raises:
        RankingError: no request has both a relevant and an irrelevant candidate, so that no ranker
            can be trained.
    """
    valid = everything.valid.data
    probe = fit_lambdamart(PROBE, everything.train.data, valid, options)

    def probe_without(left_out: tuple[str, ...]) -> np.ndarray:
        fewer = valid.without_sources(left_out)
        learned_from = everything.train.data.without_sources(left_out)
        ranker = fit_lambdamart(PROBE, learned_from, fewer, options)
        return ranker.predict(fewer.x, fewer.item_idx)

    return choose_sources(
        chain.config,
        everything.valid,
        probe.predict(valid.x, valid.item_idx),
        source_usage(probe.importance(chain.schema), chain.config.candidate_sources),
        probe_without=probe_without,
    )


def without_ranker(chain: Chain, window: Windowed, reason: str) -> dict[str, Any]:
    """Return the result of `train_ranking` if no ranker can be trained.

    The chain then has all sources, and orders candidates by reciprocal rank fusion.

    Args:
        reason: why no ranker can be trained.
    """
    verdict = f"no ranker is trained and no source left out: {reason}"
    print(f"chain: {verdict}")
    unscored = Chain(
        chain.config.model_copy(update={"score_sources": ()}),
        sources=chain.sources,
        ranker=None,
        catalogue=chain.catalogue,
        profiles=chain.profiles,
    )
    valid = window.valid
    figures = {"rankers": {"fusion": valid.data.mean_ndcg(valid.fused)}}
    return {
        "chain": unscored.config.model_dump(mode="json"),
        "ranker": None,
        "ranking_schema": unscored.schema.to_json(),
        "chain_verdict": [verdict],
        "chain_figures": figures,
    }


def as_text(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
