"""Promotions and rollbacks in a service with two workers, while clients send requests.

20 swaps in `make test`, 200 with SHORTLIST_ENDURANCE=1 (`make endurance`).
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from benchmarks.swap import publish_again
from flows.releases.acknowledge import wait_for_workers
from flows.rollback import roll_back
from shortlist.config import Settings
from shortlist.home.workers import live_workers
from shortlist.http.api import RecommendRequest, SimilarRequest
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.background import in_background
from tests.services.conftest import Served, copy_home, serving

pytestmark = pytest.mark.slow
WORKERS = 2
SWAPS = 200 if os.environ.get("SHORTLIST_ENDURANCE") else 20
CLIENTS = 3


@dataclass
class Traffic:
    """Clients that send requests in threads, and a record of their responses and errors."""

    url: str
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def flowing(self) -> AbstractContextManager[None]:
        return in_background(*(partial(self._ask, client) for client in range(CLIENTS)))

    def _ask(self, number: int, stopping: threading.Event) -> None:
        asked = 0
        while not stopping.is_set():
            # A connection stays with one worker, so connect again regularly to reach all workers.
            with ShortlistClient(self.url) as client:
                for _ in range(20):
                    asked += 1
                    self._one(client, number + CLIENTS * asked)

    def _one(self, client: ShortlistClient, number: int) -> None:
        start = time.monotonic()
        try:
            if number % 5:
                user = RecommendRequest(user_id=f"u{number % 80 + 1}", k=5)
                answer = client.recommend(user)
            else:
                answer = client.similar(SimilarRequest(item_id=f"i{number % 60 + 1}", k=5))
            if not answer.items:
                self.failed.append(f"empty answer of {answer.release_id}")
        except ServiceError as error:
            self.failed.append(str(error))
        else:
            self.answers.append((start, time.monotonic(), answer.release_id))


class Memory:
    """Resident memory of each worker in bytes: now, and its peak while it is watched."""

    def __init__(self, pids: list[int]):
        self._processes = {pid: psutil.Process(pid) for pid in pids}
        self.peak = self.now()

    def now(self) -> dict[int, int]:
        return {pid: process.memory_info().rss for pid, process in self._processes.items()}

    def watched(self) -> AbstractContextManager[None]:
        return in_background(self._watch)

    def _watch(self, stopping: threading.Event) -> None:
        while not stopping.wait(0.05):
            for pid, size in self.now().items():
                self.peak[pid] = max(self.peak[pid], size)


@pytest.fixture(scope="module")
def swapped(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = copy_home(
        served_home, tmp_path_factory.mktemp("swaps"), folders=("releases", "packs", "feast")
    )
    with serving(
        home,
        SHORTLIST_CLOCK="replay",
        BENTOML_CONFIG_OPTIONS=f"services.shortlist.workers={WORKERS}",
    ) as served:
        yield served


@pytest.fixture(scope="module")
def settings(swapped: Served) -> Settings:
    return Settings(home=swapped.home, clock="replay")


@pytest.fixture(scope="module")
def another(settings: Settings) -> str:
    """The id of a second release with the same models."""
    return publish_again(settings)


def pids_of(settings: Settings) -> list[int]:
    """Wait until all workers run, and return their process ids.

    The service is ready as soon as the first worker runs.
    """
    deadline = time.monotonic() + 120
    while len(workers := live_workers(settings)) < WORKERS:
        assert time.monotonic() < deadline, f"{len(workers)} of {WORKERS} workers started"
        time.sleep(0.1)
    return [worker.pid for worker in workers]


def test_no_request_fails_and_memory_is_bounded(swapped, settings, another):
    store = ReleaseStore(settings.releases)
    first = store.open().release_id
    traffic, pids = Traffic(swapped.url), pids_of(settings)
    memory = Memory(pids)
    # (pointer moved at, all workers switched at, release)
    moved: list[tuple[float, float, str]] = []
    began = time.monotonic()
    with traffic.flowing(), memory.watched():
        time.sleep(5)
        steady = memory.now()
        for swap in range(SWAPS):
            if swap == 10:
                after_ten = memory.now()
            at = time.monotonic()
            if swap % 2:
                followed = roll_back(settings, reason="test")
                assert followed["serving"] == first
            else:
                store.promote(another)
                followed = wait_for_workers(settings, another)
            moved.append((at, time.monotonic(), first if swap % 2 else another))
            assert (len(followed["workers"]), followed["lagging"]) == (WORKERS, []), swap
            time.sleep(0.3)
        at_the_end = memory.now()

    assert traffic.failed == []
    # A release may respond from its promotion until all workers have switched to the next one.
    starts = [began, *(at for at, _, _ in moved)]
    ends = [*(done for _, done, _ in moved), float("inf")]
    allowed = list(zip(starts, ends, [first, *(to for _, _, to in moved)], strict=True))
    for start, end, release_id in traffic.answers:
        assert any(
            release_id == to and end >= begin and start <= last for begin, last, to in allowed
        ), f"{release_id} answered when it was not promoted"
    assert {release_id for _, _, release_id in traffic.answers} == {first, another}
    for pid in pids:
        assert memory.peak[pid] <= 2.2 * steady[pid]
        assert at_the_end[pid] <= 1.1 * after_ten[pid]
    assert pids_of(settings) == pids  # no worker was restarted


def test_readiness_says_which_worker_answers_and_figures_are_of_all(swapped, settings):
    pids = set(pids_of(settings))
    seen: set[int] = set()
    deadline = time.monotonic() + 30
    while seen != pids and time.monotonic() < deadline:
        with ShortlistClient(swapped.url) as client:
            seen.add(client.ready().pid)
    assert seen == pids
    page = httpx.get(f"{swapped.url}/metrics").text
    swaps = re.search(
        r'^shortlist_swaps_total\{outcome="swapped",what="release"\} (\S+)$', page, re.MULTILINE
    )
    assert swaps is not None
    assert float(swaps[1]) == WORKERS * SWAPS


def test_a_broken_release_is_refused_by_every_worker_and_named(swapped, settings, another):
    store = ReleaseStore(settings.releases)
    serving_now = store.open().release_id
    broken = next(path for path in (store.root / another / "sources").rglob("*") if path.is_file())
    broken.write_bytes(b"broken")
    pointer = store.root / "current.json"
    replaced = pointer.with_suffix(".new")
    replaced.write_text(f'{{"history": ["{serving_now}", "{another}"]}}')
    replaced.replace(pointer)  # `promote` would refuse this release

    followed = wait_for_workers(settings, another)

    assert followed["workers"] == []
    assert len(followed["lagging"]) == WORKERS
    for row in followed["lagging"]:
        assert row["release_id"] == serving_now
        assert f"{broken.name} has sha256" in row["reason"]
    with ShortlistClient(swapped.url) as client:
        ready = client.ready()
        assert ready.refused is not None
        assert (ready.release_id, ready.refused.release_id) == (serving_now, another)
        assert client.recommend(RecommendRequest(user_id="u1")).release_id == serving_now
