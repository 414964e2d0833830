"""Fits sources (models that retrieve candidates) and the evaluation's baselines in parallel."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from threadpoolctl import threadpool_limits

from flows.runtime.configuration import RunConfig, TrainConfig
from models import registry
from models.baselines.ease import MAX_ITEMS
from models.data import TrainingData, Validation
from models.incremental import Increment
from models.queries import Source
from models.training import TrainingOptions

REFERENCE_KINDS = ("popularity", "item_knn", "ease", "ials")
"""Types of the baselines in every evaluation, even if they are not sources of the run."""


@dataclass(frozen=True)
class Job:
    """One source to fit; jobs run in threads of this process."""

    config: Any  # SourceConfig
    data: TrainingData
    validation: Validation
    """For tuning and early stopping; its queries also measure the recall of a vector index."""
    folder: Path | None
    """The source is saved in `folder/<kind>`; None: only its figures are returned."""
    frozen: dict[str, Any] | None = None
    """Choices of an earlier fit, for a refit without tuning; None: tune on `validation`."""
    base: Source | None = None
    """The trained source that an incremental training continues; None: train from the start."""
    increment: Increment | None = None
    """What is new to `base`."""


def fit_sources(jobs: Sequence[Job], config: RunConfig, cache: Path) -> list[dict[str, Any]]:
    """Fit each job in a separate Prefect task, `config.train.parallel` at a time, in this order.

    Returns:
        The figures of each job, in the same order.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=config.train.parallel)
    # One BLAS thread per model: with more, parallel models wait for each other. iALS, which has
    # many small matrix products, would take four times the processor time.
    with threadpool_limits(limits=1, user_api="blas"):
        return sources_flow.with_options(task_runner=runner)(
            quote(jobs), config.seed, config.train.model_dump_json(), str(cache)
        )


@flow(name="train-sources", log_prints=True, validate_parameters=False)
def sources_flow(jobs: Any, seed: int, train: str, cache: str) -> list[dict[str, Any]]:
    """Fit all jobs in parallel tasks; return their figures."""
    futures = [
        fit_source.with_options(name=f"fit {job.config.kind}").submit(
            quote(job), seed, train, cache
        )
        for job in unquoted(jobs)
    ]
    return [future.result() for future in futures]


def in_order(sources: Sequence[Any]) -> list[Any]:
    """Sort sources: learned ones first, because they take longest."""
    return sorted(sources, key=lambda source: source.kind in registry.BASELINES)


def reference_kinds(config: RunConfig) -> tuple[str, ...]:
    """Return the types of the evaluation's baselines.

    If lists may repeat items that a user has had, `personal` is one of them.
    """
    repeats = config.data.repeat_after is not None
    return (*REFERENCE_KINDS, "personal") if repeats else REFERENCE_KINDS


def reference_sources(config: RunConfig, *, num_items: int) -> list[Any]:
    """Return the configs of the evaluation's baselines: those of the run, otherwise the defaults.

    EASE is left out if the catalogue is too large for it.
    """
    named = {source.kind: source for source in config.train.sources}
    wanted = reference_kinds(config)
    kinds = [
        source_type for source_type in wanted if source_type != "ease" or num_items <= MAX_ITEMS
    ]
    if len(kinds) < len(wanted):
        print(
            f"train: EASE is left out of the baselines: its dense inverse of {num_items:,} items"
            " would be too large"
        )
    return [
        named.get(source_type) or registry.parse_source(json.dumps({"kind": source_type}))
        for source_type in kinds
    ]


def unquoted(value: Any) -> Any:
    """Remove Prefect's `quote` from a value, if it still has it."""
    return value.unquote() if isinstance(value, quote) else value


@task(cache_policy=NO_CACHE, persist_result=False)
def fit_source(quoted: Any, seed: int, train: str, cache: str) -> dict[str, Any]:
    """Fit one source and save it; return its figures.

    Args:
        quoted: the Job, quoted so that Prefect doesn't inspect it.
        train: TrainConfig as JSON.
        cache: folder for expensive results such as text vectors.
    """
    job: Job = unquoted(quoted)
    config = TrainConfig.model_validate_json(train)
    started = time.perf_counter()
    options = TrainingOptions(
        device=config.device,
        seed=seed,
        num_threads=config.threads,
        cache=Path(cache),
        index=config.index,
    )
    figures: dict[str, Any] = {}
    if job.base is not None and job.increment is not None:
        source = registry.advance(
            job.base,
            job.config,
            job.data,
            options,
            frozen=job.frozen or {},
            increment=job.increment,
        )
        figures["how"] = registry.how_advanced(job.config.kind, source)
    elif job.frozen is None:
        source = registry.fit(job.config, job.data, job.validation, options)
        figures["validation_ndcg@10"] = round(job.validation.ndcg(source), 4)
        figures["frozen"] = registry.frozen(source)
    else:
        source = registry.refit(job.config, job.data, options, frozen=job.frozen)
    figures |= getattr(source, "notes", {})
    if job.folder is not None:
        path = job.folder / job.config.kind
        path.mkdir(parents=True)
        source.save(path)
    figures["seconds"] = round(time.perf_counter() - started, 1)
    index = getattr(source, "index", None)
    if index is not None:
        queries = source.query_vectors(job.validation.ticks[0][0])
        figures["index"] = index.kind
        figures["index_recall@100"] = round(float(index.measure_recall(queries, k=100)), 4)
    events = len(job.data.item_idx)
    print(
        f"{job.config.kind}{'' if job.frozen is None else ' again'}, {events:,} events: {figures}"
    )
    return figures
