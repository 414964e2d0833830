"""A refresh yields the processor to a service on the same machine."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortlist.config import Settings
from shortlist.home.low_priority import NICE

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="niceness and cores per thread are of Linux"
)

PROGRAM = """
import json, os, threading
from pathlib import Path
from shortlist.config import Settings
from shortlist.home.low_priority import yielding_to_service

def state():
    other = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    nice = sorted({os.getpriority(os.PRIO_PROCESS, thread) for thread in other})
    return [nice, max(len(os.sched_getaffinity(thread)) for thread in other)]

waiting = threading.Event()
threading.Thread(target=waiting.wait).start()
states = [state()]
with yielding_to_service(Settings()):
    states.append(state())
states.append(state())
waiting.set()
print(json.dumps(states))
"""


def states(home: Path, **environment: str) -> list[list]:
    """Return [niceness of the threads, number of cores] before, inside and after the block."""
    given = os.environ | {"SHORTLIST_HOME": str(home)} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A home with the heartbeat of a worker: this process."""
    worker = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "release_id": "r",
        "pack_id": "p",
        "pinned": False,
        "refused": None,
        "at": time.time_ns() // 1_000,
    }
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "1.json").write_text(json.dumps(worker))
    return tmp_path


def test_beside_a_service_all_threads_get_low_priority_and_half_of_the_cores(served: Path) -> None:
    before, inside, after = states(served)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    assert before[0] == [nice]
    assert inside == [[max(nice, NICE)], max(1, before[1] // 2)]
    assert after[1] == before[1]


def test_without_a_service_nothing_changes(tmp_path: Path) -> None:
    before, inside, after = states(tmp_path)
    assert before == inside == after


def test_it_can_be_switched_off(served: Path) -> None:
    before, inside, _ = states(served, SHORTLIST_GENTLE_REFRESH="false")
    assert before == inside


def test_a_service_on_another_machine_changes_nothing(served: Path) -> None:
    path = served / "workers" / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere"}))
    before, inside, _ = states(served)
    assert before == inside


def test_it_is_on_by_default() -> None:
    assert Settings().gentle_refresh
