"""Archiving the serving log: the same responses as Parquet, and old days deleted."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from shortlist.config import Settings
from shortlist.datasets.service.log_archive import archive_logs
from shortlist.datasets.service.service_log import load_serving_log, read_lines
from tests.shortlist.test_service_log import RESPONSE, append

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, log_days=5)


def entries(count: int) -> list[dict[str, Any]]:
    """Return responses with all kinds of keys, also those that no column has."""
    more = {"as_of": {"user_stats": 5, "context_trend": None}, "stamps": {"user_stats": 6}}
    more |= {"stages": {"ranker": 0.25}, "milliseconds": 1.5, "rules": ["cap"]}
    return [
        json.loads(json.dumps(RESPONSE | more | {"request_id": f"r{n}", "items": items(n)}))
        for n in range(count)
    ]


def items(number: int) -> list[dict[str, Any]]:
    return [item | {"rules": ["pin"] * (number % 3)} for item in RESPONSE["items"][: number % 3]]


def log(settings: Settings, days_ago: int, *rows: Any, name: str = "0001.jsonl", end="\n") -> Path:
    day = (NOW - timedelta(days=days_ago)).strftime("date=%Y-%m-%d")
    path = append(settings.serving_log / day, *rows, name=name, end=end)
    at = (NOW - timedelta(days=days_ago)).timestamp()
    os.utime(path, (at, at))
    return path


def test_an_archived_day_gives_the_same_responses(settings: Settings) -> None:
    rows = entries(1_203)
    log(settings, 2, *rows[:1_100])
    log(settings, 2, *rows[1_100:], name="0002.jsonl")
    before, table = list(read_lines(settings.serving_log)), load_serving_log(settings.serving_log)
    archive_logs(settings, read_until=NOW)
    after = list(read_lines(settings.serving_log))
    assert {path.suffix for path, _, _ in after} == {".parquet"}
    assert [entry for *_, entry in after] == [entry for *_, entry in before] == rows
    assert [number for _, number, _ in after] == [number for _, number, _ in before]
    assert load_serving_log(settings.serving_log).equals(table)
    columns = pq.read_table(settings.serving_log / "date=2026-03-08" / "0001.parquet")
    assert columns.column("milliseconds").to_pylist() == [1.5] * 1_100


def test_todays_file_and_one_that_changed_since_the_refresh_began_stay(settings: Settings) -> None:
    today, late = log(settings, 0, *entries(1)), log(settings, 1, *entries(2))
    os.utime(late, (NOW.timestamp() + 1, NOW.timestamp() + 1))
    assert archive_logs(settings, read_until=NOW) == []
    assert (today.is_file(), late.is_file()) == (True, True)
    assert late.with_suffix(".parquet") in archive_logs(
        settings, read_until=NOW + timedelta(hours=1)
    )


def test_an_unfinished_last_line_is_dropped(settings: Settings) -> None:
    path = log(settings, 1, orjson.dumps(entries(2)[1]).decode() + '\n{"request_id"', end="")
    (done,) = archive_logs(settings, read_until=NOW)
    assert [entry for *_, entry in read_lines(settings.serving_log)] == entries(2)[1:]
    assert not path.exists()
    assert not done.with_suffix(".partial").exists()


def test_a_line_of_an_earlier_version_with_nan_is_archived(settings: Settings) -> None:
    (entry,) = entries(1)
    log(settings, 1, json.dumps(entry | {"milliseconds": float("nan")}))
    archive_logs(settings, read_until=NOW)
    ((*_, found),) = read_lines(settings.serving_log)
    assert found["milliseconds"] != found["milliseconds"]
    assert found | {"milliseconds": 1.5} == entry


def test_a_damaged_line_leaves_the_file_as_it_is(settings: Settings) -> None:
    path = log(settings, 1, *entries(1), "damaged")
    content = path.read_bytes()
    with pytest.raises(ValueError, match="unexpected character"):
        archive_logs(settings, read_until=NOW)
    assert path.read_bytes() == content


def test_days_beyond_the_limit_are_deleted_from_both_logs(settings: Settings) -> None:
    old, kept = log(settings, 6, *entries(1)), log(settings, 5, *entries(1))
    other = settings.serving_log / "by hand"
    other.mkdir()
    answers = append(settings.answer_log / "date=2026-03-01", {"route": "/similar"})
    archive_logs(settings, read_until=NOW)
    assert not old.parent.exists()
    assert not answers.parent.exists()
    assert kept.with_suffix(".parquet").is_file()
    assert other.is_dir()
