"""Evaluate: the whole chain on the test window, over the full catalogue, beside sources, baselines
and champion. All are fitted on everything before that window, as a release is on everything before
it serves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import flow

from flows.assemble import JudgedTick, load_world
from flows.champion import load_champion
from flows.choose_chain import FALLBACK
from flows.configuration import EvaluateConfig, RunConfig
from flows.judge import Lists, beyond_accuracy, filled, quality, slices_of
from flows.runs import Run
from flows.sanity import compare_refit
from flows.train import read_windows
from flows.train_sources import REFERENCE_KINDS
from models import registry
from models.baselines.popularity import Popularity
from models.recommend.chain import Ranked
from models.recommend.recommender import Recommender
from models.recommend.rules import RULES_VERSION
from shortlist.catalogue import Catalogue
from shortlist.config import Settings
from shortlist.contracts import SERVING_LOG
from shortlist.feature_store import OfflineReader, latest_pack
from shortlist.metrics import ndcg, paired_difference
from shortlist.release import ReleaseError, ReleaseStore
from shortlist.splits import Windows

CHAMPION = "champion"
WITHOUT_REFIT = "without_refit"
"""The chain with sources that were fitted on the first window only, as its ranker met them."""
FALLBACK_DAYS = 7
"""Of recent popularity, where a run does not name it as a source of its own."""


@dataclass(frozen=True)
class Judged:
    """What one method showed in every test request."""

    lists: Lists
    ranked: list[Ranked]  # of a chain only


@flow(name="evaluate", log_prints=True)
def evaluate_flow(run_id: str) -> dict[str, Any]:
    """Judge the chain, its sources, tuned baselines and the champion on the test window."""
    settings = Settings()
    run = Run.open(settings, run_id)
    config = run.config
    about = run.read("about.json", made_by="train")
    world = load_world(settings, run)
    ticks = read_windows(settings, world, config, windows=("test",))[0]["test"]
    pack = latest_pack(settings.packs)
    reader = OfflineReader(settings)
    refit, backtest, trial = (
        Recommender.from_folder(run.staging, about, reader, pack=pack, sources=folder)
        for folder in (run.staging / "sources", run.backtest, run.trial)
    )
    print(f"evaluate: {sum(len(t.queries) for t in ticks):,} requests over the full catalogue")

    width = max(config.evaluate.ks)
    chain = judge_chain(backtest, ticks, k=width)
    methods = {"chain": chain.lists, WITHOUT_REFIT: judge_chain(trial, ticks, k=width).lists}
    serving = ReleaseStore(settings.releases).current_id()
    champion = load_champion(settings, run, world, ticks, reader, pack=pack)
    if champion is not None:
        methods[CHAMPION] = judge_chain(champion, ticks, k=width).lists
    methods |= judge_sources(run, config, backtest, ticks, catalogue=world.catalogue, k=width)

    data_counts = np.bincount(
        world.catalogue.vocab.encode(
            world.before(world.windows["validation"][0]).column("item_id").to_pylist()
        ),
        minlength=world.catalogue.num_items + 1,
    )
    result: dict[str, Any] = evaluation(
        methods, ticks, world.catalogue, data_counts, config.evaluate, seed=config.seed
    )
    result = {"dataset": config.name, "run_id": run.run_id, "compared_with": serving} | result
    result["candidates"] = result["candidates"] | judge_shortlist(chain.ranked, ticks, backtest)
    result["refit"] = about["refit"] | compare_refit(refit.chain, backtest.chain, ticks)
    result["fitted_until"] = fitted_until(run, methods, windows=world.windows)
    per_user = ndcg_of_users(methods, ticks, k=config.evaluate.list_size)
    pq.write_table(per_user, run.path / "evaluation_users.parquet")
    run.write("evaluation.json", result)
    reference = run.staging / "reference"
    reference.mkdir(exist_ok=True)
    log = serving_log(chain.ranked, ticks, backtest, k=config.evaluate.list_size)
    pq.write_table(log, reference / "serving_log.parquet")
    return result


def judge_chain(recommender: Recommender, ticks: list[JudgedTick], *, k: int) -> Judged:
    """Rank every request with the packs, catalogues and histories of its own moment."""
    ranked = []
    for tick in ticks:
        items = tick.items
        if recommender.chain.num_known + 1 != len(items.state["item_events"]):
            raise ReleaseError(
                f"release {recommender.release_id} knows {recommender.chain.num_known} items,"
                f" the lake has {len(items.state['item_events']) - 1}: not the same catalogue"
            )
        ranked.append(tick.over(recommender.chain).rank(tick.queries, items, k=k))
    return Judged(Lists.of([pad(r.item_idx, k) for r in ranked]), ranked)


def judge_sources(
    run: Run,
    config: RunConfig,
    backtest: Recommender,
    ticks: list[JudgedTick],
    *,
    catalogue: Catalogue,
    k: int,
) -> dict[str, Lists]:
    """The list of every source and baseline alone. Those that were not fitted again are judged as
    fitted on the first window; `fitted_until` tells them apart.

    Places that a source leaves empty are filled with recent popularity, as they would be served.
    """
    sources = {
        source.kind: registry.load(source.kind, run.trial / source.kind, catalogue)
        for source in config.train.sources
        if source.kind not in backtest.chain.sources
    } | backtest.chain.sources
    for kind in REFERENCE_KINDS:
        folder = run.references / kind
        if folder.is_dir():
            sources[kind] = registry.load(kind, folder, catalogue)
    if FALLBACK not in sources:
        sources[FALLBACK] = Popularity(FALLBACK, days=FALLBACK_DAYS)
    lists = {
        name: Lists.of([pad(source.retrieve(t.queries, t.items, k=k).item_idx, k) for t in ticks])
        for name, source in sources.items()
    }
    return {name: filled(of_source, lists[FALLBACK]) for name, of_source in lists.items()}


def fitted_until(run: Run, methods: Iterable[str], *, windows: Windows) -> dict[str, int]:
    """Method -> where the events end that it was fitted on (microseconds)."""
    again = {"chain", CHAMPION, FALLBACK}
    for folder in (run.backtest, run.references):
        again |= {path.name for path in folder.iterdir()}
    first, test = windows["retrieval_train"][1], windows["test"][0]
    return {name: test if name in again else first for name in methods}


def ndcg_of_users(methods: dict[str, Lists], ticks: list[JudgedTick], *, k: int) -> pa.Table:
    """user_id, method, ndcg (mean over the user's requests): for comparisons across runs."""
    users = np.array([user for tick in ticks for user in tick.queries.user_ids])
    relevant = [wanted for tick in ticks for wanted in tick.relevant]
    parts = []
    for name, lists in methods.items():
        values = ndcg(lists.item_idx, relevant, k=k)
        kept = ~np.isnan(values)
        ids, row = np.unique(users[kept], return_inverse=True)
        mean = np.bincount(row, weights=values[kept]) / np.bincount(row)
        parts.append(pa.table({"user_id": ids, "method": [name] * len(ids), "ndcg": mean}))
    return pa.concat_tables(parts)


def judge_shortlist(
    ranked: list[Ranked], ticks: list[JudgedTick], recommender: Recommender
) -> dict[str, Any]:
    """Recall of the chain's candidates, together: what the ranker could find at best."""
    hit = relevant = width = 0
    for tick, best in zip(ticks, ranked, strict=True):
        for row, wanted in zip(best.candidates, tick.relevant, strict=True):
            hit += int(np.isin(wanted, row).sum())
            relevant += len(wanted)
            width += int((row > 0).sum())
    requests = sum(len(t.queries) for t in ticks)
    return {
        "together": {
            "recall": hit / relevant,
            "mean_candidates": width / requests,
            "sources": list(recommender.chain.config.candidate_sources),
        }
    }


def evaluation(
    methods: dict[str, Lists],
    ticks: list[JudgedTick],
    catalogue: Catalogue,
    item_counts: np.ndarray,
    config: EvaluateConfig,
    *,
    seed: int,
) -> dict[str, Any]:
    """Metrics with bootstrap intervals over users, per method and per slice; and by how much the
    chain is ahead of each method on the same requests.
    """
    users = [user for tick in ticks for user in tick.queries.user_ids]
    relevant = [wanted for tick in ticks for wanted in tick.relevant]
    next_set = [wanted for tick in ticks for wanted in tick.next_set]
    slices = slices_of(ticks, item_counts)
    metrics, by_slice, recalls, ahead = {}, {name: {} for name in slices}, {}, {}
    k = config.list_size
    of_chain = ndcg(methods["chain"].item_idx, relevant, k=k)
    for name, lists in methods.items():
        rng = np.random.default_rng(seed)  # the same draws of users for every method
        metrics[name] = quality(
            lists, users, relevant, next_set, ks=config.ks, rng=rng, draws=config.bootstrap_draws
        ) | beyond_accuracy(lists, users, catalogue, item_counts, k=k, rng=rng, draws=200)
        if name != "chain":
            ahead[name] = {
                f"ndcg@{k}": paired_difference(
                    users,
                    of_chain,
                    ndcg(lists.item_idx, relevant, k=k),
                    rng=np.random.default_rng(seed),
                    draws=config.bootstrap_draws,
                )
            }
        for slice_name, wanted in slices.items():
            by_slice[slice_name][name] = quality(
                lists,
                users,
                wanted.relevant,
                wanted.next_set,
                ks=(k,),
                rng=np.random.default_rng(seed),
                draws=200,
            )
        recalls[name] = {f"recall@{k}": metrics[name][f"recall@{k}"]["mean"] for k in config.ks}
    return {
        "n_requests": len(users),
        "n_users": len(set(users)),
        "reachable_coverage": min(1.0, len(set(users)) * k / catalogue.num_items),
        "metrics": metrics,
        "chain_ahead": ahead,
        "slices": by_slice,
        "candidates": recalls,
    }


def serving_log(
    ranked: list[Ranked], ticks: list[JudgedTick], recommender: Recommender, *, k: int
) -> pa.Table:
    """The chain's test slates as the service would log them: monitoring's reference window."""
    names = recommender.chain.config.candidate_sources
    ids = recommender.catalogue.vocab.ids
    rows = [
        {
            "request_id": f"test-{int(tick.queries.at[row])}-{user_id}",
            "release_id": recommender.release_id,
            "pack_id": tick.items.pack_id,
            "arm": "main",
            "user_id": user_id,
            "context_id": tick.context_ids[row],
            "event_timestamp": int(tick.queries.at[row]),
            "user_as_of": int(tick.queries.history_time[row].max()),
            "delta_epoch": 0,
            "rules_version": RULES_VERSION,
            "skipped_stages": [],
            "item_id": ids[best.item_idx[row, place] - 1],
            "position": place + 1,
            "source": names[best.source[row, place]],
            "score": float(best.score[row, place]),
            "propensity": 1.0,
            "features": best.features[row, place],
        }
        for tick, best in zip(ticks, ranked, strict=True)
        for row, user_id in enumerate(tick.queries.user_ids)
        for place in range(min(k, int((best.item_idx[row] > 0).sum())))
    ]
    columns = {}
    for field in SERVING_LOG:
        values = [row.get(field.name) for row in rows]
        if pa.types.is_timestamp(field.type):
            columns[field.name] = pa.array(values, pa.int64()).cast(field.type)
        else:
            columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=SERVING_LOG)


def pad(item_idx: np.ndarray, k: int) -> np.ndarray:
    """Lists of exactly k places, empty ones 0."""
    return np.pad(item_idx[:, :k], ((0, 0), (0, max(0, k - item_idx.shape[1]))))
