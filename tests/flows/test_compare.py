"""`shortlist evaluate --run A --compare B`: figures by hand arithmetic, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.evaluation.compare import CompareError, compare_runs
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run, RunError
from shortlist.config import Settings
from shortlist.metrics import coverage_difference, coverage_interval

USERS = ["a", "a", "b", "c"]
VALUE = {"click": 0.5, "purchase": 2.0}


def config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"source": "movielens-100k"},
        "train": {"sources": [{"kind": "ease"}], "rankers": [{"kind": "lambdamart"}]},
        "evaluate": {"list_size": 2, "ks": [2], "bootstrap_draws": 50},
    } | changes


def table(ndcg: list[float], **changes: Any) -> pa.Table:
    """Return the figures of four requests; those of the second item slice are made up."""
    columns = {
        "user_id": USERS,
        "at": np.arange(4),
        "relevant": np.ones(4, dtype=np.int32),
        "group": ["new_users", "light_users", "light_users", "regular_users"],
        "items": pa.array([[1, 2], [1, 2], [1, 2], [3, 0]], pa.list_(pa.int32())),
        "ndcg@2": np.array(ndcg, dtype=np.float32),
        "ndcg@2 of tail_items": np.array([np.nan, 1, np.nan, np.nan], dtype=np.float32),
        "click@2": np.array([1, 0, 0, 0], dtype=np.float32),
        "click@2 discounted": np.array([1, 0, 0, 0], dtype=np.float32),
    }
    return pa.table(columns | changes)


class Home:
    def __init__(self, folder: Path):
        self.settings = Settings(home=folder)

    def run(self, name: str, figures: pa.Table | None, *, version: int = 3, **changes: Any) -> str:
        """Write the folder of a run as train and evaluate leave it; return its id."""
        path = self.settings.runs / name
        path.mkdir(parents=True)
        content = RunConfig.model_validate(config(**changes)).model_dump(mode="json")
        about = {"ranker": "lambdamart", "chain": {"candidate_sources": ["ease"]}}
        for file, written in (
            ("config.json", content),
            ("lake.json", {"version": version, "data_end": 9}),
            ("about.json", about),
        ):
            (path / file).write_text(json.dumps(written))
        pq.write_table(pa.table({"item_id": ["x", "y", "z", "w"]}), path / "items.parquet")
        if figures is not None:
            pq.write_table(figures, Run(path).evaluated_requests)
        return name


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_differences_are_means_over_users_of_the_paired_requests(home):
    one = home.run("one", table([1.0, 0.5, 0.2, np.nan]))
    other = home.run("other", table([0.5, 0.0, 0.4, 0.3]))
    found = compare_runs(home.settings, one, other)
    ndcg = found["metrics"]["ndcg@2"]
    # User a: (1 + .5) / 2 against (.5 + 0) / 2; user b: .2 against .4; c has no figure in one run.
    assert ndcg["run"] == pytest.approx((0.75 + 0.2) / 2)
    assert ndcg["compare"] == pytest.approx((0.25 + 0.4) / 2)
    assert ndcg["difference"]["mean"] == pytest.approx((0.5 - 0.2) / 2)
    assert ndcg["difference"]["users"] == 2
    new, light = (found["slices"][name]["ndcg@2"] for name in ("new_users", "light_users"))
    assert new["difference"]["mean"] == pytest.approx(0.5)
    assert light["difference"]["mean"] == pytest.approx((0.5 - 0.2) / 2)
    assert found["slices"]["tail_items"]["ndcg@2"]["run"] == 1
    assert "cold_items" not in found["slices"]
    assert "value@2" not in found["metrics"]
    assert found["settings"] == {}


def test_a_formula_of_either_run_values_the_lists_of_both(home):
    purchases = {"purchase@2 discounted": np.array([0, 0, 1, 0], dtype=np.float32)}
    columns = purchases | {"purchase@2": np.array([0, 0, 1, 0], dtype=np.float32)}
    one = home.run("one", table([0.0] * 4, **columns), value=VALUE)
    bought = {name: np.zeros(4, dtype=np.float32) for name in columns}
    other = home.run("other", table([0.0] * 4, **bought))
    value = compare_runs(home.settings, one, other)["metrics"]["value@2"]
    # One click of weight .5 in one of two requests of user a, and a purchase of user b.
    assert value["run"] == pytest.approx((0.5 / 2 + 2 + 0) / 3)
    assert value["compare"] == pytest.approx((0.5 / 2) / 3)
    third = home.run("third", table([0.0] * 4, **bought), value={"click": 1.0})
    names = [name for name in compare_runs(home.settings, one, third)["metrics"] if "value" in name]
    assert names == ["value@2 by the run's formula", "value@2 by the other's formula"]


def test_settings_that_differ_are_named(home):
    one = home.run("one", table([0.0] * 4))
    train = {"sources": [{"kind": "ease"}], "rankers": [{"kind": "deepfm"}]}
    other = home.run("other", table([0.0] * 4), train=train)
    found = compare_runs(home.settings, one, other)["settings"]
    assert set(found) == {"train.rankers.lambdamart", "train.rankers.deepfm"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 4}, "read the versions 3 and 4 of the lake"),
        ({"seed": 1}, r"seed \(it draws the requests\) is 0 and 1"),
        ({"split": {"fractions": [0.6, 0.2, 0.1, 0.1]}}, r"\[split\] fractions is"),
        ({"split": {"max_requests_per_user": 5}}, "max_requests_per_user is 20 and 5"),
        (
            {"data": {"source": "movielens-100k", "repeats": "allow"}},
            r"\[data\] repeats is exclude and allow",
        ),
        ({"evaluate": {"list_size": 5, "ks": [5]}}, "list_size is 2 and 5"),
    ],
)
def test_runs_with_other_data_or_requests_are_refused(home, changes, says):
    one = home.run("one", table([0.0] * 4))
    other = home.run("other", table([0.0] * 4), **changes)
    with pytest.raises(CompareError, match=says):
        compare_runs(home.settings, one, other)


def test_other_requests_with_the_same_settings_are_refused(home):
    one = home.run("one", table([0.0] * 4))
    other = home.run("other", table([0.0] * 4, at=np.arange(1, 5)))
    with pytest.raises(CompareError, match="different test requests"):
        compare_runs(home.settings, one, other)


def test_a_run_that_is_missing_or_not_evaluated_is_refused(home):
    one = home.run("one", table([0.0] * 4))
    other = home.run("other", None)
    with pytest.raises(CompareError, match="run `shortlist evaluate --run other` first"):
        compare_runs(home.settings, one, other)
    with pytest.raises(CompareError, match="compared with itself"):
        compare_runs(home.settings, one, one)
    with pytest.raises(RunError, match="no such run"):
        compare_runs(home.settings, one, "nothing")


def test_the_difference_of_coverage_is_paired_over_users():
    ranked, others = np.array([[1, 2], [3, 0]]), np.array([[1, 2], [1, 0]])
    gap = coverage_difference(ranked, others, ["a", "b"], num_items=4)
    assert gap["mean"] == pytest.approx(3 / 4 - 2 / 4)
    # Without user a: 1/4 - 1/4; without user b: 2/4 - 2/4. The jackknife's deviation is 0.
    assert (gap["low"], gap["high"]) == (gap["mean"], gap["mean"])
    same = coverage_difference(ranked, ranked, ["a", "b"], num_items=4)
    assert same == {"mean": 0, "low": 0, "high": 0, "users": 2}
    assert coverage_interval(ranked, ["a", "b"], num_items=4)["mean"] == 3 / 4
