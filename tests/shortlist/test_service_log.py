"""Files of the service as a source: posted events become a batch, responses a SERVING_LOG."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import duckdb
import pytest

from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, SERVING_LOG, microseconds
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.datasets.service.service_log import load_posted_events, load_serving_log
from shortlist.lake import LakeError, open_staged
from shortlist.lake.staging import staged_events
from tests.shortlist.conftest import POSTED, STAGED_AT

RESPONSE: dict[str, Any] = {
    "request_id": "r1",
    "release_id": "rel",
    "pack_id": None,
    "arm": "main",
    "user_id": "00196",
    "context_id": "web|phone|12",
    "event_timestamp": 881_250_949_000_001,
    "user_as_of": 881_250_000_000_000,
    "delta_epoch": 0,
    "rules_version": "v1",
    "seed": 7,
    "skipped_stages": ["rank"],
    "items": [
        {
            **{"item_id": "a", "position": 1, "source": "sasrec", "score": 0.5},
            **{"propensity": 1.0, "features": [0.5, 2.0]},
        },
        {
            **{"item_id": "b", "position": 2, "source": "ease", "score": 0.25},
            **{"propensity": 1.0, "features": [0.25, 3.0]},
        },
    ],
}


def append(folder: Path, *rows: Any, name: str = "0001.jsonl", end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    with path.open("a") as file:
        file.write(lines + end)
    return path


def staged(settings: Settings) -> list[dict[str, Any]]:
    batch = stage_source(DataConfig(source="service"), settings, now=STAGED_AT)
    folder, _ = open_staged(settings.lake, batch.batch_id)
    with duckdb.connect() as connection:
        relation = staged_events(folder, original=True)
        return connection.sql(f"SELECT * FROM {relation}").to_arrow_table().to_pylist()


def test_posted_events_become_a_batch(settings: Settings) -> None:
    append(settings.events, POSTED, POSTED | {"event_id": "e2", "user_id": "new", "value": 4.5})
    append(settings.events, POSTED | {"event_id": "e3", "position": 2}, name="0002.jsonl")
    events = staged(settings)
    assert [row["event_id"] for row in events] == ["e1", "e2", "e3"]
    assert [row["source"] for row in events] == [
        "service:0001.jsonl",
        "service:0001.jsonl",
        "service:0002.jsonl",
    ]
    assert [row["value"] for row in events] == [None, 4.5, None]
    assert [row["position"] for row in events] == [None, None, 2]
    assert events[0]["event_timestamp"].timestamp() * 1e6 == 881_250_949_000_001
    assert events[0]["ingested_at"].timestamp() * 1e6 == 881_250_950_000_000
    # Monitoring reads the same events.
    posted = load_posted_events(settings, now=STAGED_AT)
    assert posted.interactions.schema.equals(INTERACTIONS)
    assert posted.interactions.column("event_id").to_pylist() == ["e1", "e2", "e3"]
    assert posted.users.column("user_id").to_pylist() == ["00196", "new"]


def test_a_bad_line_is_staged_with_its_faults(settings: Settings) -> None:
    append(settings.events, POSTED, '{"event_id": "e2"', POSTED | {"item_id": 196.0})
    good, broken, float_id = staged(settings)
    assert good["faults"] is None
    assert broken["faults"] == ["line.json"]
    assert json.loads(json.dumps(broken["original"]))["_line"] == '{"event_id": "e2"'
    assert float_id["faults"] == ["item_id.text"]


def test_a_torn_last_line_waits_for_the_next_time(settings: Settings) -> None:
    whole = json.dumps(POSTED | {"event_id": "e2"})
    append(settings.events, POSTED)
    path = append(settings.events, whole[:40], end="")
    assert load_posted_events(settings, now=STAGED_AT).interactions.num_rows == 1
    assert len(staged(settings)) == 1
    with path.open("a") as file:
        file.write(whole[40:] + "\n")
    assert load_posted_events(settings, now=STAGED_AT).interactions.num_rows == 2
    assert len(staged(settings)) == 2


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (POSTED | {"mood": "good"}, "line 2: .*mood"),
        (POSTED | {"event_type": "stare"}, "line 2: .*'stare' is unknown"),
        (POSTED | {"user_id": 196.0}, "line 2: user_id: Input should be a valid string"),
        (POSTED | {"event_timestamp": None}, "line 2: event_timestamp is missing"),
        (POSTED | {"event_timestamp": 1_700_000_000}, "line 2: .* looks like seconds"),
        (POSTED | {"user_id": "undefined"}, "line 2: user_id: .* a placeholder for a missing id"),
        (POSTED | {"received_at": "noon"}, "line 2: received_at is 'noon', want microseconds"),
        (POSTED | {"event_timestamp": 10**30}, "line 2: event_timestamp"),
        (POSTED | {"received_at": -5}, "line 2: received_at is -5, want microseconds"),
        (POSTED | {"position": -1}, "line 2: position: Input should be greater"),
        ('{"event_id": "e2"', "line 2: not JSON"),
        ('["e2"]', "line 2: not an object"),
        ('{"event_id": NaN}', "line 2"),
    ],
)
def test_a_line_that_is_no_event_is_named_and_keeps_no_other_back(
    settings: Settings, line: Any, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    append(settings.events, POSTED, line, POSTED | {"event_id": "e3"})
    with caplog.at_level("WARNING"):
        posted = load_posted_events(settings, now=STAGED_AT)
    assert posted.interactions.column("event_id").to_pylist() == ["e1", "e3"]
    assert "1 posted lines are no events" in caplog.text
    assert re.search(rf"0001\.jsonl: {complaint}", caplog.text)


def test_posted_events_of_before_are_not_even_checked(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Events received before `since` are skipped unchecked, so invalid ones cause no warning."""
    received = POSTED["received_at"]
    later = {"event_id": "e3", "received_at": received + 9}
    early = POSTED | {"event_id": "e4", "event_timestamp": received + 9}
    append(settings.events, POSTED, POSTED | {"event_type": "stare"}, POSTED | later, early)
    with caplog.at_level("WARNING"):
        posted = load_posted_events(settings, now=STAGED_AT, since=received + 9)
    assert posted.interactions.column("event_id").to_pylist() == ["e3", "e4"]
    assert caplog.text == ""
    assert load_posted_events(settings, now=STAGED_AT, since=received).interactions.num_rows == 3


def test_nothing_posted_and_nothing_to_post_about(settings: Settings, tmp_path: Path) -> None:
    """An empty inbox is an error, and so is an inbox of a home without a lake."""
    with pytest.raises(DatasetError, match="source 'service' has no events"):
        stage_source(DataConfig(source="service"), settings, now=STAGED_AT)
    empty = Settings(home=tmp_path / "other")
    append(empty.events, POSTED)
    with pytest.raises(LakeError, match="shortlist run"):
        load_posted_events(empty, now=STAGED_AT)


def test_the_serving_log_has_a_row_for_each_item_shown(tmp_path: Path) -> None:
    later = RESPONSE | {"request_id": "r2", "event_timestamp": 900_000_000_000_000, "items": []}
    append(tmp_path, RESPONSE | {"mood": "good"}, later)
    log = load_serving_log(tmp_path)
    assert log.schema.equals(SERVING_LOG)
    assert log.num_rows == 2
    assert log.column("request_id").to_pylist() == ["r1", "r1"]
    assert log.column("item_id").to_pylist() == ["a", "b"]
    assert log.column("features").to_pylist() == [[0.5, 2.0], [0.25, 3.0]]
    assert log.column("skipped_stages").to_pylist() == [["rank"], ["rank"]]
    assert microseconds(log.column("event_timestamp")).to_pylist() == [881_250_949_000_001] * 2
    assert load_serving_log(tmp_path, since=881_250_949_000_002).num_rows == 0
    assert load_serving_log(tmp_path, since=881_250_949_000_001).num_rows == 2


def test_a_release_s_answers_alone(tmp_path: Path) -> None:
    """The serving log can be read for one release."""
    append(tmp_path, RESPONSE, RESPONSE | {"request_id": "r2", "release_id": "other"})
    log = load_serving_log(tmp_path, release_id="other")
    assert log.column("request_id").to_pylist() == ["r2", "r2"]
    assert load_serving_log(tmp_path, release_id="none").num_rows == 0


def test_memory_does_not_grow_with_the_log_beyond_its_table(tmp_path: Path) -> None:
    """The log is converted to Arrow part by part.

    All of its Python objects at once would take 89 MB.
    """
    features = [place + 0.5 for place in range(40)]
    item = RESPONSE["items"][0] | {"features": features}
    answer = json.dumps(RESPONSE | {"items": [item] * 20})
    (tmp_path / "long.jsonl").write_text(f"{answer}\n" * 1_500)
    tracemalloc.start()
    log = load_serving_log(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert log.num_rows == 30_000
    assert log.column("features")[29_999].as_py() == features
    assert peak < 25e6


def test_an_empty_serving_log_is_an_empty_table(tmp_path: Path) -> None:
    assert load_serving_log(tmp_path / "nowhere").equals(SERVING_LOG.empty_table())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"items": [{"item_id": "a"}]}, "line 1: key 'position' is missing"),
        ({"items": None}, "line 1: items is None, want a list"),
        ({"release_id": None}, "line 1: key 'release_id' is null"),
        ({"seed": "seven"}, "key 'seed'"),
    ],
)
def test_a_broken_response_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    append(tmp_path, RESPONSE | change)
    with pytest.raises(DatasetError, match=complaint):
        load_serving_log(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    append(tmp_path, RESPONSE, {key: value for key, value in RESPONSE.items() if key != "arm"})
    with pytest.raises(DatasetError, match=r"0001\.jsonl: line 2: key 'arm' is missing"):
        load_serving_log(tmp_path)
