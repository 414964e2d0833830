"""A promotion waits for live workers and names those that don't switch; changes are audited."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.promote import promote
from flows.releases.acknowledge import wait_for_workers
from flows.rollback import roll_back
from shortlist.config import Settings
from shortlist.home.audit import read_audit
from shortlist.home.workers import Heartbeat, Refused, live_workers
from shortlist.releases.release import ReleaseError, ReleaseStore
from tests.flows.conftest import about, publish

ME = f"{socket.gethostname()}:{os.getpid()}"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    return Settings()


@pytest.fixture
def store(settings: Settings) -> ReleaseStore:
    return ReleaseStore(settings.releases)


@pytest.fixture
def promoted(store: ReleaseStore) -> tuple[str, str]:
    """Ids of two releases; the second one is the champion."""
    first, second = publish(store, about()), publish(store, about(), payload="other weights")
    store.promote(first)
    store.promote(second)
    return first, second


def beat(settings: Settings, release_id: str, **more: Any) -> Heartbeat:
    heartbeat = Heartbeat(settings)
    heartbeat.beat(**{"release_id": release_id, "pack_id": "p", "pinned": False} | more)
    return heartbeat


def test_without_a_worker_nothing_is_waited_for(settings, promoted):
    found = wait_for_workers(settings, promoted[1], wait_seconds=600)
    assert found == {"workers": [], "lagging": []}


def test_it_waits_until_a_worker_has_swapped(settings, promoted):
    first, second = promoted
    heartbeat = beat(settings, first)

    def follow() -> None:
        time.sleep(0.3)
        heartbeat.beat(release_id=second, pack_id="p", pinned=False)

    thread = threading.Thread(target=follow)
    thread.start()
    found = wait_for_workers(settings, second, wait_seconds=600)
    thread.join()
    assert found == {"workers": [ME], "lagging": []}


def test_a_worker_that_does_not_follow_is_named(settings, promoted, capsys):
    first, second = promoted
    beat(settings, second)
    beat(settings, first)
    found = wait_for_workers(settings, second, wait_seconds=0.2)
    assert found["workers"] == [ME]
    (lagging,) = found["lagging"]
    assert (lagging["worker"], lagging["release_id"]) == (ME, first)
    assert "not swapped within 0.2 s" in lagging["reason"]
    assert f"worker {ME} still serves {first}" in capsys.readouterr().out


def test_a_worker_that_refused_is_named_with_its_reason_and_not_waited_for(settings, promoted):
    first, second = promoted
    beat(settings, first, refused=Refused(second, "weights.txt was changed"))
    found = wait_for_workers(settings, second, wait_seconds=600)
    assert found["lagging"] == [
        {"worker": ME, "release_id": first, "reason": "refused: weights.txt was changed"}
    ]


def test_a_pinned_worker_is_not_waited_for(settings, promoted):
    beat(settings, promoted[0], pinned=True)
    found = wait_for_workers(settings, promoted[1], wait_seconds=600)
    assert found == {"workers": [], "lagging": []}


def test_a_promotion_that_was_replaced_meanwhile_is_not_waited_for(settings, promoted):
    first, second = promoted
    beat(settings, second)
    found = wait_for_workers(settings, first, wait_seconds=600)
    assert [row["worker"] for row in found["lagging"]] == [ME]


@pytest.fixture
def follower(settings: Settings, store: ReleaseStore) -> Iterator[None]:
    """A worker that switches to the promoted release within a moment."""
    stopping = threading.Event()

    def follow() -> None:
        heartbeat = Heartbeat(settings)
        while not stopping.wait(0.05):
            if release_id := store.current_id():
                heartbeat.beat(release_id=release_id, pack_id="p", pinned=False)

    thread = threading.Thread(target=follow)
    thread.start()
    yield
    stopping.set()
    thread.join()


@pytest.mark.usefixtures("follower")
def test_promotion_and_rollback_are_audited_and_say_who_followed(settings, store):
    first = publish(store, about())
    store.promote(first)
    second = publish(store, about(compared_with=first), payload="other weights")
    while not live_workers(settings):
        time.sleep(0.01)

    promotion = promote(Settings(), second)
    assert (promotion["promoted"], promotion["workers"], promotion["lagging"]) == (True, [ME], [])
    undone = roll_back(settings, reason="bad lists")
    assert (undone["serving"], undone["workers"], undone["lagging"]) == (first, [ME], [])
    promoted, rollback = read_audit(settings)
    assert (promoted["command"], promoted["from"], promoted["to"]) == ("promote", first, second)
    assert (rollback["command"], rollback["from"], rollback["to"]) == ("rollback", second, first)
    assert (rollback["reason"], rollback["pid"]) == ("bad lists", os.getpid())


def test_a_failed_gate_audits_nothing(settings, store):
    assert not promote(Settings(), publish(store, about(coverage=0.0)))["promoted"]
    assert read_audit(settings) == []


def test_a_rollback_without_an_earlier_release_changes_and_audits_nothing(settings, store):
    store.promote(publish(store, about()))
    with pytest.raises(ReleaseError, match="no earlier release"):
        roll_back(settings, reason="bad lists")
    assert read_audit(settings) == []
