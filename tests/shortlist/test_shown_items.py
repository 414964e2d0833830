"""Shown items: newest time per user and item, shared, and removed after the rule's days."""

import sqlite3
from pathlib import Path

from shortlist.behaviour.shown_items import ShownItems

DAY = 86_400_000_000
T = 1_700_000_000_000_000


def entry(user_id: str, *items: str, at: int) -> dict:
    shown = [{"item_id": item} for item in items]
    return {"user_id": user_id, "event_timestamp": at, "items": shown}


def test_shown_items_are_those_later_than_a_time(tmp_path: Path) -> None:
    shown = ShownItems(tmp_path / "shown.db", days=lambda: 3)
    assert shown.between("u", 0, T + 9 * DAY) == []
    shown.record(entry("u", "a", "b", at=T))
    shown.record(entry("anonymous", "c", at=T))
    shown.record(entry("v", "d", at=T))
    assert shown.between("u", 0, T + 9 * DAY) == []  # not written yet
    shown.flush()
    shown.record(entry("u", "b", at=T + DAY))
    shown.record(entry("u", "a", at=T - DAY))  # an older list that arrives later
    shown.flush()
    other = ShownItems(tmp_path / "shown.db")
    assert sorted(other.between("u", T - 1, T + 9 * DAY)) == ["a", "b"]
    assert other.between("u", T, T + 9 * DAY) == ["b"]
    assert other.between("anonymous", 0, T + 9 * DAY) == []


def test_nothing_is_recorded_without_a_rule_and_old_rows_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "shown.db"
    off = ShownItems(path)
    off.record(entry("u", "a", at=T))
    off.flush()
    assert not path.exists()
    shown = ShownItems(path, days=lambda: 2)
    shown.record(entry("u", "a", at=T))
    shown.flush()
    shown.record(entry("u", "b", at=T + 3 * DAY))
    shown.flush()
    assert shown.between("u", 0, T + 9 * DAY) == ["b"]


def test_a_file_that_cannot_be_written_loses_rows_and_stops_nothing(tmp_path, caplog) -> None:
    path = tmp_path / "shown.db"
    path.mkdir()
    shown = ShownItems(path, days=lambda: 2)
    shown.record(entry("u", "a", at=T))
    shown.flush()
    assert "can't be written: 1 are lost" in caplog.text
    path.rmdir()
    shown.record(entry("u", "b", at=T))
    shown.flush()
    assert shown.between("u", 0, T + 9 * DAY) == ["b"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM shown").fetchone() == (1,)
