"""The API of a real server process: responses, errors, metrics, inbox and serving log."""

import json
import math
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from services.service import RecommenderService
from shortlist.config import Settings
from shortlist.datasets.service.service_log import load_serving_log
from shortlist.feature_store import OnlineReader
from shortlist.feature_store.online.materialize import COUNTED
from shortlist.features.finalize import USER_FEATURES
from shortlist.home.workers import live_workers
from shortlist.http.api import (
    MAX_EVENTS,
    Context,
    Event,
    Filters,
    RecommendRequest,
    SearchRequest,
    SimilarRequest,
)
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.releases.release import ReleaseStore
from tests.services.conftest import (
    SERVICE,
    VIEW,
    copy_home,
    environment,
    ids,
    inbox,
    logged,
    serving,
)


def test_readiness_names_release_pack_and_clock(service, client):
    ready = client.ready()
    assert ready.release_id == ReleaseStore(service.home / "releases").current_id()
    pointer = json.loads((service.home / "packs" / "current.json").read_text())
    assert (ready.pack_id, ready.clock) == (pointer["pack_id"], "replay")
    assert (ready.pinned_by, ready.refused) == (None, None)
    (worker,) = live_workers(Settings(home=service.home))
    assert (worker.pid, worker.release_id) == (ready.pid, ready.release_id)
    assert httpx.get(f"{service.url}/livez").status_code == 200
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_a_known_user_gets_a_list_and_it_is_logged(service, client):
    context = Context(surface="home", device="phone")
    answer = client.recommend(RecommendRequest(user_id="u1", k=7, context=context))
    assert answer.user_known
    assert len(set(ids(answer))) == 7
    assert [item.rank for item in answer.items] == list(range(1, 8))
    assert all(item.title and item.source in item.sources for item in answer.items)
    line = logged(service.home, answer.request_id)
    assert [item["item_id"] for item in line["items"]] == ids(answer)
    assert (line["user_id"], line["event_timestamp"]) == ("u1", answer.at)
    assert line["context_id"].startswith("home|phone|")
    assert line["release_id"] == answer.release_id
    assert len({len(item["features"]) for item in line["items"]}) == 1
    assert load_serving_log(service.home / "serving_log").num_rows >= 7


def test_somebody_unknown_and_a_visitor_get_answers_too(service, client):
    stranger = client.recommend(RecommendRequest(user_id="nobody-yet", k=5))
    visitor = client.recommend(RecommendRequest(recent_items=["i1", "i4"], k=5))
    assert not stranger.user_known
    assert len(stranger.items) == len(visitor.items) == 5
    assert not {"i1", "i4"} & set(ids(visitor))
    assert logged(service.home, visitor.request_id)["user_id"] == "anonymous"


def test_a_search_finds_items_by_their_words_for_anybody(service, client):
    known = client.search(SearchRequest(query="Comedy", user_id="u1", k=4))
    assert known.user_known
    assert all("comedy" in item.title for item in known.items)
    assert [item.rank for item in known.items] == [1, 2, 3, 4]
    assert all("search_words" in item.sources for item in known.items)
    visitor = client.search(SearchRequest(query="7", recent_items=["i1"]))
    assert not visitor.user_known
    assert visitor.items[0].item_id == "i7"
    of_drama = Filters(categories=["drama"])
    assert "i7" not in ids(client.search(SearchRequest(query="7", filters=of_drama)))
    refused = httpx.post(f"{service.url}/search", json={"query": "?!"})
    assert refused.status_code == 400
    assert "no letter or digit" in refused.json()["error"]


def test_an_event_changes_the_next_list(client):
    before = ids(client.recommend(RecommendRequest(user_id="u2", k=5)))
    done = client.events([Event(user_id="u2", item_id=before[0], event_type="rating", value=5)])
    assert (done.accepted, done.duplicates) == (1, 0)
    assert before[0] not in ids(client.recommend(RecommendRequest(user_id="u2", k=60)))


def test_a_new_user_is_known_after_the_first_event(client):
    assert not client.recommend(RecommendRequest(user_id="new-1")).user_known
    client.events([Event(user_id="new-1", item_id="i3", event_type="rating", value=4)])
    assert client.recommend(RecommendRequest(user_id="new-1")).user_known


def test_an_event_of_another_type_is_kept_and_counted_and_is_no_choice(service, client):
    client.events([Event(event_id="view-1", user_id="new-2", item_id="i3", event_type="view")])
    assert b'"view-1"' in inbox(service.home)
    answer = client.recommend(RecommendRequest(user_id="new-2"))
    assert not answer.user_known
    (features, *_) = [item["features"] for item in logged(service.home, answer.request_id)["items"]]
    of_user = dict(zip(USER_FEATURES, features, strict=False))
    assert of_user["user_clicks_7d_log"] == pytest.approx(math.log(2), rel=1e-3)
    assert of_user["user_click_rate"] == pytest.approx((1 + 1) / (1 + 20))
    assert of_user["user_events_log"] == of_user["user_carts_log"] == 0


def test_events_about_unknown_items_are_kept_and_counted(service, client):
    known = Event(user_id="u11", item_id="i3", event_type="rating", value=4)
    unknown = Event(event_id="next-week", user_id="u11", item_id="i-new", event_type="rating")
    done = client.events([known, unknown])
    assert (done.accepted, done.duplicates, done.unknown_items) == (2, 0, 1)
    assert b'"next-week"' in inbox(service.home)
    assert client.recommend(RecommendRequest(user_id="u11")).items


def test_a_stored_post_is_acknowledged_though_the_clock_cannot_be_written(service, client):
    """A stored post is acknowledged even if the clock's file can't be written.

    After an error, the client would post the event again with another id.
    """
    lock = service.home / ".clock.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    try:
        now = client.recommend(RecommendRequest(user_id="u13")).at
        event = Event(
            **{"event_id": "late", "user_id": "u13", "item_id": "i3", "event_type": "click"},
            event_timestamp=now + 5,
        )
        assert client.events([event]).accepted == 1
        assert b'"late"' in inbox(service.home)
        assert client.recommend(RecommendRequest(user_id="u13")).at > now + 5
    finally:
        lock.rmdir()


def test_a_search_needs_no_item(service, client):
    done = client.events([Event(user_id="u12", event_type="search", query="drama")])
    assert (done.accepted, done.unknown_items) == (1, 0)
    answer = client.recommend(RecommendRequest(user_id="u12", k=5))
    (vector, *_) = [item["features"] for item in logged(service.home, answer.request_id)["items"]]
    names = ReleaseStore(service.home / "releases").open().about["ranking_schema"]["names"]
    features = dict(zip(names, vector, strict=True))
    assert features["user_searches_log"] == pytest.approx(math.log(2), rel=1e-3)


def test_a_search_changes_the_next_lists_features(service, client):
    def features() -> tuple[list[str], list[dict[str, float]]]:
        answer = client.recommend(RecommendRequest(user_id="u6", k=60))
        names = ReleaseStore(service.home / "releases").open().about["ranking_schema"]["names"]
        shown = logged(service.home, answer.request_id)["items"]
        vectors = [dict(zip(names, item["features"], strict=True)) for item in shown]
        return [item.title for item in answer.items], vectors

    _, before = features()
    assert {vector["search_match"] for vector in before} == {0}
    search = {"item_id": "i3", "event_type": "search", "query": "Science, please"}
    client.events([Event(user_id="u6", **search)])
    titles, after = features()
    assert all(v["user_searches_log"] == pytest.approx(math.log(2), rel=1e-3) for v in after)
    assert any("science" in title for title in titles)
    for title, vector in zip(titles, after, strict=True):
        share = 0.5 if "science" in title else 0
        assert vector["search_match_last"] == share
        assert vector["search_match"] == pytest.approx(share, rel=1e-3)


def test_filters_and_exclusions_hold(client):
    free = ids(client.recommend(RecommendRequest(user_id="u5", k=3)))
    answer = client.recommend(
        RecommendRequest(user_id="u5", filters=Filters(categories=["drama"]), exclude=free)
    )
    assert answer.items
    assert all("drama" in item.title for item in answer.items)
    assert not set(free) & set(ids(answer))


def test_filters_that_leave_nothing_give_an_empty_list(service, client):
    nowhere = Filters(categories=["no such category"])
    answer = client.recommend(RecommendRequest(user_id="u5", filters=nowhere))
    assert answer.items == []
    assert logged(service.home, answer.request_id)["items"] == []
    assert client.similar(SimilarRequest(item_id="i1", filters=nowhere)).items == []


def test_similar_items(client):
    answer = client.similar(SimilarRequest(item_id="i1", k=4))
    assert 0 < len(answer.items) <= 4
    assert "i1" not in ids(answer)


def test_answers_of_similar_and_events_carry_their_ids_and_are_logged(service, client):
    similar = client.similar(SimilarRequest(item_id="i1", k=4))
    line = logged(service.home, similar.request_id, log="answer_log")
    assert (line["route"], line["item_id"]) == ("similar", "i1")
    assert line["release_id"] == similar.release_id
    assert [item["item_id"] for item in line["items"]] == ids(similar)
    told = [
        Event(event_id=name, user_id="u9", item_id="i3", event_type="view") for name in ("v1", "v2")
    ]
    client.events(told[:1])
    done = client.events(told)
    line = logged(service.home, done.request_id, log="answer_log")
    assert (line["route"], line["release_id"]) == ("events", similar.release_id)
    assert (line["accepted"], line["duplicates"], line["event_ids"]) == (1, 1, ["v2"])


def test_a_price_limit_and_exclusions_may_leave_nothing(service, client):
    everything = ids(client.recommend(RecommendRequest(user_id="u5", k=500)))
    assert client.recommend(RecommendRequest(user_id="u5", k=500, exclude=everything)).items == []
    free = Filters(max_price=0)
    assert client.recommend(RecommendRequest(user_id="u5", filters=free)).items == []


def test_a_request_of_the_past_is_answered_for_that_moment(client):
    ready = client.ready()
    answer = client.recommend(RecommendRequest(user_id="u1", at=ready.pack_as_of))
    assert answer.at == ready.pack_as_of


TOO_MANY = [{"user_id": "u1", "item_id": "i1", "event_type": "view"}] * (MAX_EVENTS + 1)
YEAR_2096 = 3_976_000_000_000_000
GOOD = {"user_id": "u1", "item_id": "i1", "event_type": "rating"}


@pytest.mark.parametrize(
    ("route", "body", "says"),
    [
        ("/recommend", "{bad", "the body is not JSON"),
        ("/recommend", "", "give user_id, or recent_items"),
        ("/recommend", "[1]", "not an object"),
        ("/recommend", "\xff", "the body is not JSON"),
        ("/recommend", {"k": 3}, "give user_id, or recent_items"),
        ("/recommend", {"user_id": "u1", "kk": 3}, "kk: unknown key; there are user_id, .*k,"),
        ("/recommend", {"user_id": "u1", "filters": {"x": 1}}, "filters.x: .* categories"),
        ("/recommend", {"user_id": "u1", "k": 10**9}, "k: .*less than or equal to 500"),
        ("/recommend", {"user_id": "u1", "k": 0}, "k: .*greater than or equal to 1"),
        ("/recommend", {"user_id": "u1", "k": "ten"}, "k: .*valid integer"),
        ("/recommend", {"user_id": 196}, "user_id: .*valid string"),
        ("/recommend", {"user_id": "anonymous"}, "leave user_id out"),
        ("/recommend", {"user_id": "u1", "at": 10**30}, "at: .*beyond the year 2100"),
        ("/recommend", {"user_id": "u1", "at": -1}, "at: .*want microseconds"),
        ("/similar", {"item_id": "no-such"}, "'no-such' is not among the .* items"),
        ("/similar", {}, "item_id: Field required"),
        ("/events", {"events": []}, "events: .*at least 1"),
        ("/events", {"events": TOO_MANY}, "events: .*at most 1000"),
        ("/events", {"events": [GOOD | {"event_type": "bought"}]}, "'bought' .* one of .*purchase"),
        ("/events", {"events": [GOOD | {"event_timestamp": 10**18}]}, "looks like nanoseconds"),
        (
            "/events",
            {"events": [GOOD, GOOD | {"event_timestamp": YEAR_2096}]},
            r"\.1\.event_timestamp: .*come",
        ),
        (
            "/events",
            {"events": [GOOD | {"value": 500}]},
            r"events\.0\.value: .* want 1 to 5; nothing",
        ),
        ("/events", {"events": [VIEW | {"value": 1e308}]}, r"events\.0\.value: .*at most 1e\+12"),
        ("/events", {"events": [VIEW | {"event_type": "watch", "value": -1}]}, "want 0 or more"),
        ("/events", {"events": [{"user_id": "u1"}]}, r"events\.0\.event_type: Field required"),
        (
            "/events",
            {"events": [{"user_id": "u1", "event_type": "rating"}]},
            r"events\.0: item_id is missing; an event of type 'rating' needs one",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence_and_leaves_nothing(service, route, body, says):
    content = body.encode("latin-1") if isinstance(body, str) else json.dumps(body).encode()
    before = inbox(service.home)
    answer = httpx.post(
        service.url + route, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert list(answer.json()) == ["error", "request_id", "release_id"]
    assert answer.json()["release_id"] == ReleaseStore(service.home / "releases").current_id()
    assert answer.json()["request_id"] in service.log.read_text()
    assert re.search(says, answer.json()["error"]), answer.text
    assert inbox(service.home) == before


@pytest.mark.parametrize(
    ("method", "route", "media_type", "status", "says"),
    [
        ("POST", "/recommend", "application/x-www-form-urlencoded", 415, "application/json"),
        ("POST", "/recommend", "multipart/form-data", 415, "application/json"),
        ("POST", "/events", "application/vnd.bentoml+pickle", 415, "application/json"),
        ("POST", "/recomend", "application/json", 404, "/recommend"),
        ("GET", "/recommend", "application/json", 405, "takes POST"),
        ("POST", "/status/ready", "application/json", 405, "takes GET"),
    ],
)
def test_wrong_ways_to_ask(service, method, route, media_type, status, says):
    headers = {"content-type": media_type}
    answer = httpx.request(method, service.url + route, content=b"x", headers=headers)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_the_client_hands_on_the_services_sentence(client):
    with pytest.raises(ServiceError, match="400: item_id: 'no-such' is not among") as error:
        client.similar(SimilarRequest(item_id="no-such"))
    assert error.value.status == 400


def test_a_clients_mistake_leaves_no_traceback_in_the_log(service):
    for body in (b"{bad", b'{"user_id": 1}'):
        httpx.post(f"{service.url}/recommend", content=body)
    httpx.post(f"{service.url}/similar", json={"item_id": "no-such"})
    assert "Traceback" not in service.log.read_text()


def test_a_repeated_post_counts_once(service, client):
    event = Event(event_id="once", user_id="u7", item_id="i8", event_type="rating", value=3)
    done = client.events([event, event])
    assert (done.accepted, done.duplicates) == (1, 1)
    again = client.events([event])
    assert (again.accepted, again.duplicates) == (0, 1)
    assert inbox(service.home).count(b'"once"') == 1


def test_parallel_requests_are_all_answered_and_logged(service, client):
    def ask(number: int) -> str:
        return client.recommend(RecommendRequest(user_id=f"u{number % 20 + 1}", k=5)).request_id

    with ThreadPoolExecutor(8) as pool:
        request_ids = list(pool.map(ask, range(64)))
    assert len(set(request_ids)) == 64
    for request_id in request_ids:
        assert len(logged(service.home, request_id)["items"]) == 5


def test_prometheus_figures_count(service, client):
    def figure(name: str) -> float:
        page = httpx.get(f"{service.url}/metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    names = [
        'shortlist_request_seconds_count{route="recommend"}',
        "shortlist_unknown_users_total",
        'shortlist_events_total{outcome="accepted"}',
        'shortlist_events_total{outcome="unknown_item"}',
    ]
    before = [figure(name) for name in names]
    client.recommend(RecommendRequest(user_id="never-seen"))
    client.recommend(RecommendRequest(user_id="u1"))
    client.events([Event(user_id="u9", item_id="i2", event_type="rating")])
    client.events([Event(user_id="u9", item_id="i2", event_type="view")])
    client.events([Event(user_id="u9", item_id="not yet", event_type="rating", value=4)])
    grown = [figure(name) - old for name, old in zip(names, before, strict=True)]
    assert grown == [2, 1, 3, 1]
    assert figure(f'shortlist_release_info{{release_id="{client.ready().release_id}"}}') == 1


def test_the_api_page_describes_every_route_with_an_example(service):
    assert "swagger" in httpx.get(f"{service.url}/").text.lower()
    spec = httpx.get(f"{service.url}/docs.json").json()
    assert {"/recommend", "/similar", "/events", "/status/ready"} <= set(spec["paths"])
    assert "img.shields.io" not in json.dumps(spec)
    for route, api in RecommenderService.apis.items():
        body = json.dumps(spec["paths"][f"/{route}"]["post"])
        assert api.doc.splitlines()[0] in body
    for name in ("RecommendRequest", "SimilarRequest", "EventsRequest"):
        assert spec["components"]["schemas"][name]["examples"]
    assert spec["openapi"] == "3.1.0"
    for schema in spec["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_answers_are_what_the_api_page_says(service):
    spec = httpx.get(f"{service.url}/docs.json").json()
    asked = {
        "/recommend": {"user_id": "u1", "k": 3},
        "/similar": {"item_id": "i1", "k": 3},
        "/events": {"events": [{"user_id": "u1", "item_id": "i2", "event_type": "view"}]},
    }
    for path, body in asked.items():
        for sent in (body, {"k": "many"}):
            answer = httpx.post(f"{service.url}{path}", json=sent)
            described = spec["paths"][path]["post"]["responses"][str(answer.status_code)]
            (reference,) = described["content"]["application/json"]["schema"].values()
            whole = {"$ref": reference, "components": spec["components"]}
            Draft202012Validator(whole).validate(answer.json())


def test_without_a_release_the_start_fails_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", SERVICE],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "no release is promoted; run `shortlist run` first" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("refusal", ["hide", "dislike", "return"])
def test_a_refused_item_is_gone_from_the_next_list_until_it_is_taken_back(client, refusal):
    user = {"hide": "u21", "dislike": "u22", "return": "u23"}[refusal]
    wanted = RecommendRequest(user_id=user, k=10)
    first = ids(client.recommend(wanted))
    client.events([Event(user_id=user, item_id=first[0], event_type=refusal)])
    assert first[0] not in ids(client.recommend(wanted))
    client.events([Event(user_id=user, item_id=first[0], event_type="view")])
    assert first[0] not in ids(client.recommend(wanted))
    client.events([Event(user_id=user, item_id=first[0], event_type="like")])
    assert first[0] in ids(client.recommend(wanted))


def test_a_low_rating_refuses_the_item_if_the_configuration_says_so(
    served_home: Path, tmp_path: Path
) -> None:
    """With `[data] low_rating = 2`, the next request knows a rating of 2 as a refusal, and not 3.

    Both items leave the list, because rated items are consumed and this release repeats none.
    """
    home = copy_home(served_home, tmp_path, folders=("releases", "packs", "feast"))
    # Without it, the clock would be behind the base rows, which count no event before their stamp.
    shutil.copy(served_home / "clock.json", home / "clock.json")
    counted = home / "feast" / COUNTED  # a refresh writes it from the configuration
    counted.write_text(json.dumps(json.loads(counted.read_text()) | {"low_rating": 2.0}))
    with serving(home, SHORTLIST_CLOCK="replay") as served, ShortlistClient(served.url) as client:
        for user, value, is_refusal in (("u31", 2, True), ("u32", 3, False)):
            first = ids(client.recommend(RecommendRequest(user_id=user, k=10)))
            client.events([Event(user_id=user, item_id=first[0], event_type="rating", value=value)])
            rows = OnlineReader(Settings(home=home)).read([user], [""], np.array([2**52]))
            assert (first[0] in rows.refusals[0].items) == is_refusal
            assert first[0] not in ids(client.recommend(RecommendRequest(user_id=user, k=10)))
