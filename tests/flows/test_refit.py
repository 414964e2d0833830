"""Which models a run fits on which events, for trial, backtest and release."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.baselines.item_knn import ItemKNN
from shortlist.items.catalogue import Catalogue
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import BASELINES, answer


@pytest.fixture(scope="module")
def run(run_summary) -> Path:
    return Path(run_summary["home"]) / "runs" / run_summary["run_id"]


@pytest.fixture(scope="module")
def about(served_home) -> dict:
    return ReleaseStore(served_home / "releases").open().about


def test_the_release_is_fitted_to_the_end_of_the_runs_data(about):
    windows, fitted = about["windows"], about["fitted"]
    assert about["data_end"] == windows["test"][1]
    for source in about["sources"]:
        assert fitted[source]["until"] == about["data_end"]
        assert fitted[source]["from"] == windows["retrieval_train"][0]
        assert fitted[source]["events"] > fitted["profiles"]["events"] > 0
    assert fitted["ranker"]["until"] == windows["validation"][1] == windows["test"][0]
    assert fitted["vocabulary"]["until"] == about["data_end"]


def test_the_release_has_what_chain_similar_and_reasons_read_and_nothing_else(about, run):
    chain = about["chain"]
    used = {*chain["candidate_sources"], *chain["score_sources"]}
    wanted = used | {"item_knn", "content", "two_tower"}
    assert set(about["sources"]) == wanted
    assert {path.name for path in (run / "release" / "sources").iterdir()} == wanted
    assert {path.name for path in (run / "backtest" / "sources").iterdir()} == wanted
    assert {path.name for path in (run / "trial").iterdir()} == {"two_tower", "content", "item_knn"}


def test_trial_backtest_and_release_know_more_events_each(run):
    catalogue = Catalogue.load(run / "release" / "items.parquet")
    models = [
        ItemKNN.load(folder / "item_knn", catalogue).similarity.toarray()
        for folder in (run / "trial", run / "backtest" / "sources", run / "release" / "sources")
    ]
    for before, after in pairwise(models):
        assert np.abs(before - after).max() > 0


def test_the_recipe_says_all_that_a_refit_needs(about):
    recipe = about["recipe"]
    assert len(recipe["hash"]) == 16
    assert recipe["chain"] == about["chain"]
    assert recipe["frozen"]["two_tower"]["epochs"] in (1, 2, 3)
    assert set(recipe["frozen"]) == {source["kind"] for source in recipe["sources"]}
    assert {source["kind"] for source in recipe["sources"]} == set(about["sources"])
    assert recipe["ranker"] == about["ranker"]


def test_refit_and_backtest_are_compared_and_gated(about, run_summary):
    assert 0 < about["refit"]["overlap@10"] <= 1
    assert set(about["refit"]["scores"]) == set(about["chain"]["score_sources"])
    assert about["refit"]["index_recall@100"]["two_tower"] > 0.9
    assert "sanity: overlap" in {gate["name"] for gate in run_summary["gates"]}


def test_every_method_is_judged_as_fitted_before_the_test_window(run, about):
    evaluation = json.loads((run / "evaluation.json").read_text())
    windows, until = about["windows"], evaluation["fitted_until"]
    assert set(until) == set(evaluation["metrics"])
    for method in ("chain", *BASELINES, "two_tower", "content"):
        assert until[method] == windows["test"][0]
    assert until["without_refit"] == windows["retrieval_train"][1]


def test_the_figures_of_users_are_those_of_the_table(run):
    """The mean of the stored nDCG@10 per user is the reported nDCG@10."""
    evaluation = json.loads((run / "evaluation.json").read_text())
    users = pq.read_table(run / "evaluation_users.parquet").to_pylist()
    for method, figures in evaluation["metrics"].items():
        of_method = [row["ndcg"] for row in users if row["method"] == method]
        assert len(of_method) == evaluation["n_users"]
        assert np.mean(of_method) == pytest.approx(figures["ndcg@10"]["mean"])


def test_a_champion_of_the_same_recipe_is_not_fitted_again(served_home, run, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(served_home, home, symlinks=True)
    again = answer("evaluate", "--run", run.name, home=home)
    assert again["champion"]["status"] == "unchanged"
    assert "champion" not in again["metrics"]
    before = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert again["metrics"]["chain"] == before["chain"]
