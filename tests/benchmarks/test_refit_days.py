"""Days of refresh, train and promote in `shortlist bench refit_days`, on the `tiny` world."""

from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.refit_days import compare, train_and_judge_days
from flows.runtime.configuration import load_run_config
from shortlist.config import Settings
from shortlist.releases.release import ReleaseStore
from tests.conftest import ANY_GATES
from tests.examples import endurance

RUN = """
name = "tiny-days"
gates = "gates.toml"

[data]
source = "simulated"
target_events = ["click", "purchase"]
clock = "replay"

[data.simulated]
preset = "tiny"

[split]
fractions = [0.70, 0.10, 0.10, 0.10]

[train]
sources = [{ kind = "item_knn" }, { kind = "recent_popularity" }]
rankers = [{ kind = "lambdamart", num_models = 1, num_rounds = 20 }]
candidates_per_source = 30
"""


def test_the_difference_is_paired_over_users():
    rows = [
        {"user_id": f"u{i}", "method": method, "ndcg": value}
        for method, values in (("refit", [0.5, 0.3]), ("without_refit", [0.4, 0.2]))
        for i, value in enumerate(values)
    ]
    found = compare(pa.Table.from_pylist(rows))["difference"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.slow
@endurance("two trainings")
@pytest.mark.usefixtures("prefect_here")
def test_each_night_trains_a_release_on_one_more_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gates.toml").write_text(ANY_GATES)
    (tmp_path / "run.toml").write_text(RUN)
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    days = train_and_judge_days(load_run_config(tmp_path / "run.toml"), days=2)
    assert [day["promoted"] for day in days] == [True, True]
    history = list(ReleaseStore(Settings().releases).history())
    assert [day["release"] for day in days] == history
    for day in days:
        assert day["requests"] > 0
        figures = day["ndcg@10"]
        expected = figures["refit"]["mean"] - figures["without_refit"]["mean"]
        assert figures["difference"]["mean"] == pytest.approx(expected)
