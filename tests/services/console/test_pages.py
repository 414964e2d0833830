"""Pages of the console over a recommender in this process."""

import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from models.recommend.explaining.inspection import inspect
from shortlist.files.plain_json import write_json
from shortlist.home.switches import switch_on
from shortlist.http.api import RecommendRequest
from shortlist.http.rule_config import RuleSet
from tests.models.recommenders import AT
from tests.services.console.desk import Desk

PAGES = (
    "/console",
    "/console/person",
    "/console/person?user=u1",
    "/console/person?recent=i001",
    "/console/compare",
    "/console/compare?user=u1&right=source:popularity&sample=1",
    "/console/releases",
    "/console/item",
    "/console/item?item=i001&user=u1",
    "/console/requests",
    "/console/data",
)


def shown(text: str) -> list[str]:
    """Return the item ids of the list of a page, in order."""
    lists = re.findall(r'<ol class="list[^>]*>(.*?)</ol>', text, re.DOTALL)
    return re.findall(r'<h3><a href="/console/item\?item=([^"]*)"', lists[0]) if lists else []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_shown_with_an_empty_and_a_filled_log(
    console: TestClient, path: str, request: pytest.FixtureRequest
) -> None:
    for _ in range(2):
        answer = console.get(path)
        assert answer.status_code == 200
        assert answer.text.count("<h1>") == 1
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert not re.search(r"(src|href)=\"(https?:)?//", answer.text), "loads from elsewhere"
        request.getfixturevalue("logged")


def test_the_list_is_the_one_that_is_served(console: TestClient, desk: Desk) -> None:
    served = desk.recommender.recommend(RecommendRequest(user_id="u1", k=7), at=AT)
    page = console.get("/console/person?user=u1&k=7").text
    assert shown(page) == [item.item_id for item in served.items]
    for item in served.items:
        assert unescape(item.reason) in unescape(page)
    assert page.count("<td>click</td>") == 3  # the history


def test_sources_are_shown_with_their_ranks(console: TestClient, desk: Desk) -> None:
    request = RecommendRequest(user_id="u1", k=3)
    first = desk.recommender.recommend(request, at=AT).items[0]
    found = inspect(desk.recommender, request, at=AT)
    ranks = found.found(desk.recommender.item_idx(first.item_id))
    assert set(ranks) == set(first.sources)
    page = console.get("/console/person?user=u1&k=3").text
    entry = page.split('<ol class="list">')[1].split("</li>")[0]
    for name, rank in ranks.items():
        assert f"{name} <b>{rank}</b>" in entry


def test_a_click_posts_an_event_and_the_item_leaves_the_list(
    console: TestClient, desk: Desk
) -> None:
    before = shown(console.get("/console/person?user=u1&k=5").text)
    form = {"user": "u1", "item": before[0], "event": "click", "back": "user=u1&k=5"}
    answer = console.post("/console/event", data=form, headers={"origin": "http://localhost"})
    assert answer.status_code == 200  # after the redirect
    assert answer.url.params["k"] == "5"
    assert desk.events[-1][:2] == ("u1", before[0])
    after = shown(answer.text)
    assert before[0] not in after
    assert len(after) == 5
    assert f"stored: click of {before[0]}" in answer.text


def test_options_change_the_list(console: TestClient, desk: Desk) -> None:
    odd = shown(console.get("/console/person?user=u1&categories=odd&k=4").text)
    assert len(odd) == 4
    assert all(int(item_id[1:]) % 2 == 1 for item_id in odd)
    (first,) = desk.others
    by_other = console.get(f"/console/person?user=u1&variant=release:{first}&k=4").text
    other = desk.others[first].recommend(RecommendRequest(user_id="u1", k=4), at=AT)
    assert shown(by_other) == [item.item_id for item in other.items]
    assert first in by_other
    mixed = console.get("/console/person?user=u1&diversity=mmr&strength=0.9&k=4").text
    assert "re-ranking mmr, strength 0.9" in mixed


def test_a_rule_is_named_where_it_moved_an_item(console: TestClient, desk: Desk) -> None:
    pinned = {"name": "autumn", "item_id": "i040", "position": 2}
    desk.rules.rules = RuleSet.model_validate({"pin": [pinned]})
    page = console.get("/console/person?user=u1&k=5").text
    assert shown(page)[1] == "i040"
    assert "moved to 2 by rule autumn" in page


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("user=u1&k=1000", "k: 1000, want 1 to 100"),
        ("user=u1&k=many", "k: 'many' is not a number"),
        ("user=u1&diversity=more", "diversity: 'more', want off, mmr, calibration or nothing"),
        ("user=u1&variant=new", "variant: 'new', want arm:NAME, release:ID or nothing"),
        ("user=u1&variant=arm:new", "arm 'new': no experiment runs"),
        ("user=u1&published_after=1998", "published_after: '1998', want YYYY-MM-DD"),
        ("user=u1&max_price=-1", "max_price"),
        ("user=u1&page=-1", "page: -1"),
    ],
)
def test_a_wrong_option_gets_a_page_that_says_what_is_right(
    console: TestClient, query: str, problem: str
) -> None:
    answer = console.get(f"/console/person?{query}")
    assert answer.status_code == 400
    assert problem in unescape(answer.text)


def test_ids_and_titles_are_escaped(console: TestClient) -> None:
    page = console.get("/console/person?user=%3Cu%262%3E").text
    assert "<u&2>" not in page
    assert "&lt;u&amp;2&gt;" in page
    assert "/console/person?user=%3Cu%262%3E" in console.get("/console/person").text


def test_compare_marks_moved_items(console: TestClient) -> None:
    page = console.get("/console/compare?user=u1&k=6&left=&right=source:popularity").text
    same = console.get("/console/compare?user=u1&k=6&left=&right=").text
    assert "100.0% of all items" in same
    assert same.count("only here") == 1  # the legend
    assert page.count("only here") > 1
    assert console.get("/console/compare?user=u1&left=source:none").status_code == 400


def test_an_item_says_why_it_is_not_shown(console: TestClient, desk: Desk) -> None:
    assert "Recommendable" in console.get("/console/item?item=i001").text
    never = console.get("/console/item?item=i002&user=u1").text
    assert "this person consumed or refused it" in never
    rules = {"exclude": [{"name": "recall", "item_ids": ["i001"]}]}
    desk.rules.rules = RuleSet.model_validate(rules)
    page = unescape(console.get("/console/item?item=i001").text)
    assert "rule 'recall' (exclude) excludes it" in page
    assert "Neighbours by use" in page
    assert console.get("/console/item?item=none").status_code == 404


def test_items_are_found_by_title_and_id(console: TestClient) -> None:
    page = console.get("/console/item?q=number+1").text
    assert "11 items" in page  # 1 and 10 to 19
    assert ">i001</small>" in console.get("/console/item?q=i001").text


def test_static_files_are_served_and_nothing_else(console: TestClient) -> None:
    htmx = console.get("/console/static/htmx.min.js")
    assert htmx.status_code == 200
    assert "immutable" in htmx.headers["cache-control"]
    for name in ("console.css.map", "..%2frender.py", "htmx.LICENSE.txt", "none.js"):
        assert console.get(f"/console/static/{name}").status_code == 404


def test_home_names_what_needs_a_person(console: TestClient, desk: Desk) -> None:
    assert "Nothing is known to be broken" in console.get("/console").text
    alarm = {
        "guardrail": "clicks <fall>",
        "action": "roll_back",
        "opened_at": "2026-11-30T08:30:13+00:00",
        "closed_at": None,
        "acknowledged_by": None,
        "waiting": None,
        "outcome": "done: rolled back",
        "reason": "click_through is 0.1, below the limit 0.2",
    }
    closed = alarm | {"guardrail": "old one", "closed_at": "2026-11-30T09:00:00+00:00"}
    write_json(desk.settings.home / "alarms.json", {"alarms": [closed, alarm]})
    switch_on(desk.settings, "holds", "night", reason="nobody is there")
    page = unescape(console.get("/console").text)
    assert "Something needs a person" in page
    assert "clicks <fall>: click_through is 0.1, below the limit 0.2" in page
    assert "old one" not in page
    assert "promotions are held by 'night': nobody is there" in page
    assert "hold: night" in console.get("/console/releases").text
    write_json(desk.settings.home / "alarms.json", {"alarms": [alarm | {"acknowledged_by": "me"}]})
    page = console.get("/console").text
    assert "Something needs a person" not in page
    assert "taken over by me" in page
