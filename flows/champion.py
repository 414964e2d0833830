"""The champion as the test window may judge it: its recipe, fitted on what came before."""

import shutil

from flows.assemble import JudgedTick, World, as_validation, training_data
from flows.refit import refit_jobs
from flows.runs import Run
from flows.train_sources import fit_sources
from models.recommend.recommender import Recommender
from shortlist.config import Settings
from shortlist.feature_store import FeatureReader
from shortlist.pack import FeaturePack
from shortlist.release import Release, ReleaseError, ReleaseStore


def load_champion(
    settings: Settings,
    run: Run,
    world: World,
    ticks: list[JudgedTick],
    reader: FeatureReader,
    *,
    pack: FeaturePack,
) -> Recommender | None:
    """The release that serves now, or None with a printed reason: there is none, its catalogue is
    another, or its ranker has learned from the test window.
    """
    store = ReleaseStore(settings.releases)
    if store.current_id() is None:
        print("evaluate: no champion yet; the gate is recent popularity")
        return None
    try:
        release = store.open()
        champion = Recommender.load(release, reader, pack=pack)
        if champion.catalogue.vocab.ids != world.catalogue.vocab.ids:
            raise ReleaseError(
                f"release {champion.release_id} knows {champion.catalogue.num_items} items, the"
                f" lake has {world.catalogue.num_items}: not the same catalogue"
            )
        if not _has_seen(release, world):
            return champion
    except (ReleaseError, ValueError) as error:
        print(f"evaluate: the champion cannot be compared ({error}); the gate is recent popularity")
        return None
    folder = run.path / "backtest" / "champion"
    shutil.rmtree(folder, ignore_errors=True)
    data = training_data(world, champion.profiles, end=world.windows["test"][0])
    jobs = refit_jobs(release.about["recipe"], data, as_validation(ticks), folder)
    print(f"evaluate: fitting the recipe of {champion.release_id} on what came before the window")
    config = run.config.model_copy(update={"seed": release.about["seed"]})
    fit_sources(jobs, config, settings.cache)
    return Recommender.from_folder(
        release.path, release.about, reader, pack=pack, release=release, sources=folder
    )


def _has_seen(release: Release, world: World) -> bool:
    """Whether a source of the release was fitted on events of the test window.

    Raises:
        ReleaseError: its ranker was; a ranker isn't fitted again.
    """
    fitted = release.about.get("fitted")
    if fitted is None:  # an earlier version, which did not refit
        return False
    start = world.windows["test"][0]
    if fitted["ranker"]["until"] > start:
        raise ReleaseError(
            f"the ranker of release {release.release_id} has learned from the test window"
        )
    return any(fitted[name]["until"] > start for name in release.about["sources"])
