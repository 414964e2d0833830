"""`DELETE /users/{id}` of a running service: unknown at once, and old events stay out."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shortlist.api import Event, RecommendRequest
from shortlist.client import ServiceError, ShortlistClient
from shortlist.forgetting.register import Register
from shortlist.forgetting.requests import ForgetInbox
from tests.services.conftest import Served, serving_copy

ID = "person-7f3a@example.com/x"


@pytest.fixture(scope="module")
def shop(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service in a copy of the served home."""
    folder = tmp_path_factory.mktemp("forgetful")
    with serving_copy(served_home, folder / "home", clock="replay") as served:
        yield served


def test_a_forgotten_user_is_unknown_until_later_events(
    shop: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ShortlistClient(shop.url) as client:
        item = client.recommend(RecommendRequest(recent_items=[])).items[0].item_id
        event = Event(event_id="p-1", user_id=ID, item_id=item, event_type="rating", value=5)
        request = RecommendRequest(user_id=ID, k=5)
        assert client.events([event]).accepted == 1
        assert client.recommend(request).user_known

        done = client.forget(ID)
        assert done.removed["tail"] == 1
        assert not client.recommend(request).user_known
        old = event.model_copy(update={"event_id": "p-2", "event_timestamp": done.forgotten_at - 1})
        answer = client.events([old])
        assert (answer.accepted, answer.duplicates, answer.forgotten) == (0, 0, 1)
        assert not client.recommend(request).user_known

        later = event.model_copy(update={"event_id": "p-3"})
        assert client.events([later]).accepted == 1
        assert client.recommend(request).user_known
        with pytest.raises(ServiceError, match="placeholder"):
            client.forget("undefined")
    monkeypatch.setenv("SHORTLIST_HOME", str(shop.home))
    from shortlist.config import Settings

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
