"""Promotion and rollback by the console: gates, reasons, the audit log, posts of other sites."""

import httpx
import pytest
from starlette.testclient import TestClient

from shortlist.home.audit import read_audit
from shortlist.releases.release import ReleaseStore
from tests.flows.conftest import about, publish
from tests.services.console.desk import Desk

OWN = {"origin": "http://localhost"}


@pytest.fixture
def store(desk: Desk) -> ReleaseStore:
    return ReleaseStore(desk.settings.releases)


def post(console: TestClient, action: str, **form: str) -> httpx.Response:
    return console.post(f"/console/releases/{action}", data=form, headers=OWN)


def test_a_rollback_needs_a_reason_and_is_audited(
    console: TestClient, desk: Desk, store: ReleaseStore
) -> None:
    first, second = store.history()
    assert post(console, "rollback", reason="  no ").status_code == 400
    assert store.current_id() == second
    answer = post(console, "rollback", reason="clicks fell by a third")
    assert answer.status_code == 200
    assert store.current_id() == first
    line = read_audit(desk.settings)[-1]
    assert (line["command"], line["from"], line["to"]) == ("rollback", second, first)
    assert line["reason"] == "console: clicks fell by a third"
    assert "clicks fell by a third" in answer.text  # the history of the page
    assert post(console, "rollback", reason="once more").status_code == 409


def test_a_release_that_passes_the_gates_is_promoted(
    console: TestClient, desk: Desk, store: ReleaseStore
) -> None:
    third = publish(store, about(compared_with=store.current_id()), payload="third")
    page = console.get(f"/console/releases?release={third}").text
    assert f"Promote {third}" in page
    assert "non-inferiority" in page or "quality" in page
    assert post(console, "promote", release=third, reason="better on new users").status_code == 200
    assert store.current_id() == third
    line = read_audit(desk.settings)[-1]
    assert line["reason"].endswith("gates passed; console: better on new users")
    assert {"name", "passed"} <= line["evidence"]["gates"][0].keys()


def test_a_release_that_fails_is_promoted_only_by_force(
    console: TestClient, desk: Desk, store: ReleaseStore
) -> None:
    before = store.current_id()
    worse = publish(store, about(compared_with=before, coverage=0.0), payload="worse")
    page = console.get(f"/console/releases?release={worse}").text
    assert "although gates fail" in page
    refused = post(console, "promote", release=worse, reason="I like it")
    assert refused.status_code == 409
    assert "coverage" in refused.text
    assert store.current_id() == before
    answer = post(console, "promote", release=worse, reason="test in the shop", force="1")
    assert answer.status_code == 200
    assert store.current_id() == worse
    assert "forced: console: test in the shop" in read_audit(desk.settings)[-1]["reason"]


def test_an_unknown_or_damaged_release_is_refused(console: TestClient, store: ReleaseStore) -> None:
    before = store.current_id()
    damaged = publish(store, about(compared_with=before), payload="whole")
    (store.root / damaged / "model.bin").write_text("other")
    for release_id in (damaged, "20000101T000000-00000000", "../x"):
        answer = post(console, "promote", release=release_id, reason="because", force="1")
        assert answer.status_code == 409
        assert "integrity" in answer.text
    assert store.current_id() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:8000"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["releases/rollback", "releases/promote", "event"])
def test_a_post_of_another_site_changes_nothing(
    console: TestClient, desk: Desk, store: ReleaseStore, path: str, headers: dict[str, str]
) -> None:
    events, current = list(desk.events), store.current_id()
    form = {"reason": "long enough", "user": "u1", "item": "i001", "event": "click"}
    answer = console.post(f"/console/{path}", data=form, headers=headers)
    assert answer.status_code == 403
    assert (desk.events, store.current_id()) == (events, current)


@pytest.mark.parametrize(
    ("change", "problem"),
    [({"item": ""}, "item_id"), ({"event": "clack"}, "event_type"), ({"value": "x"}, "x")],
)
def test_a_wrong_event_is_refused(
    console: TestClient, desk: Desk, change: dict[str, str], problem: str
) -> None:
    count = len(desk.events)
    form = {"user": "u1", "item": "i001", "event": "click"} | change
    answer = console.post("/console/event", data=form, headers=OWN)
    assert answer.status_code == 400
    assert problem in answer.text
    assert len(desk.events) == count


def test_a_release_without_figures_is_shown_but_not_judged(
    console: TestClient, store: ReleaseStore
) -> None:
    bare = publish(store, {"chain": {}}, payload="bare")
    page = console.get(f"/console/releases?release={bare}")
    assert page.status_code == 200
    assert "its manifest lacks figures that the gates need" in page.text
    assert f"Promote {bare}" not in page.text
    assert post(console, "promote", release=bare, reason="try it").status_code == 409


def test_a_release_that_is_damaged_later_fails_integrity_on_the_page(
    console: TestClient, store: ReleaseStore
) -> None:
    path = f"/console/releases?release={store.current_id()}"
    for _ in range(2):
        assert "match their sha256" in console.get(path).text
    (store.root / str(store.current_id()) / "model.bin").write_text("damaged")
    assert "the release was changed" in console.get(path).text
