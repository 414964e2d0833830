"""Why a list was shown: the log entry of a request as JSON and as a page; figures of the log."""

import math
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from services.console.home import guardrail_levels, traffic_of
from services.console.item import exposure
from services.console.served_log import find, recent
from shortlist.http.api import RecommendRequest
from tests.models.recommenders import AT
from tests.services.console.desk import Desk


def response(at: int, milliseconds: float, *sources: str, skipped: tuple[str, ...] = ()) -> dict:
    return {
        "event_timestamp": at,
        "milliseconds": milliseconds,
        "release_id": "r1",
        "skipped_stages": list(skipped),
        "items": [
            {"item_id": f"i{place}", "position": place, "source": source}
            for place, source in enumerate(sources, start=1)
        ],
    }


def test_a_logged_request_is_explained(console: TestClient, desk: Desk, logged: str) -> None:
    served = desk.recommender.recommend(RecommendRequest(user_id="u1", k=5), at=AT)
    answer = console.get(f"/why/{logged}").json()
    assert [one["item_id"] for one in answer["items"]] == [one.item_id for one in served.items]
    assert [one["title"] for one in answer["items"]] == [one.title for one in served.items]
    assert answer["user_id"] == "u1"
    assert answer["release_id"] == desk.recommender.release_id
    assert answer["milliseconds"] == pytest.approx(12.3)
    assert answer["stages"].keys() == served.stage_seconds.keys()
    page = console.get(f"/console/why/{logged}")
    assert page.status_code == 200
    assert served.items[0].title in page.text
    assert logged in console.get("/console/requests?user=u1").text
    assert logged not in console.get("/console/requests?user=u2").text


@pytest.mark.parametrize("request_id", ["f" * 32, "short", "..%2f..%2fetc", "*"])
def test_an_unknown_request_is_not_found(console: TestClient, logged: str, request_id: str) -> None:
    for path in (f"/why/{request_id}", f"/console/why/{request_id}"):
        assert console.get(path).status_code == 404


def test_the_newest_responses_come_first_and_an_unfinished_line_is_left_out(
    desk: Desk, logged: str
) -> None:
    (path,) = desk.settings.serving_log.rglob("*.jsonl")
    line = path.read_bytes()
    newer = line.replace(logged.encode(), b"f" * 32).replace(str(AT).encode(), str(AT + 5).encode())
    path.write_bytes(line + newer + b"{broken}\n" + line[:50])
    entries = recent(desk.settings.serving_log, 10)
    assert [one["request_id"] for one in entries] == ["f" * 32, logged]
    assert entries[0]["items"][0]["features"] == []
    assert find(desk.settings.serving_log, "f" * 32) is not None
    assert recent(desk.settings.serving_log, 1)[0]["request_id"] == "f" * 32
    assert recent(desk.settings.home / "none", 10) == []


def test_figures_of_responses() -> None:
    entries = [
        response(400, 4.0, "ease", "fill", "fill", "fill"),
        response(300, 3.0, skipped=("ranker",)),
        response(200, 2.0, "ease"),
        response(0, 1.0, "ease"),
    ]
    traffic = traffic_of(entries)
    assert (traffic.count, traffic.first, traffic.last) == (4, 0, 400)
    assert (traffic.p50, traffic.p99) == (2.0, 4.0)
    assert traffic.skipped == pytest.approx(1 / 4)
    assert traffic.filled == pytest.approx(3 / 6)
    assert traffic.short == pytest.approx(1 / 4)
    assert sum(traffic.by_time) == 4
    assert traffic.by_time[0] == traffic.by_time[20] == traffic.by_time[-1] == 1
    assert traffic.slowest == [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(traffic_of([]).p50)


def test_exposure_of_an_item() -> None:
    entries = [response(30, 1.0, "ease", "fill"), response(0, 1.0, "ease")]
    found = exposure("i2", entries)
    assert (found["lists"], found["shown"], found["mean_position"]) == (2, 1, 2.0)
    assert found["sources"] == [("fill", 1)]
    assert exposure("i1", entries)["shown"] == 2
    assert exposure("i9", [])["shown"] == 0


def test_levels_of_guardrails_are_read_from_the_metrics(tmp_path: Path) -> None:
    from monitoring.prometheus import metrics_text

    path = tmp_path / "metrics.prom"
    rows = [
        {"name": "fine", "level": "pass", "action": "notify"},
        {"name": 'a "b"', "level": "alarm", "action": "roll_back"},
    ]
    path.write_text(metrics_text({}, rows, at=1))
    assert [level for _, _, level in guardrail_levels(path)] == ["alarm", "pass"]
    assert guardrail_levels(path)[1] == ("fine", "notify", "pass")
    assert guardrail_levels(tmp_path / "none") == []
