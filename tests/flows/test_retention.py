"""Garbage collection keeps what is served, pinned, leased or in use, and removes old files."""

import json
import os
import time
from pathlib import Path

import pytest

from flows.releases.collect import collect_garbage, sizes
from flows.releases.history import details, overview
from flows.releases.retention import RetentionConfig
from shortlist.config import Settings
from shortlist.home.audit import read_audit
from shortlist.home.workers import Heartbeat
from shortlist.lake.leases import take_lease
from shortlist.releases.pins import pin, read_pins, unpin
from shortlist.releases.release import ReleaseError, ReleaseStore

DAY = 86_400
RULES = RetentionConfig(releases=1, promoted=2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def publish(settings: Settings, run_id: str) -> str:
    """Publish a release of a run; its folder exists with a model."""
    (settings.runs / run_id / "trial").mkdir(parents=True)
    (settings.runs / run_id / "trial" / "model.bin").write_text("weights")
    metrics = {"chain": {"ndcg@10": {"mean": 0.25}}}
    about = {"run_id": run_id, "dataset": "tiny", "metrics": metrics}
    with ReleaseStore(settings.releases).publishing(about) as (folder, content):
        (folder / "model.bin").write_text(run_id)
    return content["release_id"]


def old(path: Path, days: float) -> Path:
    """Set the time of change of a path and its files to `days` ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text("x" * 10)
    then = time.time() - days * DAY
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then))
    return path


def removed(result: dict) -> set[tuple[str, str]]:
    return {(one["what"], Path(one["path"]).name) for one in result["removed"]}


def test_only_releases_that_nothing_needs_are_removed(settings: Settings) -> None:
    names = ("gone", "older", "pinned", "in_use", "leased", "before", "serving", "newest")
    ids = {name: publish(settings, name) for name in names}
    store = ReleaseStore(settings.releases)
    for name in ("older", "before", "serving"):
        store.promote(ids[name])
    pin(settings, ids["pinned"], reason="contract of May")
    heartbeat = Heartbeat(settings)
    heartbeat.beat(release_id=ids["in_use"], pack_id="p", pinned=True)
    settings.lake.mkdir()
    take_lease(settings.lake, "leased", version=1)
    newest = max(store.ids())

    result = collect_garbage(settings, RULES, dry_run=True)
    assert set(store.ids()) == set(ids.values())
    kept = {ids[name] for name in ("pinned", "in_use", "leased", "before", "serving")} | {newest}
    assert set(result["kept"]) == kept
    assert result["kept"][ids["pinned"]] == "pinned: contract of May"
    assert result["kept"][ids["serving"]] == "served"

    assert removed(collect_garbage(settings, RULES)) == {
        ("release", release_id) for release_id in set(ids.values()) - kept
    }
    assert set(store.ids()) == kept
    assert list(store.history()) == [ids["before"], ids["serving"]]
    assert store.roll_back() == ids["before"]
    assert not list(settings.releases.glob(".removed-*"))
    last = read_audit(settings)[-1]
    assert (last["command"], last["reason"]) == ("gc", "retention rules")
    assert last["evidence"]["removed"] == {"release": 8 - len(kept)}
    heartbeat.remove()


def test_old_files_of_each_part_are_removed_and_new_ones_kept(settings: Settings) -> None:
    serving = publish(settings, "serving")
    store = ReleaseStore(settings.releases)
    store.promote(serving)
    (settings.runs / "serving" / "summary.json").write_text("{}")
    old(settings.runs / "serving", 8)
    (settings.runs / "abandoned").mkdir()
    old(settings.runs / "abandoned", 31)
    (settings.runs / "recent").mkdir()
    bentos = settings.home / "bentoml" / "bentos" / "shortlist"
    (bentos / serving.lower()).mkdir(parents=True)
    (bentos / "20200101t000000-gone").mkdir()
    old(settings.logs / "run-1.log", 31)
    old(settings.logs / "up" / "worker.log", 29)
    for name in ("20260101T000000-a", "20260102T000000-b"):
        (settings.reports / name).mkdir(parents=True)
        old(settings.reports / name, 91)
    latest = {"report": str(settings.reports / "20260102T000000-b" / "index.html")}
    (settings.reports / "latest.json").write_text(json.dumps(latest))
    old(settings.home / "prefect" / "storage" / "result", 31)
    old(settings.home / "prefect" / "storage" / "newer", 29)
    dead = settings.releases / ".partial-20260101T000000-999999999-abcdef00"
    dead.mkdir()
    (settings.releases / f".partial-20260101T000000-{os.getpid()}-abcdef00").mkdir()

    result = collect_garbage(settings, RULES)
    assert removed(result) == {
        ("run", "abandoned"),
        ("models of a run", "trial"),
        ("Bento", "20200101t000000-gone"),
        ("log", "run-1.log"),
        ("report", "20260101T000000-a"),
        ("task result", "result"),
        ("partial release", dead.name),
    }
    assert result["bytes"] == 10 + 10 + len("weights")
    assert not any(Path(one["path"]).exists() for one in result["removed"])
    assert collect_garbage(settings, RULES)["removed"] == []
    assert store.open().release_id == serving


def test_sizes_name_the_parts_largest_first(settings: Settings) -> None:
    publish(settings, "run")
    old(settings.logs / "run-1.log", 1)
    found = sizes(settings)
    assert list(found) == ["releases", "logs", "runs"]
    assert found["logs"] == 10
    assert found["runs"] == len("weights")


def test_a_pin_needs_an_intact_release_and_is_audited(settings: Settings) -> None:
    release_id = publish(settings, "run")
    pin(settings, release_id, reason="contract")
    assert read_pins(settings)[release_id]["reason"] == "contract"
    unpin(settings, release_id, reason="expired")
    assert read_pins(settings) == {}
    assert [(line["command"], line["reason"]) for line in read_audit(settings)] == [
        ("pin", "contract"),
        ("unpin", "expired"),
    ]
    with pytest.raises(ReleaseError, match="isn't pinned; pinned: none"):
        unpin(settings, release_id, reason="again")
    (settings.releases / release_id / "model.bin").write_text("other")
    with pytest.raises(ReleaseError, match="the release was changed"):
        pin(settings, release_id, reason="contract")


def test_the_serving_release_cannot_be_forgotten(settings: Settings) -> None:
    store = ReleaseStore(settings.releases)
    store.promote(publish(settings, "run"))
    with pytest.raises(ReleaseError, match="serves; promote another one first"):
        store.forget(store.ids()[0])


def test_a_damaged_release_is_listed_with_its_fault(settings: Settings) -> None:
    good, bad = publish(settings, "good"), publish(settings, "bad")
    (settings.releases / bad / "model.bin").unlink()
    rows = {row["release_id"]: row for row in overview(settings)}
    assert (rows[good]["dataset"], rows[good]["ndcg@10"]) == ("tiny", 0.25)
    assert rows[good]["damaged"] is None
    assert "(file is missing)" in rows[bad]["damaged"]
    shown = details(settings, good)
    assert shown["files"] == {"model.bin": 4}
    assert shown["run_id"] == "good"
