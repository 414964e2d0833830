"""Incremental training: what may be continued, on which windows, and a whole run of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.main import app
from flows.evaluation.off_policy import wanted_lists
from flows.judge_off_policy import judge_run
from flows.runtime.base import Base, IncrementalError, NothingNew, find_base, learned_with
from flows.runtime.configuration import RunConfig, load_run_config
from flows.runtime.freezing import STATES
from flows.runtime.runs import Run
from flows.training.assemble import load_run_data
from models.recommend.chain import Chain
from models.recommend.loading import load_chain
from monitoring.off_policy.compare import CHALLENGER
from monitoring.off_policy.served import Served
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.features.finalize import schema_hash
from shortlist.items.catalogue import Catalogue
from shortlist.lake.leases import lease_holders, take_lease
from shortlist.releases.release import Release, ReleaseStore
from tests.conftest import ANY_GATES, shortlist
from tests.flows.conftest import ROOT_TOML, about, publish


@pytest.fixture
def config(tmp_path) -> RunConfig:
    path = tmp_path / "tiny.toml"
    path.write_text(ROOT_TOML)
    return load_run_config(path)


def manifest(config: RunConfig) -> dict[str, Any]:
    return about() | {
        "dataset": config.name,
        "feature_schema": schema_hash(),
        "learned_with": json.loads(json.dumps(learned_with(config))),
    }


def test_without_a_serving_release_it_asks_for_a_full_training(config, tmp_path):
    settings = Settings(home=tmp_path / "home")
    wanted = r"no release serves yet.*run a full training first: `shortlist run CONFIG`"
    with pytest.raises(IncrementalError, match=wanted):
        find_base(settings, config)
    publish(ReleaseStore(settings.releases), manifest(config))  # published, but not promoted
    with pytest.raises(IncrementalError, match=wanted):
        Run.start(settings, config, incremental=True)
    assert not list(settings.runs.glob("*"))


def test_train_leaves_no_run_if_the_new_events_can_not_be_judged(config, tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    settings = Settings()
    run = Run.create(settings, config)
    (run.path / STATES).mkdir()
    run.write("lake.json", {"version": 1})
    take_lease(settings.lake, run.run_id, version=1)

    def too_few(run_id: str) -> None:
        raise NothingNew(f"{run_id}: too few events")

    monkeypatch.setattr(Run, "start", lambda *_, **__: run)
    monkeypatch.setattr("flows.train.train_flow", too_few)
    command = ["train", str(tmp_path / "tiny.toml"), "--incremental", "--verbose"]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, NothingNew)
    assert list(settings.runs.iterdir()) == []
    assert lease_holders(settings.lake) == set()


def other_name(content: dict) -> None:
    content["dataset"] = "shop"


def other_source(content: dict) -> None:
    content["learned_with"]["train"]["sources"]["popularity"]["decay"] = 3


def one_more_source(content: dict) -> None:
    content["learned_with"]["train"]["sources"]["ease"] = {"kind": "ease"}


def other_features(content: dict) -> None:
    content["feature_schema"] = "0123"


def of_earlier_code(content: dict) -> None:
    del content["learned_with"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_name, "it is of configuration 'shop', this one is 'tiny'"),
        (other_source, r"the configuration has changed: train.sources.popularity.decay is 3, here"),
        (one_more_source, r"the configuration has changed: train.sources.ease is"),
        (other_features, "its feature schema is 0123, this code has"),
        (of_earlier_code, "an earlier version made it, without its configuration"),
    ],
)
def test_a_release_that_is_trained_otherwise_is_refused_in_one_sentence(
    config, tmp_path, change, says
):
    settings, content = Settings(home=tmp_path / "home"), manifest(config)
    change(content)
    store = ReleaseStore(settings.releases)
    release_id = publish(store, content)
    store.promote(release_id)
    with pytest.raises(IncrementalError, match=says) as error:
        find_base(settings, config)
    assert str(error.value).startswith(f"release {release_id} can't be continued: ")
    assert str(error.value).endswith("run a full training: `shortlist run CONFIG`")
    assert "\n" not in str(error.value)


def test_what_does_not_change_the_models_may_change(config, tmp_path):
    settings = Settings(home=tmp_path / "home")
    store = ReleaseStore(settings.releases)
    store.promote(publish(store, manifest(config)))
    train = config.train.model_copy(update={"parallel": 7, "threads": 3})
    changed = config.model_copy(update={"train": train, "gates": tmp_path / "other.toml"})
    assert find_base(settings, changed).release.release_id == store.current_id()


EDGES = {"retrieval_train": [0, 60], "ranker_train": [60, 80]}


def base() -> Base:
    content = {"data_end": 100, "windows": EDGES}
    return Base(Release("it", Path("nowhere"), content, {}))


@given(st.lists(st.integers(0, 200), min_size=1, max_size=50).map(np.array))
def test_the_test_window_is_the_newest_part_of_what_the_base_does_not_know(times):
    new = times[times >= 100]
    assume(len(np.unique(new)) > 1)
    windows = base().windows(times)
    assert windows["retrieval_train"] == (0, 60)
    assert windows["ranker_train"] == (60, 80)
    start, end = windows["test"]
    assert windows["validation"] == (80, start)
    assert end == new.max() + 1
    assert (new < start).any()  # the backtest has something to learn from
    assert ((new >= start) & (new < end)).any()


@pytest.mark.parametrize(
    ("times", "says"),
    [([3, 99], "no target event since"), ([3, 100, 100], "all 2 target events since .* wait")],
)
def test_too_few_new_events(times, says):
    with pytest.raises(NothingNew, match=says):
        base().windows(np.array(times))


@pytest.fixture(scope="module")
def learned(served_home: Path, world_config: Path, tmp_path_factory) -> dict[str, Any]:
    """A home whose release learned from the replayed events; the catalogue has a new item."""
    folder = tmp_path_factory.mktemp("learned")
    home, world = folder / "home", folder / "world"
    shutil.copytree(served_home, home, symlinks=True)
    shutil.copytree(world_config.parent, world)
    with (world / "items.csv").open("a") as file:
        file.write("a999,A new comedy,comedy,2019\r\n")
    toml = world / world_config.name
    text = toml.read_text().replace(str(world_config.parent), str(world))
    (world / "any.toml").write_text(ANY_GATES)
    toml.write_text('gates = "any.toml"\n' + text)
    before = ReleaseStore(home / "releases").open()
    command = ("run", str(toml), "--incremental", "--no-monitor", "--json")
    done = shortlist(*command, home=home, timeout=420)
    assert done.returncode == 0, done.stderr[-5_000:]
    return {"home": home, "toml": toml, "before": before, "summary": json.loads(done.stdout)}


@pytest.fixture(scope="module")
def after(learned) -> Release:
    return ReleaseStore(learned["home"] / "releases").open()


def test_the_manifest_says_where_each_part_comes_from(learned, after):
    before = learned["before"]
    assert learned["summary"]["promoted"]
    assert after.release_id == learned["summary"]["release_id"] != before.release_id
    training, fitted = after.about["training"], after.about["fitted"]
    assert training["mode"] == "incremental"
    assert training["base"] == training["full"] == before.release_id
    assert training["since"] == before.about["data_end"] < after.about["data_end"]
    assert training["full_data_end"] == before.about["data_end"]
    for part, how in {
        "two_tower": "continued",
        "content": "extended by new items",
        "item_knn": "fitted again",
        "ranker": "reused",
        "profiles": "reused",
    }.items():
        assert fitted[part]["how"] == how
        assert ("started_from" in fitted[part]) == (part != "item_knn")
    assert fitted["two_tower"]["until"] == fitted["item_knn"]["until"] == after.about["data_end"]
    for part in ("content", "ranker", "profiles"):
        assert fitted[part]["until"] == before.about["fitted"][part]["until"]
    for key in ("recipe", "chain", "ranker", "learned_with", "seed"):
        assert after.about[key] == before.about[key]


def test_it_is_compared_with_the_release_that_serves_on_events_that_neither_knows(learned, after):
    run = Run(learned["home"] / "runs" / learned["summary"]["run_id"])
    evaluation = run.read("evaluation.json", made_by="evaluate")
    assert evaluation["champion"]["status"] == "compared"
    assert evaluation["champion"]["release_id"] == learned["before"].release_id
    assert "without_refit" not in evaluation["metrics"]
    start, _ = run.windows["test"]
    since = after.about["training"]["since"]
    assert since < start
    assert evaluation["fitted_until"]["champion"] == since
    assert evaluation["fitted_until"]["chain"] == start
    assert evaluation["rerank"]["window"] == "test"
    assert {"quality", "loss budget", "sanity: overlap"} <= {
        gate["name"] for gate in learned["summary"]["gates"]
    }


def test_it_is_judged_off_policy_against_the_release_that_it_continued(learned):
    settings = Settings(home=learned["home"])
    run = Run(settings.runs / learned["summary"]["run_id"])
    champion = judge_run(settings, run)["champion"]
    assert champion["status"] == "compared"
    assert champion["release_id"] == learned["before"].release_id


def test_logged_requests_are_ranked_with_the_encoder_of_the_chain(learned):
    """An increment keeps the encoder of its base; one that is fitted again may have other codes."""
    seen = []

    class Watched(Chain):
        def rank(self, queries, items, **options):
            seen.append(queries.profile)
            return super().rank(queries, items, **options)

    settings = Settings(home=learned["home"])
    run = Run(settings.runs / learned["summary"]["run_id"])
    about = run.read("about.json", made_by="train")
    chain = load_chain(run.staging, about, sources=run.backtest)
    values = tuple(names[::-1] for names in chain.profiles.values)
    profiles = replace(chain.profiles, values=values)
    watched = Watched(
        chain.config,
        sources=chain.sources,
        ranker=None,
        catalogue=chain.catalogue,
        profiles=profiles,
    )
    run_data = load_run_data(settings, run)
    user_ids = ["u1", "u2"]
    requests = pd.DataFrame({c.USER_ID: user_ids, "at": run.windows["test"][0] + 1})
    requests = requests.assign(**{c.SURFACE: "home", c.DEVICE: "phone"})
    served = replace(Served.nothing(k=5), requests=requests)
    wanted = wanted_lists(settings, run, run_data, served, {CHALLENGER: watched}, k=5)
    assert (wanted[CHALLENGER] > 0).all()
    codes = profiles.encode(run_data.attributes[user_id] for user_id in user_ids)
    assert np.concatenate(seen).tolist() == codes.tolist() == [[2], [1]]


def test_new_items_follow_those_of_the_base_and_ranker_files_are_the_same(learned, after):
    before = learned["before"]
    old, new = (Catalogue.load(each.file("items.parquet")) for each in (before, after))
    assert new.vocab.ids == [*old.vocab.ids, "a999"]
    assert new.category_names == old.category_names
    same = [name for name in before.files if name.startswith(("ranker/", "profiles"))]
    assert same
    assert all(after.files[name] == before.files[name] for name in same)
    moved = [name for name in before.files if name.endswith("two_tower/model.safetensors")]
    assert all(after.files[name] != before.files[name] for name in moved)


def test_the_new_release_answers_and_a_second_run_has_nothing_to_learn(learned):
    home, toml = learned["home"], str(learned["toml"])
    done = shortlist("recommend", "u1", "--json", home=home)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert json.loads(done.stdout)["items"]
    done = shortlist("run", toml, "--incremental", "--no-monitor", "--json", home=home)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "there is nothing to learn" in json.loads(done.stdout)["nothing_new"]
    assert Run.open(Settings(home=home)).run_id == learned["summary"]["run_id"]


def test_another_configuration_is_refused(learned):
    path = learned["toml"].with_name("other.toml")
    path.write_text(learned["toml"].read_text().replace("num_epochs = 3", "num_epochs = 4", 1))
    done = shortlist("train", str(path), "--incremental", home=learned["home"])
    assert done.returncode == 2
    assert "train.sources.two_tower.optimiser.num_epochs is 3, here 4" in done.stderr
