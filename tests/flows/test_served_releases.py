"""Monitoring and skew checks use the releases in the serving log, not the promoted release."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flows.monitor import log_start
from flows.releases.served_releases import most_served, newest_day, response_times
from flows.runtime.configuration import RunConfig
from flows.skew.serving_log import read_log, releases_of
from shortlist.config import Settings
from shortlist.datasets import DatasetError
from shortlist.feature_store.states.stamps import NEWEST_EVENT
from shortlist.features.finalize import schema_hash
from shortlist.releases.release import ReleaseStore
from tests.conftest import shortlist

HOUR = 3_600_000_000
OLD = [i * HOUR for i in range(10)]
NEW = [(100 + i) * HOUR for i in range(4)]
TRIED = [102 * HOUR, 103 * HOUR]
TIMES = {"old": OLD, "tried": TRIED, "new": NEW}


def test_the_release_that_answered_most_requests_of_the_last_day_is_watched():
    assert newest_day(TIMES) == {"new": 4, "tried": 2}
    assert most_served(TIMES, {"old", "new", "tried", "promoted just now"}) == "new"


def test_a_deployment_is_reported_on_by_its_last_days():
    """On the wall clock, reports start `[monitor] days` before the newest request."""
    train = {"sources": [], "rankers": []}
    data = {"source": "movielens-100k", "clock": "wall"}
    config = RunConfig.model_validate(
        {"name": "x", "data": data, "train": train, "monitor": {"days": 2}}
    )
    assert log_start(np.array(NEW), config) == (103 - 48) * HOUR
    assert log_start(None, config) is None
    demo = config.model_copy(update={"data": config.data.model_copy(update={"clock": "replay"})})
    assert log_start(np.array(NEW), demo) is None


def test_a_release_that_was_removed_is_not_watched():
    assert most_served(TIMES, {"old", "tried"}) == "tried"
    assert most_served(TIMES, {"old"}) == "old"
    assert most_served({"new": NEW}, {"old"}) is None
    assert most_served({}, {"old"}) is None


def response(number: int, release_id: str, at: int, **changes) -> dict:
    return {
        "request_id": f"r{number}",
        "release_id": release_id,
        "user_id": "u1",
        "context_id": "web|unknown|00",
        "event_timestamp": at,
        "clock": "wall",
        "as_of": dict.fromkeys(NEWEST_EVENT),
        "pack_id": "0-a",
        "skipped_stages": [],
        "items": [{"item_id": "i1", "features": [1.0]}],
    } | changes


def write_log(folder: Path, responses: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(response) + "\n" for response in responses]
    (folder / "2024-01-01.jsonl").write_text("".join(lines))


def test_times_are_read_from_the_log(tmp_path):
    write_log(
        tmp_path,
        [response(i, name, at) for i, (name, at) in enumerate([("a", 5), ("b", 7), ("a", 6)])],
    )
    found = response_times(tmp_path)
    assert {release: times.tolist() for release, times in found.items()} == {"a": [5, 6], "b": [7]}
    assert response_times(tmp_path / "nothing") == {}
    write_log(tmp_path, [{"release_id": "a"}])
    with pytest.raises(DatasetError, match="line 1: key 'event_timestamp' is missing"):
        response_times(tmp_path)


def test_the_newest_responses_of_each_release_are_compared(tmp_path):
    log = [response(i, "busy", 100 - i) for i in range(5)]  # not in order of time
    log += [response(10, "tried", 1), response(11, "tried", 2, user_id="anonymous")]
    log += [response(12, "gone", 3), response(13, "busy", 200, items=[])]
    old_views = ("user_stats", "user_kinds", "user_searches", "context_trend")
    log += [response(14, "busy", 201, as_of=dict.fromkeys(old_views, 5), stamps={"user_kinds": 4})]
    settings = Settings(home=tmp_path)
    write_log(settings.serving_log, log)
    logged, left_out = read_log(settings, releases=["busy", "tried"], limit=2, tick=HOUR)
    assert {release: [r.request_id for r in own] for release, own in logged.items()} == {
        "busy": ["r1", "r0"],
        "tried": ["r10"],
    }
    assert left_out["another release"] == left_out["visitor"] == left_out["no items"] == 1
    assert left_out["no as_of by view"] == 1


def publish(store: ReleaseStore, name: str, **about) -> str:
    content = {"feature_schema": schema_hash(), "target_events": ["rating"], "name": name} | about
    with store.publishing(content) as (folder, content):
        (folder / "weights.txt").write_text(name)
    return content["release_id"]


def test_skew_opens_each_release_of_the_log_and_notes_those_it_cannot_compare(tmp_path: Path):
    store = ReleaseStore(tmp_path)
    first, second = publish(store, "first"), publish(store, "second")
    older = publish(store, "older", feature_schema="another")
    other = publish(store, "other", target_events=["purchase"])
    store.promote(older)

    releases, notes = releases_of({first: 4, older: 2, "gone": 1, second: 1, other: 1}, store)

    assert list(releases) == [first, second]
    assert releases[second].about["name"] == "second"
    assert len(notes) == 3
    for release_id, says in (
        (older, "2 responses"),
        ("gone", "no release there"),
        (other, "purchase"),
    ):
        assert any(release_id in note and says in note for note in notes)


def test_a_release_that_was_promoted_a_moment_ago_is_not_what_is_judged(served_home, tmp_path):
    home = tmp_path / "home"
    for part in (
        "lake",
        "releases",
        "features",
        "events",
        "serving_log",
        "packs",
        "runs",
        "forgotten",
    ):
        shutil.copytree(served_home / part, home / part, symlinks=True)
    store = ReleaseStore(home / "releases")
    served = store.open()
    with store.publishing(served.about | {"note": "newer"}) as (folder, about):
        shutil.copytree(served.path, folder, dirs_exist_ok=True)
    store.promote(about["release_id"])

    done = shortlist("skew", "--json", home=home)
    assert done.returncode == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout)
    assert report["passed"]
    assert list(report["releases"]) == [served.release_id]
    done = shortlist("monitor", "--json", home=home)
    assert done.stdout, done.stderr[-3_000:]
    monitored = json.loads(done.stdout)
    assert monitored["release_id"] == served.release_id
    assert list(monitored["last_day"]) == [served.release_id]
