"""The home's clock: one durable value in replay, the machine's time otherwise."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortlist.clock import CLOCK_FILE, ClockError, HomeClock
from shortlist.config import Settings
from shortlist.lake.snapshot import LakeError, Manifest, commit


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def commit_lake(home: Settings, *, version: int, latest: int) -> None:
    part = {"files": [], "rows": 1, "earliest": 0, "latest": latest}
    commit(home.lake, Manifest(version=version, partitions={"2024": part}), new={}, tables={})


def test_the_wall_clock_is_the_machine_s_and_cannot_be_moved(home: Settings) -> None:
    clock = HomeClock(home, "wall")
    before = time.time_ns() // 1_000
    assert before <= clock.now() <= time.time_ns() // 1_000
    assert clock.advance(4_000_000_000_000_000) <= time.time_ns() // 1_000
    assert not (home.home / CLOCK_FILE).exists()


def test_the_replay_clock_is_kept_and_never_goes_back(home: Settings) -> None:
    clock = HomeClock(home, "replay", start=5)
    assert clock.now() == 5
    assert clock.advance(20) == 20
    assert clock.advance(10) == 20
    assert HomeClock(home, "replay").now() == 20


def test_the_lake_is_always_in_the_past(home: Settings) -> None:
    clock = HomeClock(home, "replay", start=5)
    commit_lake(home, version=1, latest=100)
    assert clock.now() == 101
    clock.advance(150)
    commit_lake(home, version=2, latest=120)
    assert clock.now() == 150
    commit_lake(home, version=3, latest=200)
    assert clock.now() == 201


def test_a_clock_without_a_time_says_what_to_run(home: Settings) -> None:
    with pytest.raises(LakeError, match="shortlist run"):
        HomeClock(home, "replay").now()
    home.home.mkdir()
    (home.home / CLOCK_FILE).write_text("{}")
    with pytest.raises(ClockError, match="remove it"):
        HomeClock(home, "replay").now()


def test_processes_that_advance_at_once_leave_the_latest_time(home: Settings) -> None:
    code = (
        "import sys; from shortlist.clock import HomeClock; from shortlist.config import Settings\n"
        f"clock = HomeClock(Settings(home={str(home.home)!r}), 'replay')\n"
        "for step in range(50): clock.advance(int(sys.argv[1]) + 2 * step)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(first)]) for first in (1, 2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert HomeClock(home, "replay").now() == 100
