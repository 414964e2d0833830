"""Compares champion and challenger: both recipes are fitted on the run's windows and evaluated on
the same requests.

The champion is the serving release; the challenger is the result of this run. A recipe is the
configuration from which a chain is fitted. Released models can't be compared: they have seen the
test window, and their catalogue may be older than the run's. The champion's recipe is read from its
manifest. Models that the run has already fitted with the same configuration are reused.

An incremental run is different: its test window has only events that the champion doesn't know, so
the champion is compared as it serves.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flows.runtime.runs import Run
from flows.training.assemble import RunData, as_validation, training_data
from flows.training.ranking_data import RankingWindows, fit_rankers, gather, ranker_options
from flows.training.refit import Recipe, refit_jobs
from flows.training.sources import fit_sources
from flows.training.windows import read_windows
from models import registry
from models.ranking.protocol import Ranker
from models.ranking.value_heads import ValueHeadsConfig
from models.recommend.chain import Chain
from models.recommend.loading import load_served
from models.registry import SourceConfig
from shortlist.config import Settings, describe
from shortlist.releases.release import ReleaseError, ReleaseStore

CHAMPION = "champion"


@dataclass(frozen=True)
class Champion:
    """The release that was serving during the evaluation, and how it was compared."""

    release_id: str | None
    status: Literal["none", "unchanged", "compared", "untrainable"]
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge_champion(
    settings: Settings, run: Run, run_data: RunData, challenger: Recipe
) -> tuple[Champion, Chain | None]:
    """Fit the recipe of the serving release on the run's windows.

    An incremental run is compared with its base as it serves; nothing is fitted.

    Args:
        challenger: the recipe of this run.

    Returns:
        The champion, and its chain for the test window. The chain is None if there is nothing to
        compare: no release serves, its recipe is unchanged, or it can't be fitted.
    """
    if run.is_incremental:
        return served_champion(settings, run, run_data)
    champion, recipe = find_champion(ReleaseStore(settings.releases), challenger)
    if recipe is None:
        return champion, None
    print(f"evaluate: fitting the recipe of release {champion.release_id} on the run's windows")
    try:
        return champion, fit_recipe(settings, run, run_data, recipe, challenger=challenger)
    except ValueError as error:  # for example, EASE refuses a catalogue that is too large
        reason = f"the recipe of release {champion.release_id} can't be fitted: {error}"
        return replace(champion, status="untrainable", reason=reason), None


def served_champion(settings: Settings, run: Run, run_data: RunData) -> tuple[Champion, Chain]:
    """Return the base of an incremental run as it serves, for the run's test window.

    The base doesn't know the events of this window.
    """
    base = run.base(settings)
    assert base is not None, "the run is incremental"
    release = base.release
    reason = f"with release {release.release_id} as it serves, which doesn't know these events"
    champion = Champion(release.release_id, "compared", reason)
    return champion, load_served(release, run_data.catalogue)


def find_champion(store: ReleaseStore, challenger: Recipe) -> tuple[Champion, Recipe | None]:
    """Return the serving release, and its recipe; None if it need not or can't be compared."""
    release_id = store.current_id()
    if release_id is None:
        return Champion(None, "none", "no release serves yet"), None
    try:
        about = store.open().about
        if "recipe" not in about:
            raise ReleaseError("its manifest has no recipe; an earlier version made it")
        recipe = Recipe.from_json(about["recipe"])
    except ValidationError as error:
        problems = "; ".join(describe(problem) for problem in error.errors())
        reason = f"release {release_id}: this version can't read its recipe: {problems}"
        return Champion(release_id, "untrainable", reason), None
    except ReleaseError as error:
        return Champion(release_id, "untrainable", f"release {release_id}: {error}"), None
    if recipe.hash == challenger.hash:
        reason = f"the recipe is that of release {release_id}, fitted on newer data"
        return Champion(release_id, "unchanged", reason), None
    return Champion(release_id, "compared", f"with the recipe of release {release_id}"), recipe


def fit_recipe(
    settings: Settings, run: Run, run_data: RunData, recipe: Recipe, *, challenger: Recipe
) -> Chain:
    """Fit a recipe and return its chain for the test window.

    The ranker is trained on the second window with sources fitted on the first. Then the sources
    are refitted on everything before the test window.

    Args:
        recipe: the champion's recipe.
        challenger: the run's own recipe; models that are the same in both are reused.
    """
    config, windows = run.config, run_data.windows
    windows_read = ("ranker_train", "validation")
    if any(isinstance(ranker, ValueHeadsConfig) for ranker in recipe.rankers):
        run_data = replace(run_data, reads_outcomes=True)
    ticks, profiles = read_windows(
        run.states(settings), run_data, config, windows=windows_read, rankers=recipe.rankers
    )
    validation = as_validation(ticks["validation"])
    folder = run.path / "backtest" / CHAMPION
    shutil.rmtree(folder, ignore_errors=True)
    wanted = recipe.in_chain
    for_ranker = wanted if recipe.ranker is not None else []
    new_trials = [source for source in for_ranker if source not in config.train.sources]
    new_sources = [
        source
        for source in wanted
        if source not in challenger.sources
        or recipe.frozen[source.kind] != challenger.frozen[source.kind]
    ]
    parts = (
        (new_trials, windows["retrieval_train"][1], folder / "trial"),
        (new_sources, windows["test"][0], folder / "sources"),
    )
    jobs = [
        job
        for sources, end, path in parts
        for job in refit_jobs(
            sources,
            training_data(run_data, profiles, end=end),
            validation,
            path,
            frozen=recipe.frozen,
        )
    ]
    if jobs:
        fit_sources(jobs, config, settings.cache)

    def chain(
        new: list[SourceConfig], folder: Path, fitted: Path, ranker: Ranker | None = None
    ) -> Chain:
        sources = {
            source.kind: registry.load(
                source.kind, (fitted if source in new else folder) / source.kind, run_data.catalogue
            )
            for source in wanted
        }
        return Chain(
            recipe.chain,
            sources=sources,
            ranker=ranker,
            catalogue=run_data.catalogue,
            profiles=profiles,
        )

    ranker = None
    if recipe.ranker is not None:
        trial = chain(new_trials, run.trial, folder / "trial")
        window = RankingWindows.of(
            trial, ticks, {name: gather(trial, ticks[name]) for name in ticks}
        )
        ranker = fit_rankers(recipe.rankers, window, ranker_options(config)).get(recipe.ranker)
        if ranker is None:
            raise ValueError(f"its ranker {recipe.ranker} can't be trained on the run's windows")
    return chain(new_sources, run.backtest, folder / "sources", ranker)
