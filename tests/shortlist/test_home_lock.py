"""Locks of a home, taken by real processes and threads."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shortlist.config import Settings
from shortlist.home.home_lock import HomeLocked, home_lock

HOLD = """
import sys
from pathlib import Path
from shortlist.config import Settings
from shortlist.home.home_lock import home_lock

with home_lock(Settings(home=Path(sys.argv[1])), sys.argv[2], what="a test's refresh"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(home: Path, name: str = "refresh") -> Iterator[subprocess.Popen[str]]:
    """Start another process that holds the lock until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # closes the pipes at the end
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with holder(tmp_path) as process:
        content = json.loads((tmp_path / "locks" / "refresh.lock").read_text())
        assert (content["pid"], content["host"]) == (process.pid, os.uname().nodename)
        with (
            pytest.raises(HomeLocked, match="'refresh' is still held") as refused,
            home_lock(settings, "refresh"),
        ):
            raise AssertionError("two processes hold the lock")
        for part in (f"process {process.pid}", content["since"], "a test's refresh"):
            assert part in str(refused.value)
        with home_lock(settings, "train"), home_lock(settings, "release"):
            pass  # a lock of another name is free
    with home_lock(settings, "refresh"):
        pass


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with home_lock(Settings(home=tmp_path), "refresh", what="the next"):
            content = json.loads((tmp_path / "locks" / "refresh.lock").read_text())
            assert (content["pid"], content["what"]) == (os.getpid(), "the next")


def test_waiting_ends_when_the_holder_has_finished(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert process.stdin is not None
        threading.Timer(0.3, process.stdin.close).start()
        with home_lock(Settings(home=tmp_path), "refresh", wait_seconds=30):
            pass


def test_a_holder_enters_again_but_another_thread_does_not(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    refused: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with home_lock(settings, "train"):
                pass
        except HomeLocked as error:
            refused.append(error)

    with home_lock(settings, "train"):
        with home_lock(settings, "train"):
            pass
        thread = threading.Thread(target=elsewhere)  # must fail: the outer block holds the lock
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_two_homes_do_not_exclude_each_other(tmp_path: Path) -> None:
    with holder(tmp_path / "one"), home_lock(Settings(home=tmp_path / "two"), "refresh"):
        pass
