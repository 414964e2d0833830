"""Train the sources side by side: retrieval, sequence and content models, and the baselines."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from threadpoolctl import threadpool_limits

from flows.configuration import RunConfig
from flows.runs import Run
from models import registry
from models.baselines.ease import MAX_ITEMS
from models.data import TrainingData, Validation
from models.training import TrainingOptions
from shortlist.config import Settings

REFERENCE_KINDS = ("item_knn", "ease", "ials")
"""Baselines of the table that learn parameters, whether the run names them as sources or not:
fitted again on everything before validation, so that the chain is never compared with a baseline
that has seen less than the chain's ranker.
"""


@dataclass(frozen=True)
class Prepared:
    """All that the tasks of one training share; it stays in this process."""

    data: TrainingData
    reference_data: TrainingData
    validation: Validation


def train_sources(
    run: Run, config: RunConfig, prepared: Prepared, *, cache: Path
) -> dict[str, dict[str, Any]]:
    """Fit every source in its own task, `config.train.parallel` at a time, longest first."""
    runner: Any = ThreadPoolTaskRunner(max_workers=config.train.parallel)
    flow_of_sources = sources_flow.with_options(task_runner=runner)
    # One BLAS thread a model: two models with two threads each wait for one another. iALS, with
    # its many small products, takes four times the processor time otherwise.
    with threadpool_limits(limits=1, user_api="blas"):
        return flow_of_sources(run.run_id, quote(prepared), str(cache))


@flow(name="train-sources", log_prints=True, validate_parameters=False)
def sources_flow(run_id: str, prepared: Any, cache: str) -> dict[str, dict[str, Any]]:
    """Sources do not depend on each other, so they train side by side."""
    run = Run.open(Settings(), run_id)
    config = run.config
    learned = [s for s in config.train.sources if s.kind not in registry.BASELINES]
    baselines = [s for s in config.train.sources if s.kind in registry.BASELINES]
    futures = {
        source.kind: fit_source.with_options(name=f"fit {source.kind}").submit(
            source.model_dump_json(), prepared, str(run.staging / "sources"), config.seed, cache
        )
        for source in [*learned, *baselines]
    }
    references = [
        fit_source.with_options(name=f"fit {source.kind} (reference)").submit(
            source.model_dump_json(),
            prepared,
            str(run.references),
            config.seed,
            cache,
            reference=True,
        )
        for source in reference_sources(config, num_items=bundle_of(prepared).data.num_items)
    ]
    for future in references:
        future.result()
    return {name: future.result() for name, future in futures.items()}


def reference_sources(config: RunConfig, *, num_items: int) -> list[Any]:
    """The table's baselines as the run configures them, with their defaults where it does not."""
    named = {source.kind: source for source in config.train.sources}
    kinds = [kind for kind in REFERENCE_KINDS if kind != "ease" or num_items <= MAX_ITEMS]
    if len(kinds) < len(REFERENCE_KINDS):
        print(f"train: no EASE in the table: {num_items:,} items, its inverse is dense")
    return [named.get(kind) or registry.parse_source(json.dumps({"kind": kind})) for kind in kinds]


def bundle_of(prepared: Any) -> Prepared:
    """Prefect hands a quoted value on as it is in some places and unwrapped in others."""
    return prepared.unquote() if isinstance(prepared, quote) else prepared


@task(cache_policy=NO_CACHE, persist_result=False)
def fit_source(
    source_json: str,
    prepared: Any,
    folder: str,
    seed: int,
    cache: str,
    reference: bool = False,
) -> dict[str, Any]:
    """Fit one source, save it under `folder/<kind>`, and say how good it is on validation."""
    bundle = bundle_of(prepared)
    config = registry.parse_source(source_json)
    started = time.perf_counter()
    options = TrainingOptions(seed=seed, num_threads=1, cache=Path(cache))
    data = bundle.reference_data if reference else bundle.data
    source = registry.fit(config, data, bundle.validation, options)
    path = Path(folder) / config.kind
    path.mkdir(parents=True)
    source.save(path)
    figures: dict[str, Any] = {
        "validation_ndcg@10": round(bundle.validation.ndcg(source), 4),
        "seconds": round(time.perf_counter() - started, 1),
    }
    index = getattr(source, "index", None)
    if index is not None:
        queries = source.query_vectors(bundle.validation.ticks[0][0])
        figures["index"] = index.kind
        figures["index_recall@100"] = round(float(index.measure_recall(queries, k=100)), 4)
    note = " on everything before validation, for the table" if reference else ""
    print(f"{config.kind}{note}: {figures}")
    return figures
