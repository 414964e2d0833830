"""Train: fits sources and rankers, chooses the chain, and refits its sources on more data.

An incremental run continues the serving release instead (flows/training/incremental.py).

Sources are models that retrieve candidates. They are fitted on the first window of the data, and
rankers on the sources' candidates in the second. The chain is the combination of sources and ranker
that answers requests. It is chosen on validation, the third window.
"""

import json
from typing import Any

from prefect import flow, task
from prefect.cache_policies import CachePolicy

from flows.runtime.base import learned_with
from flows.runtime.memory import release_memory
from flows.runtime.retries import step_options
from flows.runtime.runs import Run
from flows.training.assemble import as_validation, load_run_data, training_data
from flows.training.incremental import empty_folders, train_incrementally
from flows.training.judgeable import require_judgeable
from flows.training.refit import Recipe, fitted_on, refit_figures, refit_jobs, trained_on
from flows.training.reuse import adopt, cache_key, record_key, trained_before
from flows.training.sources import Job, fit_sources, in_order, reference_sources
from flows.training.train_ranking import train_ranking
from flows.training.windows import read_windows
from models import registry
from shortlist.config import Settings
from shortlist.features.finalize import ITEM_SERVICE, REQUEST_SERVICE, schema_hash
from shortlist.home.home_lock import home_lock


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


def train(settings: Settings, run: Run, *, baselines: bool = True) -> dict[str, Any]:
    """Do the work of `train_flow`, without Prefect and without the lock.

    A retry starts from the beginning, on the same frozen data.

    Args:
        baselines: also fit the baselines of the evaluation.

    Returns:
        {"sources": figures of each source, "ranker": type of the chosen ranker, "chain": its
        config, "data": number of items, users and events of the release's training data}.
    """
    if run.is_incremental:
        return train_incrementally(settings, run)
    config = run.config
    run_data = load_run_data(settings, run)
    require_judgeable(run_data, config)
    windows_read = ("ranker_train", "validation")
    ticks, profiles = read_windows(
        run.states(settings), run_data, config, windows=windows_read, rankers=config.rankers
    )
    edges = run_data.windows
    data = training_data(run_data, profiles, end=edges["retrieval_train"][1])
    validation = as_validation(ticks["validation"])
    print(
        f"train: {len(data.item_idx):,} events of {data.num_users:,} users,"
        f" {data.num_items:,} items; requests: "
        + ", ".join(f"{sum(len(t.queries) for t in v):,} {name}" for name, v in ticks.items())
    )
    empty_folders(run)
    run_data.catalogue.save(run.staging / "items.parquet")
    (run.staging / "profiles.json").write_text(json.dumps(profiles.to_json()))
    # Tune the evaluation's baselines on everything before validation, so that no baseline has less
    # data than the chain's ranker.
    tuning = training_data(run_data, profiles, end=edges["ranker_train"][1])
    num_items = run_data.catalogue.num_items
    references = reference_sources(config, num_items=num_items) if baselines else []
    trials = [Job(s, data, validation, run.trial) for s in in_order(config.train.sources)]
    figures = fit_sources(
        [*trials, *(Job(s, tuning, validation, None) for s in references)], config, settings.cache
    )
    trial = {job.config.kind: figure for job, figure in zip(trials, figures, strict=False)}
    tuned = dict(zip((s.kind for s in references), figures[len(trials) :], strict=True))
    sources = {
        source.kind: registry.load(source.kind, run.trial / source.kind, run_data.catalogue)
        for source in config.train.sources
    }
    release_memory()
    about = train_ranking(settings, run, config, run_data, profiles, sources, ticks)
    release_memory()
    recipe = Recipe.of(
        config,
        chain=about["chain"],
        ranker=about["ranker"],
        frozen={source_type: figure["frozen"] for source_type, figure in trial.items()},
    )
    chosen = [source.kind for source in recipe.sources]
    before_test = training_data(run_data, profiles, end=edges["test"][0])
    released = training_data(run_data, profiles, end=edges["test"][1])
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
    refitted = {job.config.kind: figure for job, figure in zip(release_jobs, figures, strict=False)}
    about |= {
        "dataset": config.name,
        "clock": config.data.clock,
        "tick": config.tick,
        "target_events": list(config.data.target_events),
        "wording": config.data.wording,
        "feature_schema": schema_hash(),
        "feature_services": [REQUEST_SERVICE, ITEM_SERVICE],
        "sources": {source_type: source_type for source_type in chosen},
        "source_figures": trial,
        "refit": refit_figures(refitted),
        "fitted": fitted_on(run_data, chosen),
        "training": {"mode": "full"},
        "learned_with": learned_with(config),
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
        "data": trained_on(released),
    }
