"""A backfill adds exactly the missing events of its range, however often it runs."""

import sqlite3
from datetime import date
from pathlib import Path

import pytest

from flows.backfill import backfill_flow, data_between
from flows.refresh import refresh
from flows.runtime.configuration import load_run_config
from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError
from shortlist.lake import Lake
from shortlist.moments import moment_text

TOML = """
name = "orders"
[data]
source = "database"
target_events = ["purchase"]
clock = "replay"
[data.database]
url = "sqlite:///{folder}/shop.db"
[data.database.interactions]
table = "orders"
event_type = "purchase"
watermark = "id"
look_back = 0
timestamp_unit = "iso"
columns = {{ event_id = "id", user_id = "customer", item_id = "sku", event_timestamp = "at" }}
[train]
sources = [{{ kind = "popularity" }}]
rankers = []
"""


def order(shop: Path, number: int, day: int) -> None:
    with sqlite3.connect(shop) as connection:
        row = (number, f"c{number % 5}", f"s{number % 7}", f"2024-01-{day:02d} 12:00:00")
        connection.execute("INSERT INTO orders VALUES (?, ?, ?, ?)", row)


def days_of(settings: Settings) -> dict[str, str]:
    """Return {event id in the database: day} of the lake."""
    rows = Lake(settings.lake).interactions().to_pylist()
    return {row["event_id"].rpartition(":")[2]: f"{row['event_timestamp']:%d}" for row in rows}


@pytest.mark.usefixtures("prefect_here")
def test_rows_below_the_watermark_are_added_once_and_only_inside_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop.db"
    with sqlite3.connect(shop) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER, customer TEXT, sku TEXT, at TEXT)")
    for number in range(100, 128):
        order(shop, number, number - 99)
    toml = tmp_path / "orders.toml"
    toml.write_text(TOML.format(folder=tmp_path))
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    settings, config = Settings(), load_run_config(toml)
    refresh(settings, config)
    before = days_of(settings)
    assert len(before) == 28
    for number, day in enumerate((4, 5, 9, 10), start=1):  # ids below the watermark
        order(shop, number, day)
    first = backfill_flow(str(toml), date(2024, 1, 5), date(2024, 1, 10))
    assert first["added"] == 2
    assert days_of(settings) == before | {"2": "05", "3": "09"}
    assert first["features"]["rows"]
    wider = backfill_flow(str(toml), date(2024, 1, 1), date(2024, 2, 1))
    assert wider["added"] == 2
    assert days_of(settings) == before | {"1": "04", "2": "05", "3": "09", "4": "10"}
    order(shop, 128, 28)
    refresh(settings, config)  # the watermark is still that of the refresh
    assert len(days_of(settings)) == 33
    assert moment_text(Lake(settings.lake).manifest.latest or 0).startswith("2024-01-28")


def test_what_can_not_be_backfilled_says_why() -> None:
    simulated = DataConfig.model_validate({"source": "simulated"})
    with pytest.raises(DatasetError, match="'simulated' has nothing to read again, want files or"):
        data_between(simulated, start=date(2024, 1, 1), end=date(2024, 1, 2))
    events = {"path": "log.csv", "event_type": "click", "columns": {}}
    events["columns"] = {"user_id": "u", "item_id": "i", "event_timestamp": "t"}
    log = DataConfig.model_validate({"source": "files", "files": {"interactions": events}})
    with pytest.raises(DatasetError, match="the range is empty, want an end after the start"):
        data_between(log, start=date(2024, 1, 2), end=date(2024, 1, 2))
    assert data_between(log, start=date(2024, 1, 1), end=date(2024, 1, 2)).exclude == (
        "event_timestamp < TIMESTAMPTZ '2024-01-01 00:00:00+00'",
        "event_timestamp >= TIMESTAMPTZ '2024-01-02 00:00:00+00'",
    )
