"""The home's clock, and the cut: the time that separates the events of two refreshes."""

import threading
import time
from pathlib import Path

import pytest

from shortlist.clock import HomeClock
from shortlist.config import Settings


def test_the_replay_clock_is_shared_durable_and_only_goes_forward(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    clock = HomeClock(settings, "replay", start=100)
    assert clock.now() == 100
    clock.advance(250)
    clock.advance(200)
    assert clock.now() == 250
    assert HomeClock(settings, "replay", start=100).now() == 250
    assert HomeClock(settings, "replay", start=300).now() == 300


def test_a_replay_clock_that_cannot_be_written_goes_on_in_its_process(tmp_path: Path) -> None:
    """After a failed write, the process keeps its new time and stores it with the next write."""
    settings = Settings(home=tmp_path)
    clock = HomeClock(settings, "replay", start=100)
    (tmp_path / ".clock.lock").mkdir()  # a folder, so that the lock file can't be opened
    with pytest.raises(OSError, match=r"clock\.lock"):
        clock.advance(250)
    assert clock.now() == 250
    (tmp_path / ".clock.lock").rmdir()
    clock.advance(200)
    assert HomeClock(settings, "replay").now() == 250


def test_the_wall_clock_is_the_machines(tmp_path: Path) -> None:
    clock = HomeClock(Settings(home=tmp_path), "wall", start=10**18)
    clock.advance(10**18)
    low = time.time_ns() // 1_000
    assert low <= clock.now() <= time.time_ns() // 1_000


def test_stamps_after_a_cut_are_later_than_the_cut(tmp_path: Path) -> None:
    for kind in ("wall", "replay"):
        clock = HomeClock(Settings(home=tmp_path / kind), kind, start=1_000)
        with clock.stamping() as before:
            pass
        until = clock.cut()
        with clock.stamping() as after:
            pass
        assert before <= until < after
        assert clock.cut() > until


def test_a_cut_waits_for_posts_that_are_being_written(tmp_path: Path) -> None:
    clock = HomeClock(Settings(home=tmp_path), "wall")
    written, cuts = [], []

    def refresh() -> None:
        cuts.append((clock.cut(), list(written)))

    with clock.stamping() as stamp:
        thread = threading.Thread(target=refresh)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        written.append(stamp)
    thread.join()
    ((until, seen),) = cuts
    assert stamp <= until
    assert seen == [stamp]


def test_posts_without_a_pause_do_not_keep_a_cut_out(tmp_path: Path) -> None:
    """A cut gets its lock even if four threads take turns holding the lock of posts."""
    settings, over = Settings(home=tmp_path), threading.Event()

    def post() -> None:
        clock = HomeClock(settings, "wall")
        while not over.is_set():
            with clock.stamping():
                over.wait(0.005)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    cuts: list[int] = []
    cutting = threading.Thread(target=lambda: cuts.append(HomeClock(settings, "wall").cut()))
    cutting.start()
    cutting.join(60)
    over.set()
    for thread in threads:
        thread.join()
    assert len(cuts) == 1
