"""A run with `[value]`: its ranker, its figures, its comparison with a run without, and what is
refused in the TOML file.
"""

import json
from pathlib import Path

import pytest

from flows.runtime.configuration import load_run_config
from shortlist.config import ConfigError
from tests.conftest import shortlist, world_toml

TRAIN = """sources = [{ kind = "item_knn" }, { kind = "recent_popularity" }]
rankers = [{ kind = "lambdamart" }, { kind = "value" }]
"""
VALUE = """
[value]
rating = 1.0
like = 0.5
"""


@pytest.fixture(scope="module")
def config(world_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("value") / "value.toml"
    path.write_text(world_toml(world_config.parent, train=TRAIN) + VALUE)
    return path


@pytest.fixture(scope="module")
def evaluation(config: Path, trainable_home: Path) -> dict:
    for step in ("train", "evaluate"):
        done = shortlist(step, str(config), "--json", home=trainable_home, timeout=600)
        assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def without_value(world_config: Path, evaluation: dict, trainable_home: Path) -> dict:
    """The evaluation of a run on the same data without `[value]`."""
    path = trainable_home / "plain.toml"
    train = TRAIN.replace(', { kind = "value" }', "")
    path.write_text(world_toml(world_config.parent, train=train))
    for step in ("train", "evaluate"):
        done = shortlist(step, str(path), "--json", home=trainable_home, timeout=600)
        assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_run_is_compared_with_one_that_has_other_rankers_and_no_formula(
    evaluation, without_value, trainable_home
):
    pair = (evaluation, without_value)
    ids = [each["run_id"] for each in pair]
    command = ("evaluate", "--run", ids[0], "--compare", ids[1])
    done = shortlist(*command, "--json", home=trainable_home)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert [run["run_id"] for run in found["runs"]] == ids
    assert set(found["settings"]) == {"train.rankers.value", "value.rating", "value.like"}
    for name in ("ndcg@10", "recall@100", "precision@10", "mrr@100", "coverage@10", "diversity@10"):
        row = found["metrics"][name]
        means = [each["metrics"]["chain"][name]["mean"] for each in pair]
        assert [row["run"], row["compare"]] == pytest.approx(means, abs=1e-6)
        gap = row["difference"]
        assert gap["mean"] == pytest.approx(means[0] - means[1], abs=1e-6)
        assert gap["low"] <= gap["mean"] <= gap["high"]
    chain = evaluation["metrics"]["chain"]
    for name in ("value@10", "like@10"):
        assert found["metrics"][name]["run"] == pytest.approx(chain[name]["mean"], abs=1e-6)
    assert {"light_users", "tail_items"} <= set(found["slices"])
    light = evaluation["slices"]["light_users"]["chain"]["ndcg@10"]["mean"]
    assert found["slices"]["light_users"]["ndcg@10"]["run"] == pytest.approx(light, abs=1e-6)
    shown = shortlist(*command, home=trainable_home).stdout
    assert "Settings that differ" in shown
    assert "value@10" in shown


@pytest.mark.slow
def test_rankers_are_compared_by_value_and_heads_are_reported(evaluation, trainable_home):
    run = trainable_home / "runs" / evaluation["run_id"] / "about.json"
    about = json.loads(run.read_text())
    figures = about["chain_figures"]
    assert {"fusion", "lambdamart", "value"} <= set(figures["rankers"])
    heads = figures["heads"]
    assert heads["rating"]["head"]
    assert heads["rating"]["rmse"] > 0
    assert heads["like"]["head"]
    assert 0 <= heads["like"]["ece"] < 0.2
    assert 0 < heads["like"]["gauc"] <= 1
    assert evaluation["value"]["heads"] == heads
    (recipe,) = [r for r in about["recipe"]["rankers"] if r["kind"] == about["ranker"]]
    if about["ranker"] == "value":
        assert recipe["weights"] == {"rating": 1.0, "like": 0.5}


@pytest.mark.slow
def test_every_method_has_its_value_and_its_outcomes(evaluation):
    for method, metrics in evaluation["metrics"].items():
        value, like = (metrics[f"{name}@10"] for name in ("value", "like"))
        assert value["low"] <= value["mean"] <= value["high"]
        assert like["mean"] >= 0
        if method != "chain":
            lead = evaluation["chain_ahead"][method]["value@10"]["mean"]
            chain = evaluation["metrics"]["chain"]["value@10"]["mean"]
            assert lead == pytest.approx(chain - value["mean"], abs=1e-6)
    assert evaluation["value"]["weights"] == {"rating": 1.0, "like": 0.5}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"needs \[value\] with outcomes and weights"),
        ("\n[value]\nclick = 0\n", "all weights are 0"),
        ("\n[value]\nclicks = 1.0\n", "outcome 'clicks' is unknown, want one of click, view"),
        ('\n[value]\nclick = "much"\n', "value.click"),
    ],
)
def test_a_wrong_formula_is_refused(tmp_path, world_config, value, message):
    path = tmp_path / "run.toml"
    path.write_text(world_toml(world_config.parent, train=TRAIN) + value)
    with pytest.raises(ConfigError, match=message):
        load_run_config(path)
