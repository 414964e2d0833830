"""Posts with placeholder ids, times in a wrong unit, and times from clocks that are ahead."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shortlist.config import Settings
from shortlist.feature_store import OnlineReader, home_clock
from shortlist.http.api import Event, RecommendRequest
from shortlist.http.client import ServiceError, ShortlistClient
from shortlist.lake import Lake
from shortlist.moments import WANT
from tests.conftest import shortlist
from tests.invalid_values import NO_IDS, NOW, UNITS
from tests.services.conftest import (
    FOLDERS,
    VIEW,
    Served,
    copy_home,
    ids,
    inbox,
    json_of,
    refresh,
    serving,
    serving_copy,
)

MINUTE = 60_000_000


def posted(service: Served, route: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(service.url + route, json=body)


@pytest.mark.parametrize("value", NO_IDS)
def test_what_is_no_id_is_refused_and_leaves_nothing(service: Served, value: str) -> None:
    before = inbox(service.home)
    asked = [
        ("/recommend", {"user_id": value}, "user_id: "),
        ("/recommend", {"recent_items": ["i1", value]}, "recent_items.1: "),
        ("/recommend", {"user_id": "u1", "exclude": [value]}, "exclude.0: "),
        ("/similar", {"item_id": value}, "item_id: "),
        *(
            ("/events", {"events": [VIEW, VIEW | {key: value}]}, f"events.1.{key}: ")
            for key in ("user_id", "item_id", "event_id")
        ),
    ]
    for route, body, start in asked:
        answer = posted(service, route, body)
        assert answer.status_code == 400, (route, body)
        assert answer.json()["error"].startswith(start)
    assert inbox(service.home) == before


@pytest.mark.parametrize(
    ("moment", "unit"),
    [*((NOW // f, unit) for unit, f in UNITS.items()), (NOW * 1_000, "nanoseconds")],
)
def test_a_time_in_another_unit_is_refused_by_the_units_name(
    service: Served, moment: int, unit: str
) -> None:
    before = inbox(service.home)
    asked = [
        ("/events", {"events": [VIEW | {"event_timestamp": moment}]}, "events.0.event_timestamp"),
        ("/recommend", {"user_id": "u1", "at": moment}, "at"),
        (
            "/recommend",
            {"user_id": "u1", "filters": {"published_after": moment}},
            "filters.published_after",
        ),
        (
            "/similar",
            {"item_id": "i1", "filters": {"published_after": moment}},
            "filters.published_after",
        ),
    ]
    for route, body, where in asked:
        answer = posted(service, route, body)
        assert answer.status_code == 400, (route, body)
        said = answer.json()["error"].partition(";")[0]
        assert said == f"{where}: {moment} looks like {unit}, {WANT}"
    assert inbox(service.home) == before


@pytest.mark.parametrize("moment", ["2024-05-31T10:00:00Z", "yesterday", 1717149600.5, [], True])
def test_a_time_that_is_no_whole_number_is_refused_with_the_unit(
    service: Served, moment: Any
) -> None:
    before = inbox(service.home)
    late = {"filters": {"published_after": moment}}
    asked = [
        ("/events", {"events": [VIEW | {"event_timestamp": moment}]}, "events.0.event_timestamp"),
        ("/recommend", {"user_id": "u1", "at": moment}, "at"),
        ("/recommend", {"user_id": "u1"} | late, "filters.published_after"),
        ("/similar", {"item_id": "i1"} | late, "filters.published_after"),
        ("/search", {"query": "tea", "at": moment}, "at"),
        ("/items", {"items": [{"item_id": "i1", "published_at": moment}]}, "items.0.published_at"),
    ]
    for route, body, where in asked:
        answer = posted(service, route, body)
        assert answer.status_code == 400, (route, body)
        shown = json.dumps(moment)
        assert answer.json()["error"] == f"{where}: {shown} is no whole number; {WANT}"
    assert inbox(service.home) == before


def test_films_of_before_1970_can_be_asked_for(client: ShortlistClient) -> None:
    """`published_after` accepts negative times."""
    everything = client.recommend(RecommendRequest(user_id="u3", k=50))
    body = {"user_id": "u3", "k": 50, "filters": {"published_after": -2_208_988_800_000_000}}
    since_1900 = client.recommend(RecommendRequest.model_validate(body))
    assert ids(since_1900) == ids(everything)


@pytest.fixture(scope="module")
def on_the_wall(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_copy(served_home, tmp_path_factory.mktemp("wall"), clock="wall") as served:
        yield served


def test_a_phone_whose_clock_is_ahead_is_heard_at_once_and_in_the_order_of_arrival(
    on_the_wall: Served,
) -> None:
    with ShortlistClient(on_the_wall.url) as client:
        shown = ids(client.recommend(RecommendRequest(user_id="u20", k=60)))
        told_of = shown[:4]
        for item_id, minutes in zip(told_of, (15, 1, 0.5, -1), strict=True):
            event = Event(user_id="u20", item_id=item_id, event_type="rating", value=5)
            at = time.time_ns() // 1_000 + int(minutes * MINUTE)
            client.events([event.model_copy(update={"event_timestamp": at})])
            answer = client.recommend(RecommendRequest(user_id="u20", k=60))
            assert item_id not in ids(answer)
            assert answer.at < time.time_ns() // 1_000
        now = np.array([time.time_ns() // 1_000])
        rows = OnlineReader(Settings(home=on_the_wall.home)).read(["u20"], [""], now)
        # Times in the future count as the time of arrival. The last event is a minute old.
        assert rows.history_items[0][-4:] == [told_of[3], *told_of[:3]]
        late = time.time_ns() // 1_000 + 31 * MINUTE  # as if local time was sent as UTC
        with pytest.raises(ServiceError, match=r"event_timestamp: .* has not come yet"):
            client.events([Event(**VIEW, event_timestamp=late)])


def test_bad_lines_and_odd_times_of_one_client_harm_nobody_else(
    served_home: Path, world_config: Path, tmp_path: Path
) -> None:
    """Bad lines in the inbox are quarantined, and events with unusual times affect no other user.

    Earlier versions of the service accepted placeholder ids and times in seconds.
    """
    home = copy_home(
        served_home, tmp_path / "home", folders=(*FOLDERS, "serving_log", "events", "runs")
    )
    (home / "clock.json").write_bytes((served_home / "clock.json").read_bytes())
    with home_clock(Settings(home=home), "replay").stamping() as until:
        pass
    line = {"event_type": "rating", "value": 4.0, "item_id": "i3", "received_at": until}
    good = [
        line | {"event_id": f"good{i}", "user_id": f"u{i}", "event_timestamp": until - i}
        for i in (1, 2)
    ]
    bad = [
        line | {"event_id": "bad0", "user_id": "undefined", "event_timestamp": until},
        line | {"event_id": "bad1", "user_id": "u3", "event_timestamp": until // 1_000_000},
        line | {"event_id": "bad2", "user_id": "u3", "event_timestamp": until // 1_000},
        line | {"event_id": "bad3", "user_id": "u9", "event_timestamp": until, "value": 900},
        line | {"event_id": "bad4", "user_id": "u\t3", "event_timestamp": until},
    ]
    folder = home / "events" / "date=2030-01-01"
    folder.mkdir(parents=True)
    lines = [*map(json.dumps, [*bad, *good]), "no JSON"]
    (folder / "1.jsonl").write_text("".join(f"{line}\n" for line in lines))
    refresh(world_config, home=home)
    events = Lake(home / "lake").interactions().column("event_id").to_pylist()
    assert {"good1", "good2"} <= set(events)
    assert not {row["event_id"] for row in bad} & set(events)
    listed = json_of("quarantine", "list", home=home)
    assert "6" in json.dumps(listed)

    with serving(home) as served, ShortlistClient(served.url) as client:
        # A time in 1971 is unlikely, but it isn't recognised as a wrong unit, so it is accepted.
        client.events([Event(**VIEW | {"user_id": "u4"}, event_timestamp=40_000_000_000_000)])
        before = client.recommend(RecommendRequest(user_id="u15", k=5))
        ahead = {"event_type": "rating", "value": 5, "event_timestamp": before.at + 15 * MINUTE}
        client.events([Event(user_id="u15", item_id=ids(before)[0], **ahead)])
        after = client.recommend(RecommendRequest(user_id="u15", k=60))
        assert after.at > ahead["event_timestamp"]
        assert ids(before)[0] not in ids(after)
        for number in range(1, 6):
            client.recommend(RecommendRequest(user_id=f"u{number}", k=5))
    refresh(world_config, home=home)
    with serving(home) as served, ShortlistClient(served.url) as client:
        for number in range(1, 6):
            client.recommend(RecommendRequest(user_id=f"u{number}", k=5))
    done = shortlist("skew", "--json", home=home)
    assert done.returncode == 0, done.stderr[-3_000:] + done.stdout
    assert json.loads(done.stdout)["features"] == []
