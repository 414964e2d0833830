"""Incremental training: continues the sources of the serving release on the events after it.

Neural sources are trained further on the new events and a sample of older ones; sources in closed
form are fitted again on all events with the choices of the last full training; the content source
gets the new items. The chain, its ranker and the encoder of user attributes are reused.

The sources are trained twice. The backtest's learn from the older part of the new events and are
compared with the serving release on the newer part, which neither knows. The release's learn from
all events.
"""

import json
import shutil
from typing import Any

import numpy as np

from flows.runtime.base import Base, NothingNew
from flows.runtime.runs import Run
from flows.training.assemble import RunData, as_validation, load_run_data, training_data
from flows.training.judgeable import require_judgeable
from flows.training.refit import Recipe, fitted_on, refit_figures, trained_on
from flows.training.sources import Job, fit_sources, in_order
from flows.training.windows import read_windows
from models import registry
from models.incremental import Increment
from models.recommend.loading import load_chain
from shortlist.config import Settings
from shortlist.moments import moment_text
from shortlist.splits import SplitError


def empty_folders(run: Run) -> None:
    """Remove what an earlier training of the run left, and create the folders of the models."""
    run.evaluated_requests.unlink(missing_ok=True)
    for folder in (run.staging, run.trial, run.backtest, run.references):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def train_incrementally(
    settings: Settings, run: Run, *, increment: Increment | None = None
) -> dict[str, Any]:
    """Do the work of `flows.train.train` for an incremental run; return the same keys.

    Args:
        increment: how sources learn; None: the defaults.

    Raises:
        NothingNew: the newest events have no request by which the increment could be compared.
    """
    base = run.base(settings)
    assert base is not None, "the run is incremental"
    config = run.config
    about = {key: value for key, value in base.release.about.items() if key != "release_id"}
    run_data = load_run_data(settings, run)
    try:
        require_judgeable(run_data, config, windows=("test",))
    except SplitError as error:
        problem = str(error).split(": ")[-1].split(". ")[0]
        raise NothingNew(
            f"the newest half of the events since {moment_text(base.data_end)} can't be judged:"
            f" {problem}; wait for more events"
        ) from None
    before = load_chain(base.release.path, about, sources=base.release.path / "sources")
    ticks, profiles = read_windows(
        run.states(settings), run_data, config, windows=("test",), profiles=before.profiles
    )
    validation = as_validation(ticks["test"])  # only for the recall of the vector indexes
    empty_folders(run)
    run_data.catalogue.save(run.staging / "items.parquet")
    for name in ("profiles.json", "ranker"):
        _copy(base, name, run)
    recipe = Recipe.from_json(about["recipe"])
    increment = increment or Increment(since=base.data_end)
    print(f"train: continues release {base.release.release_id}: {_news(run_data, base)}")
    jobs = [
        Job(
            source,
            training_data(run_data, profiles, end=end),
            validation,
            folder,
            recipe.frozen[source.kind],
            base=before.sources[source.kind],
            increment=increment,
        )
        for end, folder in (
            (run_data.windows["test"][1], run.staging / "sources"),
            (run_data.windows["test"][0], run.backtest),
        )
        for source in in_order(recipe.sources)
    ]
    figures = fit_sources(jobs, config, settings.cache)[: len(recipe.sources)]
    refitted = {job.config.kind: figure for job, figure in zip(jobs, figures, strict=False)}
    run.write(
        "about.json",
        about
        | {
            "fitted": fitted_incrementally(
                run_data, base, {kind: figure["how"] for kind, figure in refitted.items()}
            ),
            "training": {
                "mode": "incremental",
                "base": base.release.release_id,
                "since": base.data_end,
                "increments": about["training"].get("increments", 0) + 1,
                "full": about["training"].get("full", base.release.release_id),
                "full_data_end": about["training"].get("full_data_end", base.data_end),
            },
            "refit": refit_figures(refitted),
            "windows": run_data.windows.to_json(),
            "data_end": run.data_end,
        },
    )
    return {
        "sources": refitted,
        "ranker": about["ranker"],
        "chain": about["chain"],
        "data": trained_on(jobs[0].data),
    }


def fitted_incrementally(
    run_data: RunData, base: Base, sources: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Return {part of the release: what it was fitted on, how, and from which release it started}.

    Args:
        sources: {source: what was done with it, see `registry.how_advanced`}.

    The entries are those of `fitted_on`, with `how`, and `started_from` for parts of the base.
    """
    before, release_id = base.release.about["fitted"], base.release.release_id
    fitted = fitted_on(run_data, list(sources))
    new = int(np.count_nonzero(run_data.time >= base.data_end))
    for kind, how in sources.items():
        fitted[kind]["how"] = how
        if how == registry.CONTINUED:
            fitted[kind] |= {"started_from": release_id, "new_events": new}
        if how == registry.EXTENDED:
            fitted[kind] = before[kind] | {"how": how, "started_from": release_id}
    for part in ("ranker", "profiles"):
        fitted[part] = before[part] | {"how": "reused", "started_from": release_id}
    return fitted


def _copy(base: Base, name: str, run: Run) -> None:
    """Copy a file or folder of the base into the staged release, if the base has it."""
    source = base.release.file(name)
    if source.is_dir():
        shutil.copytree(source, run.staging / name)
    elif source.is_file():
        shutil.copy(source, run.staging / name)


def _news(run_data: RunData, base: Base) -> str:
    """Describe what is new since the base."""
    before = run_data.before(base.data_end)
    new = run_data.interactions.slice(before.num_rows)
    users = set(new.column("user_id").to_pylist())
    known = set(before.column("user_id").to_pylist())
    return json.dumps(
        {
            "events": new.num_rows,
            "users": len(users),
            "new users": len(users - known),
            "new items": run_data.catalogue.num_items - base.catalogue.num_items,
        }
    )
