"""A home that an earlier version made is upgraded, and the service then answers everybody."""

import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shortlist.api import RecommendRequest
from shortlist.client import ShortlistClient
from shortlist.config import Settings
from shortlist.features.finalize import schema_hash
from shortlist.release import ReleaseStore
from shortlist.workers import Heartbeat
from tests.background import in_background
from tests.conftest import NUM_USERS, shortlist, world_toml, write_world
from tests.services.conftest import serving

ARCHIVE = Path(__file__).parent / "homes" / "tiny-9dbcffb.tar.xz"
"""A home of commit 9dbcffb: four sources, LambdaMART, replayed traffic in inbox and serving log."""
TRAIN = """sources = [
    { kind = "item_knn" },
    { kind = "content", optimiser = { num_epochs = 3 } },
    { kind = "recent_popularity" },
]
rankers = [{ kind = "lambdamart" }]
"""


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "home", filter="data")
    return Settings(home=tmp_path / "home")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The run's TOML that made the archive, with its cheap sources."""
    folder = write_world(tmp_path / "world")
    path = folder / "tiny.toml"
    path.write_text(world_toml(folder, train=TRAIN, hold_back=False))
    return path


def answers(settings: Settings, *, clock: str = "replay") -> list:
    """The service's answer to every user of the test world, and to an unknown user."""
    users = [*(f"u{number + 1}" for number in range(NUM_USERS)), "somebody new"]
    with (
        serving(settings.home, SHORTLIST_CLOCK=clock) as served,
        ShortlistClient(served.url) as client,
    ):
        return [client.recommend(RecommendRequest(user_id=user, k=5)) for user in users]


@contextmanager
def beating(settings: Settings, release_id: str) -> Iterator[None]:
    """The heartbeat of a worker that serves the home."""
    heartbeat = Heartbeat(settings)

    def beat(over: threading.Event) -> None:
        while not over.is_set():
            heartbeat.beat(release_id=release_id, pack_id="", pinned=False)
            over.wait(1)

    with in_background(beat):
        yield
    heartbeat.remove()


def upgrade(settings: Settings, config: Path) -> tuple[int, dict]:
    done = shortlist("upgrade", str(config), "--json", home=settings.home)
    assert done.returncode in (0, 1), done.stderr[-3_000:]
    return done.returncode, json.loads(done.stdout)


def test_a_home_of_an_earlier_version_is_upgraded_without_an_empty_answer(old, config):
    # A service of that version has no heartbeat: it may run, and is not switched under its feet.
    before = (old.features / "manifest.json").read_text()
    code, result = upgrade(old, config)
    assert (code, result["switched"]) == (1, False)
    assert (old.features / "manifest.json").read_text() == before
    code, result = upgrade(old, config)
    assert (code, result["switched"]) == (0, True)
    given = answers(old)
    assert [len(answer.items) for answer in given] == [5] * (NUM_USERS + 1)
    assert {answer.release_id for answer in given} == {result["release_id"]}
    assert sum(answer.user_known for answer in given) == NUM_USERS


def test_what_a_running_service_reads_stays_until_the_switch(old, config):
    """On the wall clock, whose item features have an hourly tick."""
    config.write_text(config.read_text().replace('clock = "replay"', 'clock = "wall"'))
    before = ReleaseStore(old.releases).open().release_id
    lines = sum(len(path.read_text().splitlines()) for path in old.events.rglob("*.jsonl"))
    assert lines > 0
    # A service that runs is not switched under its feet: everything is built and waits.
    with beating(old, before):
        code, result = upgrade(old, config)
    assert (code, result["switched"], result["trained"]) == (1, False, True)
    assert ReleaseStore(old.releases).current_id() == before
    assert json.loads((old.features / "manifest.json").read_text())["schema"] != schema_hash()

    code, result = upgrade(old, config)
    assert (code, result["switched"], result["trained"]) == (0, True, True)
    assert ReleaseStore(old.releases).current_id() == result["release_id"] != before
    assert not (old.home / "upgrade").exists()
    assert json.loads((old.features / "manifest.json").read_text())["schema"] == schema_hash()
    given = answers(old, clock="wall")
    assert [len(answer.items) for answer in given] == [5] * (NUM_USERS + 1)
    assert upgrade(old, config)[1]["outdated"] == []
