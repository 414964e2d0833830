"""A Bento serves the release and the code that it contains, in a home without releases."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from shortlist.datasets.service.service_log import load_serving_log
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.releases.release import MANIFEST, ReleaseStore
from tests.services.conftest import ROOT, Served, copy_home, environment, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Build a Bento; return its home (packs and online store, no release) and its tag."""
    home = copy_home(served_home, tmp_path_factory.mktemp("bento"), folders=("packs", "feast"))
    release = ReleaseStore(served_home / "releases").open()
    done = subprocess.run(
        [sys.executable, "-m", "services.build", "--release", str(release.path), "--json"],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout.splitlines()[-1])["tag"]


@pytest.fixture(scope="module")
def services() -> Iterator[ExitStack]:
    """A stack that stops all services of this module at its end."""
    with ExitStack() as started:
        yield started


@pytest.fixture(scope="module")
def latest() -> list[Served]:
    return []


@pytest.fixture
def bento(built: tuple[Path, str], services: ExitStack, latest: list[Served]) -> Served:
    """Service of the Bento, started by its tag on the wall clock, outside of the repository.

    It is restarted if a test has stopped it.
    """
    home, tag = built
    if not latest or latest[-1].process.poll() is not None:
        service = serving(home, what=tag, cwd=home, SHORTLIST_CLOCK="wall", PYTHONPATH="")
        latest.append(services.enter_context(service))
    return latest[-1]


@contextmanager
def without_tables(database: Path) -> Iterator[None]:
    """Rename all tables of an SQLite file, so that reads fail; restore their names at the end."""
    with closing(sqlite3.connect(database)) as store:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = [name for (name,) in store.execute(query)]
        for table in tables:
            store.execute(f'ALTER TABLE "{table}" RENAME TO "{table} away"')
        store.commit()
        try:
            yield
        finally:
            for table in tables:
                store.execute(f'ALTER TABLE "{table} away" RENAME TO "{table}"')
            store.commit()


def source(built: tuple[Path, str]) -> Path:
    home, tag = built
    name, version = tag.split(":")
    return home / "bentoml" / "bentos" / name / version / "src"


def test_a_bento_holds_the_release_and_the_code_and_nothing_else(built, served_home):
    release = ReleaseStore(served_home / "releases").open()
    inside = {path.name for path in source(built).iterdir()}
    packages = {"shortlist", "models", "services", "feature_repo", "release", "requirements.txt"}
    assert packages <= inside <= packages | {"bentofile.yaml"}
    manifest = (source(built) / "release" / MANIFEST).read_text()
    assert manifest == release.file(MANIFEST).read_text()
    assert not list(source(built).rglob("__pycache__"))


def test_it_serves_its_own_release(bento, built, served_home):
    with ShortlistClient(bento.url) as client:
        ready = client.ready()
        assert ready.release_id == ReleaseStore(served_home / "releases").current_id()
        assert ready.pinned_by == "a Bento serves the release that it carries"
        assert client.recommend(RecommendRequest(user_id="u1", k=5)).user_known
    assert not (bento.home / "releases").exists()


def test_the_wall_clock_takes_no_moment_from_a_request(bento):
    with (
        ShortlistClient(bento.url) as client,
        pytest.raises(ServiceError, match="at: only taken with the replay clock") as error,
    ):
        client.recommend(RecommendRequest(user_id="u1", at=1_700_000_000_000_000))
    assert error.value.status == 400


def test_without_the_feature_store_it_answers_and_keeps_events(bento):
    with ShortlistClient(bento.url) as client:
        assert client.recommend(RecommendRequest(user_id="u3", k=5)).skipped_stages == []
        with without_tables(bento.home / "feast" / "online_store.db"):
            answer = client.recommend(RecommendRequest(user_id="u3", k=5))
            assert answer.skipped_stages == ["features"]
            assert len(answer.items) == 5
            event = Event(event_id="kept", user_id="u3", item_id="i1", event_type="rating", value=5)
            assert client.events([event]).accepted == 1
        assert client.recommend(RecommendRequest(user_id="u3", k=5)).skipped_stages == []
    inbox = "".join(path.read_text() for path in (bento.home / "events").rglob("*.jsonl"))
    assert inbox.count('"kept"') == 1


def test_a_normal_stop_loses_nothing(bento):
    with ShortlistClient(bento.url) as client:
        answered = {
            client.recommend(RecommendRequest(user_id="u1", k=3)).request_id for _ in "1234"
        }
    bento.stop()
    logged = load_serving_log(bento.home / "serving_log").column("request_id").to_pylist()
    assert answered <= set(logged)
    for request_id in answered:
        assert logged.count(request_id) == 3
