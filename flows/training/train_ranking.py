"""Trains the rankers of a run, and chooses the chain's sources and ranker on validation."""

import time
from typing import Any

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import EvaluationBatch, RunData
from flows.training.choose_chain import SourceChoice, best_ranker, choose_sources, source_usage
from flows.training.choose_fallback import choose_min_history
from flows.training.choose_search import choose_search
from flows.training.ranking_data import (
    RankingWindows,
    chain_of_all,
    fit_rankers,
    gather,
    ranker_options,
)
from models.ranking.protocol import RankingError, scores_of
from models.ranking.trees.lambdamart import LambdamartConfig, fit_lambdamart
from models.recommend.chain import Chain
from models.training import TrainingOptions
from shortlist.config import Settings
from shortlist.features.profiles import ProfileEncoder

PROBE = LambdamartConfig(num_models=1, num_rounds=120, learning_rate=0.1, early_stopping_rounds=20)
"""Config of a small, fast ranker that is used to decide which sources improve the chain."""


def train_ranking(
    settings: Settings,
    run: Run,
    config: RunConfig,
    run_data: RunData,
    profiles: ProfileEncoder,
    sources: dict[str, Any],
    ticks: dict[str, list[EvaluationBatch]],
) -> dict[str, Any]:
    """Fit all rankers on the ranker-train window and choose sources and ranker on validation.

    The chosen ranker is saved in the run's release folder.

    Returns:
        Keys of the manifest: chain, ranker, ranking_schema, chain_verdict, chain_figures.
    """
    chain = chain_of_all(config, run_data, profiles, sources)
    started = time.perf_counter()
    options = ranker_options(config)
    gathered = {window: gather(chain, ticks[window]) for window in ticks}
    everything = RankingWindows.of(chain, ticks, gathered)
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
        catalogue=run_data.catalogue,
        profiles=profiles,
    )
    same = chosen.schema == chain.schema and chosen.source_names == chain.source_names
    window = everything if same else None
    del everything  # free its memory before the data of the chosen chain is assembled
    window = window or RankingWindows.of(chosen, ticks, gathered)
    rankers = fit_rankers(config.rankers, window, options)
    ranker_type, figures = best_ranker(rankers, window.valid, value=config.value)
    print(
        f"chain: {ranker_type or 'fusion of ranks'} orders best on validation by"
        f" {'value' if config.value else 'nDCG'}@10: " + as_text(figures)
    )
    if ranker_type is not None:
        folder = run.staging / "ranker"
        folder.mkdir()
        rankers[ranker_type].save(folder)
    chosen.ranker = None if ranker_type is None else rankers[ranker_type]
    fallback = choose_min_history(chosen, ticks["validation"])
    print(f"chain: {fallback.verdict}")
    search = choose_search(settings, run, run_data, chosen)
    print(f"chain: {search.verdict}")
    served = {
        "min_history": fallback.min_history,
        "new_items": config.train.new_items,
        "search": search.weights,
    }
    return {
        "chain": chosen.config.model_copy(update=served).model_dump(mode="json"),
        "ranker": ranker_type,
        "ranking_schema": chosen.schema.to_json(),
        "chain_verdict": [*choice.verdict, fallback.verdict, search.verdict],
        "chain_figures": choice.figures
        | {"rankers": figures, "short_history": fallback.figures, "search": search.figures}
        | ({"shown_lists": len(window.shown.data)} if window.shown else {})
        | ({"heads": rankers["value"].figures} if "value" in rankers else {}),
    }


def choose(chain: Chain, everything: RankingWindows, options: TrainingOptions) -> SourceChoice:
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
        ranker = fit_lambdamart(PROBE, everything.train.data, fewer, options)
        return scores_of(ranker, fewer)

    return choose_sources(
        chain.config,
        everything.valid,
        scores_of(probe, valid),
        source_usage(probe.importance(chain.schema), chain.config.candidate_sources),
        probe_without=probe_without,
    )


def without_ranker(chain: Chain, window: RankingWindows, reason: str) -> dict[str, Any]:
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
