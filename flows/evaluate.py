"""Evaluate: compares the chain with its sources, baselines and the champion on the test window.

The chain is everything that answers a request: sources (models that retrieve candidates), filters,
ranker and re-ranking. The champion is the serving release. Lists are ranked over the full
catalogue. All methods are fitted on everything before the test window, except those that
`fitted_until` reports with an earlier end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from prefect import flow, task

from flows.evaluation.champion import CHAMPION, judge_champion
from flows.evaluation.judge import Lists, evaluation, filled, slices_of
from flows.evaluation.reference_log import reference_log
from flows.evaluation.requests import REQUESTS, ndcg_of_users, request_figures
from flows.evaluation.rerank_prices import rerank_prices
from flows.evaluation.sanity import compare_refit
from flows.evaluation.value import value_curve, value_figures
from flows.operations.artifacts import show_metrics
from flows.runtime.configuration import RunConfig
from flows.runtime.retries import step_options
from flows.runtime.runs import Run
from flows.training.assemble import EvaluationBatch, RunData, load_run_data
from flows.training.refit import Recipe
from flows.training.sources import reference_kinds
from flows.training.windows import read_windows
from models import registry
from models.baselines.popularity import Popularity
from models.queries import pad_lists
from models.recommend.chain import Chain, Ranked
from models.recommend.loading import load_chain
from models.recommend.short_history import FALLBACK
from shortlist.catalogue import Catalogue
from shortlist.config import Settings
from shortlist.forgetting.hashed_users import with_hashes
from shortlist.forgetting.keys import home_key
from shortlist.lake import write_whole
from shortlist.splits import Windows

WITHOUT_REFIT = "without_refit"
"""Method name: the chain with sources that were fitted on the first window only. The ranker was
trained on the output of these sources.
"""
FALLBACK_DAYS = 7
"""Window in days of recent popularity, if the run doesn't have it as a source."""


@dataclass(frozen=True)
class ChainLists:
    """Ranked lists and ranker features of one chain for all test requests."""

    lists: Lists
    ranked: list[Ranked]  # one per tick (requests with the same item features)


@flow(name="evaluate", log_prints=True)
def evaluate_flow(run_id: str) -> dict[str, Any]:
    """Evaluate the chain, its sources, tuned baselines and the champion on the test window.

    Args:
        run_id: id of the run, the name of its folder in <home>/runs.

    Returns:
        The content of evaluation.json.
    """
    result = evaluate_task(run_id)
    show_metrics(Settings(), result)
    return result


@task(name="evaluate", **step_options("evaluate", hours=6))
def evaluate_task(run_id: str) -> dict[str, Any]:
    return evaluate(Settings(), run_id)


def evaluate(settings: Settings, run_id: str) -> dict[str, Any]:
    """Do the work of `evaluate_flow`, without Prefect.

    Writes evaluation.json and the tables of users and requests to the run's folder, and the
    reference log for monitoring to its staged release.
    """
    run = Run.open(settings, run_id)
    config = run.config
    about = run.read("about.json", made_by="train")
    run_data = load_run_data(settings, run)
    windows, _ = read_windows(
        run.states(settings),
        replace(run_data, reads_outcomes=True),
        config,
        windows=("validation", "test"),
    )
    ticks = windows["test"]
    refit, backtest, trial = (
        load_chain(run.staging, about, sources=folder)
        for folder in (run.staging / "sources", run.backtest, run.trial)
    )
    print(f"evaluate: {sum(len(t.queries) for t in ticks):,} requests over the full catalogue")

    width = max(config.evaluate.ks)
    chain = judge_chain(backtest, ticks, k=width)
    methods = {"chain": chain.lists, WITHOUT_REFIT: judge_chain(trial, ticks, k=width).lists}
    champion, served = judge_champion(settings, run, run_data, Recipe.from_json(about["recipe"]))
    print(f"evaluate: champion {champion.status}: {champion.reason}")
    if served is not None:
        methods[CHAMPION] = judge_chain(served, ticks, k=width).lists
    methods |= judge_sources(run, config, backtest, ticks, catalogue=run_data.catalogue, k=width)

    counts, until_test = (
        item_counts(run_data, end=run_data.windows[window][0]) for window in ("validation", "test")
    )
    slices = slices_of(ticks, counts, known=until_test > 0)
    result: dict[str, Any] = evaluation(
        methods,
        ticks,
        run_data.catalogue,
        counts,
        config.evaluate,
        slices=slices,
        seed=config.seed,
    )
    if config.value:
        of_value, ahead = value_figures(
            methods, ticks, config.value, k=config.evaluate.list_size, seed=config.seed
        )
        for name, figures in of_value.items():
            result["metrics"][name] |= figures
        for name, lead in ahead.items():
            result["chain_ahead"][name] |= lead
        heads = about["chain_figures"].get("heads", {})
        result["value"] = {"weights": config.value, "heads": heads} | value_curve(
            trial, windows["validation"], config.value, k=config.evaluate.list_size
        )
    of_run = {"dataset": config.name, "run_id": run.run_id, "champion": champion.to_json()}
    result = of_run | result
    result["candidates"] = result["candidates"] | judge_shortlist(chain.ranked, ticks, backtest)
    result["refit"] = about["refit"] | compare_refit(refit, backtest, ticks)
    result["rerank"] = rerank_prices(
        trial, windows["validation"], k=config.evaluate.list_size, seed=config.seed
    )
    result["fitted_until"] = fitted_until(run, methods, windows=run_data.windows)
    per_user = ndcg_of_users(methods, ticks, k=config.evaluate.list_size)
    pq.write_table(per_user, run.path / "evaluation_users.parquet")
    per_request = request_figures(
        chain.lists, ticks, run_data.catalogue, counts, slices, config.evaluate
    )
    write_whole(per_request, run.path / REQUESTS)
    run.write("evaluation.json", result)
    reference = run.staging / "reference"
    reference.mkdir(exist_ok=True)
    log = reference_log(chain.ranked, ticks, backtest, k=config.evaluate.list_size)
    log = with_hashes(log, home_key(settings.forgotten))
    pq.write_table(log, reference / "serving_log.parquet")
    return result


def item_counts(run_data: RunData, *, end: int) -> np.ndarray:
    """Return (N + 1,) the number of target events of each item before `end` (microseconds)."""
    item_ids = run_data.before(end).column("item_id").to_pylist()
    catalogue = run_data.catalogue
    return np.bincount(catalogue.vocab.encode(item_ids), minlength=catalogue.num_items + 1)


def judge_chain(chain: Chain, ticks: list[EvaluationBatch], *, k: int) -> ChainLists:
    """Rank all requests with item features, catalogue and history as of each request."""
    ranked = [tick.over(chain).rank(tick.queries, tick.items, k=k) for tick in ticks]
    return ChainLists(Lists.of([pad_lists(r.item_idx, k) for r in ranked]), ranked)


def judge_sources(
    run: Run,
    config: RunConfig,
    backtest: Chain,
    ticks: list[EvaluationBatch],
    *,
    catalogue: Catalogue,
    k: int,
) -> dict[str, Lists]:
    """Return the lists of each source and baseline alone, without other sources and ranker.

    Sources that the chain doesn't use were not refitted. They are evaluated as fitted on the first
    window; see `fitted_until`. Empty positions are filled with recently popular items, as in
    service.

    Returns:
        {source or baseline: lists}.
    """
    sources = {
        source.kind: registry.load(source.kind, run.trial / source.kind, catalogue)
        for source in config.train.sources
        if source.kind not in backtest.sources
    } | backtest.sources
    for source_type in reference_kinds(config):
        folder = run.references / source_type
        if folder.is_dir():
            sources[source_type] = registry.load(source_type, folder, catalogue)
    if FALLBACK not in sources:
        sources[FALLBACK] = Popularity(FALLBACK, days=FALLBACK_DAYS)
    lists = {
        name: Lists.of(
            [pad_lists(source.retrieve(t.queries, t.items, k=k).item_idx, k) for t in ticks]
        )
        for name, source in sources.items()
    }
    return {name: filled(of_source, lists[FALLBACK]) for name, of_source in lists.items()}


def fitted_until(run: Run, methods: Iterable[str], *, windows: Windows) -> dict[str, int]:
    """Return {method: end of the events that it was fitted on, in microseconds}.

    It is the test window's start for methods that were refitted, else the end of the first window.
    """
    again = {"chain", CHAMPION, FALLBACK}
    for folder in (run.backtest, run.references):
        again |= {path.name for path in folder.iterdir()}
    first, test = windows["retrieval_train"][1], windows["test"][0]
    return {name: test if name in again else first for name in methods}


def judge_shortlist(
    ranked: list[Ranked], ticks: list[EvaluationBatch], chain: Chain
) -> dict[str, Any]:
    """Return recall and mean size of the merged candidate lists: the upper bound for a ranker."""
    hit = relevant = width = 0
    for tick, best in zip(ticks, ranked, strict=True):
        for row, wanted in zip(best.candidates, tick.relevant, strict=True):
            hit += int(np.isin(wanted, row).sum())
            relevant += len(wanted)
            width += int((row > 0).sum())
    requests = sum(len(t.queries) for t in ticks)
    return {
        "together": {
            "recall": hit / relevant if relevant else float("nan"),
            "mean_candidates": width / requests,
            "sources": list(chain.config.candidate_sources),
        }
    }
