"""Slices, schedules and figures of `shortlist bench rollout`; one short rollout in endurance."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.rolling.days import LatestSmall, Shop
from benchmarks.rolling.policies import FULL, INCREMENTAL, STALE, Policy
from benchmarks.rollout import as_changes, roll_out, summary, write_json_in
from flows.runtime.configuration import RunConfig, load_run_config
from shortlist.config import Settings
from tests.benchmarks.test_refit_days import RUN
from tests.conftest import ANY_GATES
from tests.examples import endurance

SETTINGS = {"sources": ["item_knn", "recent_popularity"], "rankers": ["lambdamart"]}
POLICIES = [Policy(STALE, None), Policy(FULL, 2), Policy(INCREMENTAL, 1, {})]


@pytest.fixture
def latest_small(tmp_path: Path) -> LatestSmall:
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "ratings.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("userId", "movieId", "rating", "timestamp"))
        writer.writerows((n % 7, n % 11, 4, 1_000 + n) for n in reversed(range(200)))
    return LatestSmall(SETTINGS, tmp_path / "work", num_slices=4, folder=folder)


def test_slices_have_equal_counts_of_the_newest_events(latest_small):
    edges = latest_small.edges
    assert edges.tolist() == [1_160, 1_170, 1_180, 1_189, 1_200]
    assert latest_small.window(3) == (1_189_000_000, 1_200_000_000)
    counts = []
    for day in range(5):
        config = latest_small.config(day)
        assert config.data.files is not None
        with open(config.data.files.interactions[0].path) as file:
            times = [int(row["timestamp"]) for row in csv.DictReader(file)]
        counts.append(len(times))
        assert max(times) < edges[day]
        assert min(times) == (edges[day - 1] if day else 1_000)
    assert counts == [160, 10, 10, 9, 11]
    assert config.validation.rating_range == (0.5, 5), "MovieLens latest-small has half stars"
    assert [source.kind for source in config.train.sources] == SETTINGS["sources"]
    assert [ranker.kind for ranker in config.train.rankers] == SETTINGS["rankers"]


def test_when_policies_train():
    stale, full, incremental = POLICIES
    assert [n for n in range(6) if stale.trains_on(n)] == []
    assert [n for n in range(6) if full.trains_on(n)] == [2, 4]
    assert [n for n in range(6) if incremental.trains_on(n)] == [1, 2, 3, 4, 5]
    assert as_changes("epochs=1,replay=0.5") == {"epochs": 1, "replay": 0.5}


def test_means_are_those_of_the_days_with_a_full_training(latest_small, tmp_path):
    ndcg = {STALE: [0.5, 0.4, 0.3, 0.2], FULL: [0.5, 0.5, 0.4, 0.4]}
    ndcg[INCREMENTAL] = [0.5, 0.5, 0.3, 0.5]
    for policy in POLICIES:
        for day, value in enumerate(ndcg[policy.name]):
            users = {"u1": value - 0.1, "u2": value + 0.1}
            write_json_in(tmp_path / "judged" / policy.name / f"{day}.json", users)
            trained = {"release_id": "r"}
            if policy.trains_on(day):
                seconds = 100.0 if policy.name == FULL else 10.0
                trained |= {"seconds": seconds, "cpu_seconds": seconds / 2}
            write_json_in(tmp_path / "trained" / policy.name / f"{day}.json", trained)
    found = summary(tmp_path, latest_small, POLICIES, skip=1)
    assert (found["days"], found["full_days"]) == ([1, 2, 3], [2])
    assert found[FULL]["ndcg@10"] == pytest.approx(0.4)
    assert found[STALE]["ndcg@10_all_days"] == pytest.approx(0.3)
    ratio = found["incremental_over_full"]
    assert (ratio["ndcg"], ratio["seconds"]) == pytest.approx((0.75, 0.1))
    assert ratio["difference"]["mean"] == pytest.approx(-0.1)
    assert found[STALE]["seconds"] == 0
    assert json.loads(json.dumps(found))


class TinyShop(Shop):
    """The `tiny` world with a fast configuration."""

    folder: Path

    @property
    def base(self) -> RunConfig:
        return load_run_config(self.folder / "run.toml")


@pytest.mark.slow
@endurance("three trainings")
@pytest.mark.usefixtures("prefect_here")
def test_a_rollout_continues_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gates.toml").write_text(ANY_GATES)
    (tmp_path / "run.toml").write_text(RUN)
    monkeypatch.setattr(TinyShop, "folder", tmp_path, raising=False)
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "work" / "home"))
    data = TinyShop({}, num_days=3)
    work = tmp_path / "work"
    roll_out(work, data, POLICIES, until=2, gated=True)
    first = (work / "judged" / INCREMENTAL / "1.json").stat().st_mtime_ns
    roll_out(work, data, POLICIES, until=None, gated=True)
    assert (work / "judged" / INCREMENTAL / "1.json").stat().st_mtime_ns == first
    found = summary(work, data, POLICIES, skip=0)
    assert (found["days"], found["full_days"]) == ([1, 2], [2])
    assert 0 < found[INCREMENTAL]["ndcg@10"] <= 1
    assert found["incremental_over_full"]["seconds"] > 0
    assert Settings().home == work / "home"
    with pytest.raises(SystemExit, match="the lake is already beyond day 0"):
        roll_out(work, data, [*POLICIES, Policy("late", 1, {"epochs": 1})], until=1, gated=False)
