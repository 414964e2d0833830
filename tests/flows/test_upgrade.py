"""`shortlist upgrade` of a home of an earlier version; the service then answers all users."""

import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.runtime.configuration import load_run_config
from flows.upgrade import READY, UpgradeError, switch, take_release
from shortlist.config import Settings
from shortlist.features.finalize import schema_hash
from shortlist.files.plain_json import write_json
from shortlist.home.workers import Heartbeat
from shortlist.http.api import RecommendRequest
from shortlist.http.client import ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.background import in_background
from tests.conftest import NUM_USERS, shortlist, world_toml, write_world
from tests.services.conftest import serving

ARCHIVE = Path(__file__).parent / "homes" / "tiny-9dbcffb.tar.xz"
"""A home of commit 9dbcffb: four sources, LambdaMART, replayed traffic in inbox and serving log."""
TRAIN = """sources = [
    { kind = "item_knn" },
    { kind = "recent_popularity" },
]
rankers = [{ kind = "lambdamart", num_models = 1, num_rounds = 20 }]
"""


@pytest.fixture
def old(tmp_path: Path) -> Settings:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "home", filter="data")
    return Settings(home=tmp_path / "home")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config with which the home in ARCHIVE was made, with fewer sources."""
    folder = write_world(tmp_path / "world")
    path = folder / "tiny.toml"
    path.write_text(world_toml(folder, train=TRAIN, hold_back=False))
    return path


def answers(settings: Settings, *, clock: str = "replay") -> list:
    """Return the service's recommendations for each user of the data set and an unknown user."""
    users = [*(f"u{number + 1}" for number in range(NUM_USERS)), "somebody new"]
    with (
        serving(settings.home, SHORTLIST_CLOCK=clock) as served,
        ShortlistClient(served.url) as client,
    ):
        return [client.recommend(RecommendRequest(user_id=user, k=5)) for user in users]


@contextmanager
def beating(settings: Settings, release_id: str) -> Iterator[None]:
    """Keep writing the heartbeat of a worker that serves this release."""
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
    assert done.stdout, done.stderr[-3_000:]
    return done.returncode, json.loads(done.stdout)


def test_a_home_of_an_earlier_version_is_upgraded_without_an_empty_answer(old, config):
    # A service of the earlier version writes no heartbeat, so one may be running. The first
    # upgrade therefore only builds, and the second one switches.
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
    """While a service runs, an upgrade doesn't change the files that the service reads.

    This home uses the wall clock, for which item features have an hourly tick.
    """
    config.write_text(config.read_text().replace('clock = "replay"', 'clock = "wall"'))
    before = ReleaseStore(old.releases).open().release_id
    lines = sum(len(path.read_text().splitlines()) for path in old.events.rglob("*.jsonl"))
    assert lines > 0
    # While a service runs, the upgrade builds everything but doesn't switch.
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


def publish(store: ReleaseStore, name: str) -> str:
    with store.publishing({"name": name}) as (folder, about):
        (folder / "models.txt").write_text(name)
    return about["release_id"]


@pytest.fixture
def built(tmp_path: Path) -> tuple[Settings, Settings, str]:
    """A home with a champion, the home of its built upgrade, and the id of the new release."""
    settings = Settings(home=tmp_path / "home")
    staged = Settings(home=settings.home / "upgrade")
    live, new = ReleaseStore(settings.releases), ReleaseStore(staged.releases)
    champion = publish(live, "champion")
    live.promote(champion, spent=0.002)
    release_id = publish(new, "challenger")
    for name in ("features", "feast", "packs"):
        (settings.home / name).mkdir()
        (staged.home / name).mkdir()
    ready = {"schema": schema_hash(), "outdated": ["states"], "champion": champion}
    write_json(staged.home / READY, ready | {"release_id": release_id, "spent": 0.009})
    return settings, staged, release_id


def test_an_upgrade_carries_the_loss_budget(built) -> None:
    settings, staged, release_id = built
    take_release(settings, staged, release_id, spent=0.009)
    assert list(ReleaseStore(settings.releases).history().values()) == [0.002, 0.009]
    take_release(settings, staged, release_id, spent=0.009)  # again, as after an interrupted switch
    assert list(ReleaseStore(settings.releases).history().values()) == [0.002, 0.009]


def test_an_upgrade_is_not_switched_in_over_a_release_that_it_was_not_compared_with(
    built, config: Path
) -> None:
    settings, staged, _ = built
    store = ReleaseStore(settings.releases)
    nightly = publish(store, "nightly")
    store.promote(nightly)
    with pytest.raises(UpgradeError, match=f"release {nightly} serves now.*upgrade` again"):
        switch(settings, staged, load_run_config(config))
    assert store.current_id() == nightly
    assert (staged.home / "features").is_dir()
    assert not (settings.home / "before-upgrade").exists()
    assert not (staged.home / READY).exists()  # so the next upgrade rebuilds
