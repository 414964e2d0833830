"""`DELETE /users/{id}` of a service with two workers: unknown at once, and old events stay out."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shortlist.config import Settings
from shortlist.forgetting.register import Register
from shortlist.forgetting.requests import ForgetInbox
from shortlist.home.workers import live_workers
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ServiceError, ShortlistClient
from tests.services.conftest import Served, copy_home, serving

ID = "person-7f3a@example.com/x"


@pytest.fixture(scope="module")
def shop(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with two workers in a copy of the served home."""
    home = tmp_path_factory.mktemp("forgetful") / "home"
    copy_home(served_home, home, folders=("releases", "packs", "feast"))
    with serving(home, SHORTLIST_WORKERS="2", SHORTLIST_CLOCK="replay") as served:
        deadline = time.monotonic() + 60
        while len(live_workers(Settings(home=home))) < 2:
            assert time.monotonic() < deadline, "the second worker doesn't start"
            time.sleep(0.2)
        yield served


def known(shop: Served) -> set[bool]:
    """Return whether both workers know the user: the answers to 12 new connections."""
    answers = set()
    for _ in range(12):
        with ShortlistClient(shop.url) as client:
            answers.add(client.recommend(RecommendRequest(user_id=ID, k=5)).user_known)
    return answers


def test_a_forgotten_user_is_unknown_until_later_events(
    shop: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ShortlistClient(shop.url) as client:
        item = client.recommend(RecommendRequest(recent_items=[])).items[0].item_id
        event = Event(event_id="p-1", user_id=ID, item_id=item, event_type="rating", value=5)
        assert client.events([event]).accepted == 1
        assert known(shop) == {True}

        done = client.forget(ID)
        assert known(shop) == {False}
        assert done.removed["tail"] == 1
        old = event.model_copy(update={"event_id": "p-2", "event_timestamp": done.forgotten_at - 1})
        answer = client.events([old])
        assert (answer.accepted, answer.duplicates, answer.forgotten) == (0, 0, 1)
        for _ in range(6):  # a new connection may reach the other worker
            with ShortlistClient(shop.url) as other:
                again = other.events([old])
                assert (again.accepted, again.forgotten) == (0, 1)
        assert known(shop) == {False}

        later = event.model_copy(update={"event_id": "p-3"})
        assert client.events([later]).accepted == 1
        assert known(shop) == {True}
        with pytest.raises(ServiceError, match="placeholder"):
            client.forget("undefined")
    monkeypatch.setenv("SHORTLIST_HOME", str(shop.home))
    settings = Settings()
    (pending,) = ForgetInbox(settings).pending()
    assert (pending.user_id, pending.received_at) == (ID, done.forgotten_at)
    assert Register(settings.forgotten).at(ID) == done.forgotten_at


def test_the_id_is_in_no_metric_and_no_log_of_the_process(shop: Served) -> None:
    path = "/users/person-7f3a%40example.com%2Fx"
    assert httpx.get(shop.url + path).status_code == 405
    metrics = httpx.get(shop.url + "/metrics").text
    assert "shortlist_request_seconds" in metrics
    assert "person-7f3a" not in metrics
    assert "person-7f3a" not in shop.log.read_text()
    document = httpx.get(shop.url + "/docs.json").json()
    assert "ForgetResponse" in str(document["paths"]["/users/{id}"]["delete"])
