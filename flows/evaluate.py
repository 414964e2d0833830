"""Evaluate: compares the chain with its sources, baselines and the champion on the test window.

The chain is everything that answers a request: sources (models that retrieve candidates), filters,
ranker and re-ranking. The champion is the serving release. Lists are ranked over the full
catalogue. All methods are fitted on everything before the test window, except those that
`fitted_until` reports with an earlier end.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from prefect import flow, task

from flows.evaluation.alone import fitted_until, judge_sources
from flows.evaluation.champion import CHAMPION, judge_champion
from flows.evaluation.judge import Lists, evaluation, slices_of
from flows.evaluation.off_policy import off_policy
from flows.evaluation.reference_log import reference_log
from flows.evaluation.requests import ndcg_of_users, request_figures
from flows.evaluation.rerank_prices import rerank_prices
from flows.evaluation.sanity import compare_refit
from flows.evaluation.value import value_curve, value_figures
from flows.operations.artifacts import show_metrics
from flows.runtime.retries import step_options
from flows.runtime.runs import Run
from flows.training.assemble import EvaluationBatch, RunData, load_run_data
from flows.training.refit import Recipe
from flows.training.windows import read_windows
from models.queries import pad_lists
from models.recommend.chain import Chain, Ranked
from models.recommend.loading import load_chain
from monitoring.off_policy.compare import CHALLENGER
from shortlist.config import Settings
from shortlist.forgetting.hashed_users import with_hashes
from shortlist.forgetting.keys import home_key
from shortlist.lake import write_whole

WITHOUT_REFIT = "without_refit"
"""Method name: the chain with sources that were fitted on the first window only. The ranker was
trained on the output of these sources.
"""


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
    refit, backtest = (
        load_chain(run.staging, about, sources=folder)
        for folder in (run.staging / "sources", run.backtest)
    )
    # Settings of re-ranking and weights of `[value]` are shown for a chain that was fitted before
    # the window: the trial's on validation, or the base of an incremental run on the test window.
    shown = "test" if run.is_incremental else "validation"
    windows, _ = read_windows(
        run.states(settings),
        replace(run_data, reads_outcomes=True),
        config,
        windows=tuple(dict.fromkeys((shown, "test"))),
        profiles=refit.profiles,
    )
    ticks = windows["test"]
    print(f"evaluate: {sum(len(t.queries) for t in ticks):,} requests over the full catalogue")

    width = max(config.evaluate.ks)
    chain = judge_chain(backtest, ticks, k=width)
    methods = {"chain": chain.lists}
    champion, served = judge_champion(settings, run, run_data, Recipe.from_json(about["recipe"]))
    if run.is_incremental:
        assert served is not None, "an incremental run is compared with its base"
        trial = served
    else:
        trial = load_chain(run.staging, about, sources=run.trial)
        methods[WITHOUT_REFIT] = judge_chain(trial, ticks, k=width).lists
    print(f"evaluate: champion {champion.status}: {champion.reason}")
    if served is not None:
        methods[CHAMPION] = judge_chain(served, ticks, k=width).lists
    methods |= judge_sources(run, config, backtest, ticks, catalogue=run_data.catalogue, k=width)

    counts, until_test = (
        item_counts(run_data, end=run_data.windows[window][0]) for window in (shown, "test")
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
            trial, windows[shown], config.value, k=config.evaluate.list_size, window=shown
        )
    of_run = {"dataset": config.name, "run_id": run.run_id, "champion": champion.to_json()}
    result = of_run | result
    result["candidates"] = result["candidates"] | judge_shortlist(chain.ranked, ticks, backtest)
    result["refit"] = about["refit"] | compare_refit(refit, backtest, ticks)
    result["rerank"] = rerank_prices(
        trial, windows[shown], k=config.evaluate.list_size, seed=config.seed, window=shown
    )
    judged = {CHALLENGER: backtest} | ({} if served is None else {CHAMPION: served})
    result["off_policy"] = off_policy(settings, run, run_data, judged)
    result["fitted_until"] = fitted_until(run, methods, windows=run_data.windows)
    per_user = ndcg_of_users(methods, ticks, k=config.evaluate.list_size)
    pq.write_table(per_user, run.path / "evaluation_users.parquet")
    per_request = request_figures(
        chain.lists, ticks, run_data.catalogue, counts, slices, config.evaluate
    )
    write_whole(per_request, run.evaluated_requests)
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
