"""The benchmark of rankers on shown lists: features as of the list, split, figures, resumption."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import ranking
from benchmarks.ranking_lists import methods
from benchmarks.ranking_lists.data import make_lists
from benchmarks.ranking_lists.figures import interval, values_of
from benchmarks.ranking_lists.log import FILE, read_log
from models.ranking.neural.deepfm import DeepfmConfig
from models.ranking.stack import StackConfig
from models.ranking.trees.lambdamart import LambdamartConfig
from models.training import OptimiserConfig
from shortlist.datasets import DatasetError

COLUMNS = [
    *("user_id", "session_id", "timestamp", "step", "action_type", "reference"),
    *("platform", "device", "current_filters", "impressions", "prices"),
]
IMAGE, CLICK = "interaction item image", "clickout item"


def row(session, time, step, action, reference, shown=None, prices=None):
    filters = "Hotel|Sort by Price" if shown else None
    values = (f"u{session}", f"s{session}", time, step, action, reference, "DE", "mobile", filters)
    return dict(zip(COLUMNS, (*values, shown, prices), strict=True))


def write(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / FILE)
    return folder


@pytest.fixture
def simulated(tmp_path):
    """40 sessions that look at a hotel and then click it, among six with prices."""
    rng = np.random.default_rng(0)
    rows = []
    for session in range(40):
        shown = rng.permutation(30)[:6] + 1
        wanted = shown[rng.integers(6)]
        items = "|".join(map(str, shown))
        prices = "|".join(map(str, rng.integers(50, 90, size=6)))
        rows.append(row(session, session * 100, 1, IMAGE, str(wanted)))
        rows.append(row(session, session * 100 + 50, 2, CLICK, str(wanted), items, prices))
    return write(tmp_path, rows)


def column(lists, name):
    return lists.data.x[:, lists.data.schema.names.index(name)]


def test_features_are_as_of_the_list(tmp_path):
    """Hotels 1, 2 and 3 are shown to two sessions; the second sees what the first did before it."""
    shown, prices = "1|2|3", "90|50|70"
    rows = [
        row(0, 10, 1, IMAGE, "2"),
        row(0, 20, 2, CLICK, "2", shown, prices),
        row(1, 22, 1, IMAGE, "9"),
        row(2, 24, 1, CLICK, "8", "8|9", "10|20"),
        row(3, 30, 1, CLICK, "1", shown, prices),
        row(3, 30, 2, CLICK, "3", shown, prices),
    ]
    with pytest.raises(DatasetError, match="no list was clicked in the train window"):
        make_lists(read_log(write(tmp_path, rows[:2])))
    lists = make_lists(read_log(write(tmp_path, rows)))
    # Of four sessions, the two oldest train, the third is validation, the newest is the test.
    train, test = lists["train"], lists["test"]
    assert train.data.group.tolist() == [3]
    assert train.data.label.tolist() == [0, 1, 0]
    assert column(train, "session_image").tolist() == [0, 1, 0]
    assert column(train, "session_clickout_item").tolist() == [0, 0, 0]
    assert column(train, "crowd_clicks").tolist() == [0, 0, 0]
    assert column(train, "price_rank").tolist() == [2, 0, 1]
    assert column(train, "after_last").tolist() == [-1, 0, 1]
    assert train.data.history is not None
    assert (train.data.history.seconds[0, :2]).tolist() == [10, 0]
    # The second session's own click isn't part of the crowd; its first list precedes the second.
    assert column(test, "crowd_clicks")[3:] == pytest.approx([0, np.log(2), 0])
    assert column(test, "session_clickout_item").tolist() == [0, 0, 0, 1, 0, 0]
    assert test.fixed["last_item"].tolist() == [0, -1, -2, 100, -1, -2]
    assert test.fixed["price_order"].tolist() == [-2, 0, -1] * 2


def test_figures_are_those_of_the_clicked_hotel(simulated):
    data = make_lists(read_log(simulated))["test"].data
    values = values_of(data, -data.label)  # the clicked hotel is last of six
    assert values == pytest.approx(np.tile([[1 / 6], [1 / np.log2(7)]], (1, len(data))))
    assert interval(np.array([1.0, 0.0]), ["a", "b"])["mean"] == 0.5


def test_a_missing_file_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(DatasetError, match="no such file"):
        read_log(tmp_path)
    arguments = ["ranking", "--dataset", "trivago", "--path", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        ranking.main()
    assert FILE in capsys.readouterr().err


def test_a_run_writes_figures_and_continues_where_it_was(simulated, tmp_path, monkeypatch):
    quick = {"optimiser": OptimiserConfig(num_epochs=1), "hidden_dims": (8,)}
    trees = LambdamartConfig(num_models=1, num_rounds=10, min_data_in_leaf=5)
    settings = {
        "lambdamart": trees,
        "deepfm": DeepfmConfig(**quick),
        "stack": StackConfig(members=("deepfm",), folds=2, trees=trees),
    }
    for module in (methods, ranking):
        monkeypatch.setattr(module, "SETTINGS", settings)
    out = tmp_path / "result.json"
    arguments = ["ranking", "--dataset", "trivago", "--path", str(simulated), "--seeds", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(out)])
    ranking.main()
    result = json.loads(out.read_text())
    assert set(result["methods"]) == {*settings, "shown_order", "price_order", "last_item"}
    assert set(result["methods"]["last_item"]["ndcg@25"]) == {"mean", "low", "high"}
    assert result["methods"]["last_item"]["mrr"]["mean"] == 1
    assert result["best"] == "last_item"
    lead = result["best_over_lambdamart"]["mrr"]
    assert lead["low"] <= lead["mean"] <= lead["high"]
    assert result["lists"] == {"train": 27, "validation": 5, "test": 8}

    monkeypatch.setattr(methods, "fit_ranker", None)
    monkeypatch.setattr(ranking, "fit", None)
    ranking.main()
    assert json.loads(out.read_text())["methods"] == result["methods"]
