"""Faults of a running service under load: it keeps answering, and loses no acknowledged event.

Tests the real service with two workers. A response may lack stages, which it must name in
`skipped_stages`. No response may be empty or an error.
"""

import json
import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from models.recommend.recommender import Recommender
from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, latest_pack
from shortlist.home.workers import live_workers
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.services.conftest import Served, copy_home, ids, inbox, serving

KILLS = 50 if os.environ.get("SHORTLIST_ENDURANCE") else 2
ROBOT_EVENTS = 100_000 if os.environ.get("SHORTLIST_ENDURANCE") else 5_000
USERS = [f"u{n}" for n in range(1, 81)]


@dataclass
class Load:
    """Counts of what clients received while they sent requests and events without a pause."""

    url: str
    empty: int = 0
    answered: int = 0
    degraded: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Texts of error responses."""
    reset: int = 0
    """Number of requests without a response, because their worker was killed."""
    posted: list[str] = field(default_factory=list)
    """Ids of acknowledged events."""

    def run(self, over: threading.Event, number: int) -> None:
        """Send a request and an event in turn until `over` is set."""
        rng = np.random.default_rng(number)
        turn = 0
        with ShortlistClient(self.url) as client:
            while not over.is_set():
                user = str(rng.choice(USERS))
                try:
                    answer = client.recommend(RecommendRequest(user_id=user, k=5))
                    self.answered += 1
                    self.empty += not answer.items
                    for stage in answer.skipped_stages:
                        self.degraded[stage] = self.degraded.get(stage, 0) + 1
                    turn += 1
                    name = f"client-{number}-{turn}"
                    event = Event(event_id=name, user_id=user, item_id="i1", event_type="view")
                    client.events([event])
                    self.posted.append(name)
                except ServiceError as error:
                    if error.status is None:
                        self.reset += 1
                    else:
                        self.refused.append(str(error))


@contextmanager
def load(url: str, *, clients: int = 3) -> Iterator[Load]:
    """Run clients during the block; then assert that no response was empty or an error."""
    seen, over = Load(url), threading.Event()
    threads = [threading.Thread(target=seen.run, args=(over, n)) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
        record(seen)
    assert seen.refused == []
    assert seen.empty == 0
    assert seen.answered > 0


def record(seen: Load) -> None:
    """Append what clients saw to the file that SHORTLIST_FAULTS names, for a table of faults."""
    if os.environ.get("SHORTLIST_FAULTS"):
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0]
        line = asdict(seen) | {"fault": test, "posted": len(seen.posted), "url": None}
        with Path(os.environ["SHORTLIST_FAULTS"]).open("a") as file:
            file.write(json.dumps(line) + "\n")


def wait(holds, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.1)


def hang_up(url: str) -> None:
    """Request a list and close the connection before the response."""
    address = urlsplit(url)
    body = b'{"user_id": "u1"}'
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )


def publish_with_a_broken_source(home: Path) -> str:
    """Promote a release whose two-tower source fails when it scores; return the previous id.

    The index still finds items, but the item vectors lack a dimension.
    """
    store = ReleaseStore(home / "releases")
    good = store.open()
    with store.publishing(good.about | {"note": "broken"}) as (folder, about):
        for name in good.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(good.file(name), folder / name)
        path = folder / "sources" / "two_tower" / "items.safetensors"
        vectors = load_file(path)["item_vectors"]
        save_file({"item_vectors": np.ascontiguousarray(vectors[:, 1:])}, path)
    store.promote(about["release_id"])
    return good.release_id


@pytest.fixture(scope="module")
def faulty(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with two workers on the wall clock."""
    home = copy_home(
        served_home, tmp_path_factory.mktemp("faulty"), folders=("releases", "packs", "feast")
    )
    with serving(home, SHORTLIST_CLOCK="wall", SHORTLIST_WORKERS="2") as served:
        wait(lambda: len(live_workers(Settings(home=home))) == 2)
        yield served


def test_concurrent_answers_of_two_workers_are_those_of_a_recommender(faulty: Served) -> None:
    """Eight clients at once get the same lists and scores as one request after the other.

    The reference is a Recommender in this process, which replays the requests offline.
    """
    settings = Settings(home=faulty.home)
    alone = Recommender.load(
        ReleaseStore(settings.releases).open(),
        OnlineReader(settings),
        pack=latest_pack(settings.packs),
    )
    requests = [RecommendRequest(user_id=user, k=10) for user in USERS]
    requests += [request.model_copy(update={"exclude": ["i1", "i2"]}) for request in requests]

    def ask(request: RecommendRequest) -> tuple[RecommendRequest, Any]:
        with ShortlistClient(faulty.url) as client:  # a new connection may reach another worker
            return request, client.recommend(request)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, requests * 2))
    for request, answer in answers:
        replayed = alone.recommend(request, at=answer.at)
        assert ids(answer) == [item.item_id for item in replayed.items], request
        np.testing.assert_allclose(
            [item.score for item in answer.items],
            [item.score for item in replayed.items],
            rtol=1e-5,
        )
    pids = {
        entry_path.name.partition("-")[0]
        for entry_path in (faulty.home / "serving_log").rglob("*.jsonl")
    }
    assert len(pids) >= 2  # each worker has written its own file


def test_the_online_store_disappears_and_comes_back(faulty: Served) -> None:
    database = faulty.home / "feast" / "online_store.db"
    with load(faulty.url) as seen:
        wait(lambda: seen.answered > 10)
        assert seen.degraded == {}
        with closing(sqlite3.connect(database, timeout=60)) as store:
            store.execute('ALTER TABLE "shortlist_user_stats" RENAME TO "away"')
            store.commit()
            before = seen.answered
            wait(lambda: seen.answered > before + 40)
            assert set(seen.degraded) == {"features"}
            assert sum(seen.degraded.values()) >= 30
            store.execute('ALTER TABLE "away" RENAME TO "shortlist_user_stats"')
            store.commit()

        def recovered() -> bool:
            degraded, answered = sum(seen.degraded.values()), seen.answered
            time.sleep(1)
            return seen.answered > answered and sum(seen.degraded.values()) == degraded

        wait(recovered)
    assert faulty.log.read_text(errors="replace").count("stage features failed") <= 20


def test_a_killed_worker_is_replaced_and_no_acknowledged_event_is_lost(faulty: Served) -> None:
    settings = Settings(home=faulty.home)
    with load(faulty.url) as seen:
        for _ in range(KILLS):
            before, answered = {worker.pid for worker in live_workers(settings)}, seen.answered
            wait(lambda answered=answered: seen.answered > answered + 10)
            killed = min(before)
            psutil.Process(killed).send_signal(signal.SIGKILL)
            wait(lambda killed=killed: not psutil.pid_exists(killed))
            wait(
                lambda before=before: (
                    len({worker.pid for worker in live_workers(settings)} - before) >= 1
                ),
                seconds=120,
            )
    stored = inbox(faulty.home)
    missing = [name for name in seen.posted if f'"{name}"'.encode() not in stored]
    assert missing == []
    assert len(seen.posted) > 50


def test_a_robot_with_very_many_events_slows_nobody_down(faulty: Served) -> None:
    """One user posts more events than a refresh can follow; all users get complete answers."""
    with load(faulty.url, clients=1) as seen, ShortlistClient(faulty.url) as client:
        for post in range(ROBOT_EVENTS // 1_000):
            events = [
                Event(
                    event_id=f"robot-{post}-{n}", user_id="robot", item_id=item, event_type="view"
                )
                for n in range(1_000)
                for item in (f"i{1 + n % 40}",)
            ]
            client.events(events)
        answer = client.recommend(RecommendRequest(user_id="robot", k=5))
        assert len(answer.items) == 5
        assert answer.skipped_stages == []
    assert seen.degraded == {}


def test_clients_that_hang_up_and_long_exclusions_harm_nobody(faulty: Served) -> None:
    excluded = [f"i{n}" for n in range(1, 58)] + [f"none-{n}" for n in range(9_943)]
    with load(faulty.url), ShortlistClient(faulty.url) as client:
        for _ in range(30):
            hang_up(faulty.url)
        answer = client.recommend(RecommendRequest(user_id="nobody", exclude=excluded, k=10))
    assert {item.item_id for item in answer.items} == {"i58", "i59", "i60"}


def test_a_source_that_raises_is_named_and_rolled_back_under_load(faulty: Served) -> None:
    with load(faulty.url) as seen:
        good = publish_with_a_broken_source(faulty.home)
        with ShortlistClient(faulty.url) as client:
            # The new release is warmed with a few requests. They don't fail, because a broken
            # source is skipped.
            wait(lambda: client.ready().release_id != good)
            before = seen.answered
            wait(lambda: seen.answered > before + 20)
            assert "two_tower_scores" in seen.degraded
            wait(lambda: "two_tower_scores" in client.ready().stages_off)
        ReleaseStore(faulty.home / "releases").roll_back()
        with ShortlistClient(faulty.url) as client:
            wait(lambda: client.ready().release_id == good)
