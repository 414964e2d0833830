"""Posted changes of items: shown at once by all workers, and in the lake after a refresh."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shortlist.config import Settings
from shortlist.datasets.service.item_commands import num_pending
from shortlist.http.api import Filters, ItemChange, RecommendRequest, SearchRequest, SimilarRequest
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.items.commands import CommandInbox
from shortlist.lake import Lake
from tests.conftest import CATEGORIES, shortlist
from tests.services.conftest import FOLDERS, Served, copy_home, ids, refresh, serving

SECONDS = 60.0
"""Longest wait for both workers, on a machine where other tests run."""


@pytest.fixture(scope="module")
def shop(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with two workers in a home that can be refreshed."""
    home = copy_home(served_home, tmp_path_factory.mktemp("shop"), folders=FOLDERS)
    with serving(home, SHORTLIST_WORKERS="2", SHORTLIST_CLOCK="replay") as served:
        yield served


@pytest.fixture
def client(shop: Served) -> Iterator[ShortlistClient]:
    with ShortlistClient(shop.url) as client:
        yield client


def everywhere(shop: Served, holds: Callable[[ShortlistClient], bool]) -> None:
    """Wait until `holds` is true on both workers: for 12 new connections in a row."""
    deadline = time.monotonic() + SECONDS
    in_a_row = 0
    while in_a_row < 12:
        with ShortlistClient(shop.url) as client:
            in_a_row = in_a_row + 1 if holds(client) else 0
        assert time.monotonic() < deadline, "a worker doesn't follow"


def test_a_new_item_is_recommendable_and_similar_ones_are_found(shop, client):
    new = ItemChange(item_id="posted-1", title="A comedy called posted", categories=["comedy"])
    done = client.items([new])
    assert (done.accepted, done.pending) == (1, 1)
    everywhere(shop, lambda c: "posted-1" in ids(c.recommend(RecommendRequest(user_id="u1", k=61))))
    search = SearchRequest(query="posted", k=3)
    everywhere(shop, lambda c: ids(c.search(search))[:1] == ["posted-1"])
    request = SimilarRequest(item_id="posted-1", k=5)
    assert len(client.similar(request).items) == 5
    answer = client.recommend(RecommendRequest(user_id="u1", k=61))
    (item,) = [item for item in answer.items if item.item_id == "posted-1"]
    assert item.title == "A comedy called posted"


@pytest.mark.parametrize("change", [{"deleted": True}, {"available": False}])
def test_a_withdrawn_item_is_gone_with_the_answer_to_the_post(shop, client, change):
    request = RecommendRequest(user_id="u5", k=8)
    first, *_ = ids(client.recommend(request))
    assert client.items([ItemChange(item_id=first, **change)]).applied
    everywhere(shop, lambda c: first not in ids(c.recommend(request)))
    everywhere(shop, lambda c: first not in ids(c.similar(SimilarRequest(item_id="i2", k=60))))
    words = SearchRequest(query=f"called {first.removeprefix('i')}", k=60)
    everywhere(shop, lambda c: first not in ids(c.search(words)))
    of_kind = request.model_copy(update={"filters": Filters(categories=list(CATEGORIES))})
    everywhere(shop, lambda c: first not in ids(c.recommend(of_kind)))
    client.items([ItemChange(item_id=first, available=True)])
    everywhere(shop, lambda c: first in ids(c.recommend(request)))
    everywhere(shop, lambda c: first in ids(c.search(words)))


def test_a_new_price_counts_in_filters(shop, client):
    client.items([ItemChange(item_id="i9", price=99.0), ItemChange(item_id="i12", price=1.0)])
    cheap = RecommendRequest(user_id="u7", k=60, filters=Filters(max_price=5.0))

    def holds(client: ShortlistClient) -> bool:
        return ids(client.recommend(cheap)) == ["i12"]

    everywhere(shop, holds)


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"item_id": "i1", "price": "cheap"}, "items.1.price: "),
        ({"item_id": "i1", "published_at": 4_000_000_000_000_000}, "items.1.published_at: "),
        ({"item_id": "undefined"}, "items.1.item_id: "),
        ({"item_id": "i1", "colour": "red"}, "items.1.colour: unknown key; there are item_id, "),
    ],
)
def test_a_post_with_one_wrong_item_changes_nothing(shop, item, told):
    last = CommandInbox(shop.home / "events").last()
    body = {"items": [{"item_id": "i2", "price": 5}, item]}
    answer = httpx.post(f"{shop.url}/items", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(told)
    assert CommandInbox(shop.home / "events").last() == last


def test_a_change_that_breaks_a_rule_of_the_operator_is_refused(shop, client):
    """An item is judged as it will be; nothing of the post is stored, and withdrawals pass."""
    path = Settings(home=shop.home).event_rules
    before = path.read_text()
    cheap = {"name": "cheap", "column": None, "value": None, "bad": "price >= 500", "reason": "no!"}
    path.write_text(json.dumps(json.loads(before) | {"items_sql": [cheap]}))
    try:
        last = CommandInbox(shop.home / "events").last()
        body = {"items": [{"item_id": "i2", "price": 5}, {"item_id": "i3", "price": 500}]}
        answer = httpx.post(f"{shop.url}/items", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"] == "items.1: no!; nothing was stored"
        assert CommandInbox(shop.home / "events").last() == last
        client.items([ItemChange(item_id="i4", price=500, available=False)])
        with pytest.raises(ServiceError, match=r"items\.0: no!"):
            client.items([ItemChange(item_id="i4", available=True)])
        assert client.items([ItemChange(item_id="i4", price=5, available=True)]).accepted == 1
    finally:
        path.write_text(before)


def test_a_post_that_cannot_be_stored_is_a_503_that_says_so(shop, client):
    path = shop.home / "events" / "commands.db"
    mode = path.stat().st_mode
    last = CommandInbox(path.parent).last()
    hidden = path.with_name("commands.hidden")
    path.rename(hidden)
    path.mkdir()
    try:
        with pytest.raises(ServiceError, match="not stored") as refused:
            client.items([ItemChange(item_id="i3", price=3.0)])
        assert refused.value.status == 503
        assert client.recommend(RecommendRequest(user_id="u1")).items
    finally:
        path.rmdir()
        hidden.rename(path)
        path.chmod(mode)
    assert CommandInbox(path.parent).last() == last


def test_a_refresh_adds_the_changes_to_the_lake_and_skew_agrees(shop, client, world_config):
    """Lists logged before, between and after the changes are recomputed exactly."""
    settings = Settings(home=shop.home)
    for number in range(3):
        client.items([ItemChange(item_id=f"i{20 + number}", price=10.0 + number)])
        for user in range(20):
            client.recommend(RecommendRequest(user_id=f"u{user + 1}", k=10))
    client.items([ItemChange(item_id="posted-2", title="Late", categories=["drama"])])
    assert client.ready().items_pending > 0
    refresh(world_config, home=shop.home)
    lake = {row["item_id"]: row for row in Lake(settings.lake).items().to_pylist()}
    assert [lake[f"i{20 + n}"]["price"] for n in range(3)] == [10.0, 11.0, 12.0]
    assert (lake["posted-2"]["title"], lake["posted-2"]["categories"]) == ("Late", ["drama"])
    everywhere(shop, lambda c: c.ready().items_pending == 0)
    for user in range(20):
        client.recommend(RecommendRequest(user_id=f"u{user + 1}", k=61))
    done = shortlist("skew", "--json", home=shop.home)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    report = json.loads(done.stdout)
    assert report["exact_share"] == 1.0
    assert report["requests"] >= 80
    assert num_pending(settings) == 0
    versions = Lake(settings.lake).item_versions().column("item_id").to_pylist()
    assert versions.count("posted-2") == 1


def test_pending_changes_survive_a_restart(served_home, tmp_path):
    home = copy_home(served_home, tmp_path / "home", folders=("releases", "packs", "feast"))
    request = RecommendRequest(user_id="u5", k=8)
    with serving(home, SHORTLIST_CLOCK="replay") as served, ShortlistClient(served.url) as client:
        first, *_ = ids(client.recommend(request))
        client.items([ItemChange(item_id=first, deleted=True)])
    with serving(home, SHORTLIST_CLOCK="replay") as served, ShortlistClient(served.url) as client:
        assert first not in ids(client.recommend(request))
        assert client.ready().items_pending == 1


def test_what_was_shown_is_not_shown_again_for_the_days_of_a_rule(shop, client):
    """With a rule `not_shown`, successive lists of a user have no common item, on any worker."""
    request = RecommendRequest(user_id="u33", k=5)
    rules = shop.home / "rules.toml"
    without = client.ready().rules_id
    rules.write_text('[[not_shown]]\nname = "fresh"\ndays = 1\n')
    try:
        everywhere(shop, lambda c: c.ready().rules_id != without)
        visitor = RecommendRequest(recent_items=["i1"], k=5)
        before = ids(client.recommend(visitor))
        lists = []
        for _ in range(4):
            with ShortlistClient(shop.url) as another:
                lists.append(another.recommend(request))
            time.sleep(1.0)  # the thread of the serving log records the list
        shown = [item for answer in lists for item in ids(answer)]
        assert len(shown) == len(set(shown)) == 20
        assert all("fresh" in answer.rules for answer in lists[1:])
        assert ids(client.recommend(visitor)) == before
        assert ids(client.recommend(RecommendRequest(user_id="u34", k=10)))
    finally:
        rules.unlink()
    everywhere(shop, lambda c: c.ready().rules_id == without)
    assert set(ids(client.recommend(request))) & set(shown)
    body = {"user_id": "u1", "rules": {"not_shown": [{"name": "n", "days": 2}]}}
    answer = httpx.post(f"{shop.url}/recommend", json=body)
    assert answer.status_code == 400
    assert "only in the rules file" in answer.json()["error"]
