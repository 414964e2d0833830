"""Ingest of the serving log: each shown item becomes one impression event, known from ingest."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.datasets.service.log_archive import archive_logs
from shortlist.lake import Lake

TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]
AT = 1_717_000_000_000_000  # May 2024, a week before conftest's NOW
SERVICE = DataConfig(source="service")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path, log_days=10_000)
    items = [{"item_id": one, "categories": [], "available": True} for one in "abc"]
    Lake(settings.lake).publish(
        "seed",
        INTERACTIONS.empty_table(),
        pa.Table.from_pylist(items, schema=ITEMS),
        pa.Table.from_pylist([{"user_id": "u1"}], schema=USERS),
    )
    return settings


def answer(request_id: str, items: str, **changes: Any) -> dict[str, Any]:
    shown = [
        {"item_id": item, "position": place, "source": "ease", "score": 0.5, "propensity": 1.0}
        for place, item in enumerate(items, start=1)
    ]
    line = {"request_id": request_id, "user_id": "u1", "context_id": "home|phone|12"}
    return line | {"event_timestamp": AT, "seed": None, "items": shown} | changes


def log(settings: Settings, *answers: Any, name: str = "w1.jsonl", end: str = "\n") -> Path:
    path = settings.serving_log / "date=2024-05-29" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in answers]
    with path.open("a") as file:
        file.write("\n".join(lines) + end)
    return path


def impressions(settings: Settings) -> list[dict[str, Any]]:
    return Lake(settings.lake).interactions(event_types=("impression",)).to_pylist()


def test_every_item_shown_is_an_event(settings: Settings, take_in: TakeIn) -> None:
    log(settings, answer("r1", "ba"), answer("r2", "c", context_id="unknown|unknown|07"))
    result, bad = take_in(SERVICE, settings)
    assert (result["read"], result["accepted"], bad) == (3, 3, [])
    rows = impressions(settings)
    assert [
        (row["request_id"], row["item_id"], row["position"], row["surface"], row["device"])
        for row in rows
    ] == [
        ("r1", "b", 1, "home", "phone"),
        ("r1", "a", 2, "home", "phone"),
        ("r2", "c", 1, None, None),
    ]
    assert {row["user_id"] for row in rows} == {"u1"}
    assert {row["source"] for row in rows} == {"serving_log"}
    assert {row["value"] for row in rows} == {1.0}  # the propensity
    assert {int(row["event_timestamp"].timestamp() * 1e6) for row in rows} == {AT}
    # They are known from their ingest, not from the response, as in the online store.
    assert {row["ingested_at"].isoformat() for row in rows} == {"2024-06-01T00:00:00+00:00"}


def test_an_impression_is_known_after_every_answer_of_its_batch(settings: Settings) -> None:
    """Impressions are known only after the newest response of their batch.

    Under the replay clock, the time of ingest may be before the responses.
    """
    log(settings, answer("r1", "a"))
    log(settings, answer("r2", "b", event_timestamp=AT + 5), name="w2.jsonl")
    batch = stage_source(SERVICE, settings, now=AT - 1_000)
    files = sorted((settings.lake / "incoming" / batch.batch_id / "interactions").iterdir())
    known = [pq.read_table(file).column("ingested_at")[0].as_py() for file in files]
    assert [int(one.timestamp() * 1e6) for one in known] == [AT + 6, AT + 6]


def test_only_what_is_new_is_read_and_a_torn_line_waits(
    settings: Settings, take_in: TakeIn
) -> None:
    log(settings, answer("r1", "ab"))
    assert take_in(SERVICE, settings)[0]["accepted"] == 2
    whole = json.dumps(answer("r3", "c"))
    log(settings, answer("r2", "a"), whole[:50], end="")
    result, _ = take_in(SERVICE, settings)
    assert (result["read"], result["accepted"]) == (1, 1)
    log(settings, whole[50:])
    log(settings, answer("r4", "b"), name="w2.jsonl")  # file of another worker
    assert take_in(SERVICE, settings)[0] == result | {"read": 2, "accepted": 2}
    assert stage_source(SERVICE, settings, now=AT).is_empty
    shown = sorted(row["request_id"] for row in impressions(settings))
    assert shown == ["r1", "r1", "r2", "r3", "r4"]


def test_a_line_that_is_read_twice_is_one_event(settings: Settings, take_in: TakeIn) -> None:
    log(settings, answer("r1", "ab"))
    take_in(SERVICE, settings)
    log(settings, answer("r1", "ab"), name="copy.jsonl")
    assert take_in(SERVICE, settings)[0]["duplicates"] == 2
    assert len(impressions(settings)) == 2


def test_visitors_without_an_id_are_left_out_and_counted(
    settings: Settings, take_in: TakeIn
) -> None:
    log(settings, answer("r1", "ab", user_id="anonymous"))
    batch = stage_source(SERVICE, settings, now=AT)
    assert (batch.anonymous, batch.is_empty) == (1, True)
    log(settings, answer("r2", "c"))
    assert take_in(SERVICE, settings)[0]["accepted"] == 1
    assert [row["user_id"] for row in impressions(settings)] == ["u1"]


def test_many_lists_in_a_minute_are_no_bot(settings: Settings, take_in: TakeIn) -> None:
    """The rule against bots (over 300 events of a user per minute) doesn't apply to impressions."""
    log(settings, *(answer(f"r{i}", "abc") for i in range(150)))
    assert take_in(SERVICE, settings)[0] == {
        **{"read": 450, "accepted": 450},
        **{"quarantined": 0, "duplicates": 0},
    }


def test_impressions_can_be_left_out(settings: Settings, take_in: TakeIn) -> None:
    log(settings, answer("r1", "ab"))
    settings.events.mkdir()
    event = {"event_id": "e", "user_id": "u1", "item_id": "a", "event_type": "click"}
    event |= {"event_timestamp": AT, "received_at": AT}
    (settings.events / "1.jsonl").write_text(json.dumps(event) + "\n")
    without = SERVICE.model_copy(update={"impressions": False})
    assert take_in(without, settings)[0]["read"] == 1
    assert take_in(SERVICE, settings)[0]["accepted"] == 2  # they are ingested later


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"request_id": "r1"', r"w1\.jsonl: after byte 0: .*JSON"),
        (answer("r1", "a", user_id=None), r"w1\.jsonl: after byte 0: 1 lines lack request_id"),
        (answer("r1", "a") | {"items": [{"position": 1}]}, "lack .* item_id"),
    ],
)
def test_a_damaged_log_is_named(settings: Settings, line: Any, complaint: str) -> None:
    log(settings, line)
    with pytest.raises(DatasetError, match=complaint):
        stage_source(SERVICE, settings, now=AT)


def test_impressions_of_an_archived_day_are_not_staged_again(
    settings: Settings, take_in: TakeIn
) -> None:
    path = log(settings, answer("r1", "ba"), answer("r2", "c"))
    assert take_in(SERVICE, settings)[0]["accepted"] == 3
    written = archive_logs(settings, read_until=datetime.now(UTC) + timedelta(minutes=1))
    assert written == [path.with_suffix(".parquet")]
    assert not path.exists()
    log(settings, answer("r3", "b"), name="w2.jsonl")
    assert take_in(SERVICE, settings)[0]["read"] == 1
    assert len(impressions(settings)) == 4
