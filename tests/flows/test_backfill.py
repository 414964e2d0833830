"""A backfill adds exactly the missing events of its range, however often it runs."""

import sqlite3
from datetime import date
from pathlib import Path

import pytest

from flows.backfill import backfill_flow, limits_of_a_range, range_of
from flows.refresh import refresh
from flows.runtime.configuration import load_run_config
from flows.validate import ValidateConfig, validate_batch
from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.items.commands import CommandInbox
from shortlist.lake import Lake
from shortlist.lake.snapshot import current_manifest
from shortlist.moments import moment_text
from shortlist.validation import RuleChange
from tests.flows.conftest import DAY, GENEROUS, GOOD_EVENTS, START, House, event

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
[data.database.items]
table = "products"
watermark = "id"
look_back = 0
columns = {{ item_id = "sku", price = "price" }}
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
        connection.execute("CREATE TABLE products (id INTEGER, sku TEXT, price REAL)")
        products = [(number, f"s{number}", 1.0) for number in range(7)]
        connection.executemany("INSERT INTO products VALUES (?, ?, ?)", products)
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
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE products SET price = 9")  # no refresh reads it: ids as before
    first = backfill_flow(str(toml), date(2024, 1, 5), date(2024, 1, 10))
    assert first["added"] == 2
    assert days_of(settings) == before | {"2": "05", "3": "09"}
    assert first["features"]["rows"]
    assert set(Lake(settings.lake).items().column("price").to_pylist()) == {1.0}
    wider = backfill_flow(str(toml), date(2024, 1, 1), date(2024, 2, 1))
    assert wider["added"] == 2
    assert days_of(settings) == before | {"1": "04", "2": "05", "3": "09", "4": "10"}
    order(shop, 128, 28)
    refresh(settings, config)  # the watermark is still that of the refresh
    assert len(days_of(settings)) == 33
    assert moment_text(Lake(settings.lake).manifest.latest or 0).startswith("2024-01-28")


def test_posted_changes_of_items_stay_though_the_catalogue_is_complete(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.validate()
    house.complete = True
    posted = [{"item_id": "i1", "price": 7.0}, {"item_id": "posted", "title": "New"}]
    CommandInbox.of(house.settings).append(posted, received_at=START + 30 * DAY)
    commands = stage_source(
        DataConfig.model_validate({"source": "commands"}), house.settings, now=START + 30 * DAY
    )
    validate_batch(house.settings, commands.batch_id, GENEROUS, clock="replay")
    before = house.lake.items()
    sources = current_manifest(house.lake.root).sources
    late = [event(50, event_timestamp=START + DAY), event(51, event_timestamp=START + 9 * DAY)]
    done = house.validate([*GOOD_EVENTS, *late], between=(START, START + 5 * DAY))
    assert (done["accepted"], done["withdrawn"]) == (1, 0)
    assert house.lake.items().equals(before)
    assert current_manifest(house.lake.root).sources == sources


def test_a_range_is_judged_by_its_own_rows_and_again_under_another_rule(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.validate()
    found = [event(50, value=5.0), event(51, value=9.0)]
    found = [one | {"event_timestamp": START + DAY} for one in found]
    elsewhere = [event(i, event_timestamp="never") for i in range(60, 80)]
    broken = [f"no event {i}" for i in range(20)]
    rows = [*GOOD_EVENTS, *found, *elsewhere, *broken]
    strict = ValidateConfig(
        failure_budget=0.4,
        min_rows=20,
        max_age_days=3,
        rules={"volume.rows": RuleChange(min=30), "time.age_days": RuleChange(max=2)},
    )
    strict = limits_of_a_range(strict)
    between = (START + DAY, START + 2 * DAY)
    first = house.validate(rows, config=strict, between=between)
    assert (first["accepted"], first["duplicates"], first["quarantined"]) == (1, 1, 1)
    wider = strict.model_copy(update={"rating_range": (1, 10)})
    again = house.validate(rows, config=wider, between=between)
    assert (again["accepted"], again["duplicates"], again["quarantined"]) == (1, 2, 0)


def test_what_can_not_be_backfilled_says_why() -> None:
    simulated = DataConfig.model_validate({"source": "simulated"})
    with pytest.raises(DatasetError, match="'simulated' has nothing to read again, want files or"):
        range_of(simulated, start=date(2024, 1, 1), end=date(2024, 1, 2))
    events = {"path": "log.csv", "event_type": "click", "columns": {}}
    events["columns"] = {"user_id": "u", "item_id": "i", "event_timestamp": "t"}
    log = DataConfig.model_validate({"source": "files", "files": {"interactions": events}})
    with pytest.raises(DatasetError, match="the range is empty, want an end after the start"):
        range_of(log, start=date(2024, 1, 2), end=date(2024, 1, 2))
    first = 1_704_067_200_000_000
    assert range_of(log, start=date(2024, 1, 1), end=date(2024, 1, 2)) == (first, first + DAY)
