"""Heartbeats of service workers: content, age limits, and removal of stale files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shortlist.config import Settings
from shortlist.home.workers import STALE, Heartbeat, Refused, live_workers


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def beat(settings: Settings, **changes: Any) -> Path:
    """Write a heartbeat of this process and overwrite some of its fields; return its path."""
    Heartbeat(settings).beat(release_id="r1", pack_id="p1", pinned=False)
    path = max((settings.home / "workers").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_a_worker_says_what_it_serves_and_what_it_refused(settings):
    heartbeat = Heartbeat(settings)
    heartbeat.beat(release_id="r1", pack_id="p1", pinned=False, refused=Refused("r2", "broken"))
    (worker,) = live_workers(settings)
    assert (worker.pid, worker.release_id, worker.pack_id) == (os.getpid(), "r1", "p1")
    assert worker.refused == Refused("r2", "broken")
    heartbeat.beat(release_id="r3", pack_id="p1", pinned=True)
    (worker,) = live_workers(settings)
    assert (worker.release_id, worker.pinned, worker.refused) == ("r3", True, None)
    heartbeat.remove()
    assert live_workers(settings) == []


def test_no_service_ran_there_yet(settings):
    assert live_workers(settings) == []


def test_an_old_heartbeat_is_removed(settings):
    at = json.loads(beat(settings).read_text())["at"]
    stale = beat(settings, at=at - STALE - 1_000_000)
    assert len(live_workers(settings)) == 1
    assert not stale.exists()


def test_the_heartbeat_of_a_dead_process_is_removed(settings):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = beat(settings, pid=process.pid)
    assert live_workers(settings) == []
    assert not path.exists()


def test_a_worker_of_another_machine_is_judged_by_its_time_alone(settings):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    beat(settings, pid=process.pid, host="elsewhere")
    assert [worker.name for worker in live_workers(settings)] == [f"elsewhere:{process.pid}"]


def test_a_file_that_is_no_heartbeat_is_removed(settings):
    path = beat(settings)
    path.write_text("{")
    assert live_workers(settings) == []
    assert not path.exists()
