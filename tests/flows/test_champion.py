"""Champion and challenger are compared by their recipes, even if the catalogue has grown."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from flows.evaluation.champion import find_champion, fit_recipe, judge_champion
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import RunData, load_run_data
from flows.training.refit import Recipe
from flows.training.windows import read_windows
from models.recommend.loading import load_chain
from shortlist.config import Settings
from shortlist.releases.release import ReleaseStore
from tests.conftest import WORLD_TOML, shortlist, write_world

GOOD = """{{ kind = "item_knn"{knn} }}, {{ kind = "ials" }}, {{ kind = "recent_popularity" }}"""
TOML = (
    WORLD_TOML.split("[train]")[0]
    + """
[train]
sources = [{sources}]
rankers = [{{ kind = "lambdamart", num_rounds = 40 }}, {{ kind = "deepfm" }}]
candidates_per_source = 20
"""
)
WORSE = '{ kind = "popularity" }, { kind = "recent_popularity" }'
CHAIN = {
    "candidate_sources": ["item_knn", "recent_popularity"],
    "score_sources": ["item_knn", "recent_popularity"],
}
FROZEN = {"item_knn": {"neighbours": 20}, "recent_popularity": {"days": 7}, "ials": {"dim": 8}}


def config(knn: str = "", **more) -> RunConfig:
    content = tomllib.loads(TOML.format(folder="nowhere", sources=GOOD.format(knn=knn)))
    return RunConfig.model_validate(content | more)


def recipe(
    config: RunConfig, *, ranker: str | None = "lambdamart", frozen: dict = FROZEN, **chain
) -> Recipe:
    return Recipe.of(config, chain=CHAIN | chain, ranker=ranker, frozen=frozen)


def test_a_recipe_is_what_the_chain_uses_and_how():
    first = recipe(config())
    assert [source.kind for source in first.sources] == ["item_knn", "recent_popularity"]
    assert [ranker.kind for ranker in first.rankers] == ["lambdamart"]
    assert first.frozen.keys() == {"item_knn", "recent_popularity"}
    assert recipe(config(seed=1)).hash == first.hash
    assert recipe(config(), frozen=FROZEN | {"item_knn": {}}).hash == first.hash
    assert recipe(config(", neighbours = [20]")).hash != first.hash
    assert recipe(config(), ranker=None).hash != first.hash
    assert recipe(config(), rerank={"kind": "mmr", "strength": 0.5}).hash != first.hash
    popular = ["recent_popularity"]
    only = recipe(config(), candidate_sources=popular, score_sources=popular)
    assert [source.kind for source in only.sources] == ["item_knn", "recent_popularity"]
    assert [source.kind for source in only.in_chain] == popular
    # Here ItemKNN only explains recommendations, so its settings affect no list.
    other = recipe(config(", neighbours = [5]"), candidate_sources=popular, score_sources=popular)
    assert other.hash == only.hash


@pytest.mark.parametrize("kind", ["blend", "stack"])
def test_a_recipe_keeps_the_members_of_its_ranker(kind):
    """Their settings decide the lists: they are fitted again with them, and count in the hash."""
    members = {"blend": ["lambdamart", "deepfm"], "stack": ["deepfm"]}[kind]
    combined = {"kind": kind, "members": members}

    def of(dim: int) -> Recipe:
        content = config().model_dump(mode="json")
        deepfm = {"kind": "deepfm", "embedding_dim": dim}
        rankers = [{"kind": "lambdamart"}, {"kind": "dcnv2"}, deepfm, combined]
        return recipe(
            RunConfig.model_validate(content | {"train": content["train"] | {"rankers": rankers}}),
            ranker=kind,
        )

    assert [ranker.kind for ranker in of(4).rankers] == [*members, kind]
    assert of(4).hash != of(8).hash


def serving(folder: Path, about: dict) -> ReleaseStore:
    store = ReleaseStore(folder)
    with store.publishing(about) as (path, about):
        (path / "weights.txt").write_text("weights")
    store.promote(about["release_id"])
    return store


def test_the_champions_recipe_is_read_from_its_manifest(tmp_path):
    own = recipe(config())
    assert find_champion(ReleaseStore(tmp_path / "empty"), own)[0].status == "none"
    about = {"recipe": json.loads(json.dumps(own.to_json()))}
    store = serving(tmp_path / "releases", about)
    assert find_champion(store, own)[0].status == "unchanged"
    champion, found = find_champion(store, recipe(config(", neighbours = [20]")))
    assert (champion.status, champion.release_id, found) == ("compared", store.current_id(), own)


def without_recipe(content: dict) -> None:
    del content["recipe"]


def of_another_version(content: dict) -> None:
    content["recipe"]["sources"][0]["kind"] = "fortune_teller"


def without_choices(content: dict) -> None:
    del content["recipe"]["frozen"]["item_knn"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_recipe, "its manifest has no recipe"),
        (of_another_version, "fortune_teller"),
        (without_choices, "no configuration or no choices of item_knn"),
    ],
)
def test_a_champion_that_this_version_cannot_fit_says_why(tmp_path, change, says):
    own = recipe(config())
    about = {"recipe": own.to_json()}
    change(about)
    champion, found = find_champion(serving(tmp_path, about), own)
    assert (champion.status, found) == ("untrainable", None)
    assert says in champion.reason


class Shop:
    """A home whose catalogue can grow, with runs of different recipes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.world = write_world(folder / "world")
        self.settings = Settings(home=folder / "home")

    def run(self, sources: str) -> tuple[dict, dict]:
        path = self.folder / "run.toml"
        path.write_text(TOML.format(folder=self.world, sources=sources))
        command = ("run", str(path), "--no-monitor", "--json")
        done = shortlist(*command, home=self.settings.home, timeout=900)
        assert done.stdout, done.stderr[-3_000:]
        summary = json.loads(done.stdout)
        run = Run.open(self.settings, summary["run_id"])
        return summary, run.read("evaluation.json", made_by="evaluate")


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def runs(shop) -> list[tuple[dict, dict]]:
    """Three runs: a good recipe, a worse one after the catalogue has grown, the good one again."""
    good = GOOD.format(knn="").replace("{{", "{").replace("}}", "}")
    first = shop.run(good)
    with (shop.world / "items.csv").open("a") as file:
        file.write("i999,A new comedy,comedy,2019\r\n")
    return [first, shop.run(WORSE), shop.run(good)]


def gate(summary: dict, name: str) -> dict:
    return next(gate for gate in summary["gates"] if gate["name"] == name)


def test_recipes_are_compared_although_the_catalogue_has_grown(runs, shop):
    (first, before), (second, evaluation), _ = runs
    assert first["promoted"]
    assert before["champion"]["status"] == "none"
    assert evaluation["champion"]["status"] == "compared"
    assert evaluation["champion"]["release_id"] == first["release_id"]
    ahead = evaluation["chain_ahead"]["champion"]["ndcg@10"]
    assert ahead["users"] == evaluation["n_users"]
    run = Run.open(shop.settings, second["run_id"])
    assert "i999" in set(run.items.column("item_id").to_pylist())
    # Only sources that the run's own recipe doesn't contain are fitted for the champion.
    fitted = {path.name for path in (run.path / "backtest/champion/sources").iterdir()}
    champion = ReleaseStore(shop.settings.releases).open(first["release_id"]).about["chain"]
    used = {*champion["candidate_sources"], *champion["score_sources"]}
    assert fitted == used - {"recent_popularity"}


def test_a_worse_challenger_is_refused(runs):
    second, evaluation = runs[1]
    ahead = evaluation["chain_ahead"]["champion"]["ndcg@10"]
    assert ahead["mean"] < 0
    assert not second["promoted"]
    refused = gate(second, "quality")
    assert not refused["passed"]
    assert "against champion" in refused["reason"]
    assert not gate(second, "loss budget")["passed"]


def test_an_unchanged_recipe_passes_without_comparison(runs, shop):
    (first, _), _, (third, evaluation) = runs
    assert evaluation["champion"]["status"] == "unchanged"
    assert "champion" not in evaluation["metrics"]
    assert third["promoted"]
    assert (
        f"the recipe is that of release {first['release_id']}" in gate(third, "quality")["reason"]
    )
    assert ReleaseStore(shop.settings.releases).current_id() == third["release_id"]


@pytest.fixture
def last(runs, shop, monkeypatch) -> tuple[Settings, Run, RunData, Recipe]:
    """Settings, run, data and recipe of the third run, opened in this process."""
    monkeypatch.setenv("SHORTLIST_HOME", str(shop.settings.home))
    run = Run.open(shop.settings)
    own = Recipe.from_json(run.read("about.json", made_by="train")["recipe"])
    return shop.settings, run, load_run_data(shop.settings, run), own


def test_a_recipe_that_is_fitted_again_gives_the_lists_of_the_backtest(last):
    settings, run, run_data, own = last
    nothing = own.model_copy(update={"sources": ()})
    again = fit_recipe(settings, run, run_data, own, challenger=nothing)
    assert {path.name for path in (run.path / "backtest/champion/sources").iterdir()} == set(
        again.sources
    )
    about = run.read("about.json", made_by="train")
    backtest = load_chain(run.staging, about, sources=run.backtest)
    ticks, _ = read_windows(settings, run_data, run.config, windows=("test",))
    for tick in ticks["test"]:
        found, wanted = (
            tick.over(chain).rank(tick.queries, tick.items, k=10) for chain in (again, backtest)
        )
        np.testing.assert_array_equal(found.item_idx, wanted.item_idx)
        np.testing.assert_allclose(found.score, wanted.score, rtol=1e-5)


def test_a_recipe_that_the_data_refuses_is_untrainable(last, monkeypatch):
    """A champion whose recipe can't be fitted on the data has the status `untrainable`."""
    settings, run, run_data, own = last
    monkeypatch.setattr("models.baselines.ease.MAX_ITEMS", 10)
    ease = json.loads(json.dumps(own.to_json()))
    ease["sources"].append({"kind": "ease"})
    ease["frozen"]["ease"] = {}
    ease["chain"]["candidate_sources"].append("ease")
    store = ReleaseStore(settings.releases)
    before = store.open().release_id
    serving(settings.releases, {"recipe": ease})
    try:
        champion, chain = judge_champion(settings, run, run_data, own)
    finally:
        store.promote(before)
    assert (champion.status, chain) == ("untrainable", None)
    assert "ease: 61 items, want at most 10" in champion.reason
