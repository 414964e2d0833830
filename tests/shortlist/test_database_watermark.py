"""Watermarks of database sources: exact values, and rows that are committed late."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from flows.ingest import stage
from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.lake import Lake

TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]
NOW = 1_700_000_000_000_000


class Shop:
    """A SQLite database with one table of orders, and the home that reads it."""

    def __init__(self, folder: Path, *, id_type: str):
        self.settings = Settings(home=folder / "home")
        self.url = f"sqlite:///{folder / 'shop.db'}?detect_types=1"
        self.engine = sqlalchemy.create_engine(self.url)
        self._execute(f"CREATE TABLE orders (id {id_type}, changed TEXT, user TEXT, item TEXT)")

    def _execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)

    def order(self, id_: Any, *, changed: str = "2024-03-01 10:00:00", user: str) -> None:
        statement = "INSERT INTO orders VALUES (:id, :changed, :user, 'i1')"
        self._execute(statement, id=id_, changed=changed, user=user)

    def config(self, watermark: str | None, **table: Any) -> DataConfig:
        columns = {"user_id": "user", "item_id": "item", "event_timestamp": "changed"}
        orders = {
            **{"table": "orders", "watermark": watermark, "columns": columns},
            **{"event_type": "purchase", "timestamp_unit": "iso"},
        }
        database = {"url": self.url, "interactions": orders | table, "chunk_rows": 2}
        return DataConfig.model_validate({"source": "database", "database": database})

    def users(self) -> list[str]:
        return sorted(Lake(self.settings.lake).interactions().column("user_id").to_pylist())


@pytest.fixture
def decimals() -> Iterator[None]:
    """Make SQLite return EXACTTEXT columns as Decimal, as other databases do with NUMERIC."""
    sqlite3.register_adapter(Decimal, str)
    sqlite3.register_converter("EXACTTEXT", lambda text: Decimal(text.decode()))
    yield
    del sqlite3.adapters[(Decimal, sqlite3.PrepareProtocol)]
    del sqlite3.converters["EXACTTEXT"]


def test_a_decimal_watermark_keeps_every_digit(
    decimals: None, tmp_path: Path, take_in: TakeIn
) -> None:
    """Converted to float, all ids of this test would be equal, and new rows would be missed."""
    shop = Shop(tmp_path, id_type="EXACTTEXT")
    ids = [Decimal(f"1234567890123456789012345678.{i:010d}") for i in range(6)]  # numeric(38, 10)
    for i in range(5):
        shop.order(ids[i], user=f"u{i}")
    assert take_in(shop.config("id"), shop.settings)[0]["accepted"] == 5
    shop.order(ids[5], user="u5")
    result, _ = take_in(shop.config("id"), shop.settings)
    assert result == {"read": 2, "accepted": 1, "quarantined": 0, "duplicates": 1}
    result, _ = take_in(shop.config("id", look_back=1), shop.settings)
    assert result["duplicates"] == 6  # newest id - 1 is less than all ids, so all rows are read


def test_an_order_committed_late_is_read_within_the_look_back(
    tmp_path: Path, take_in: TakeIn
) -> None:
    shop = Shop(tmp_path, id_type="INTEGER")
    late, new = "2024-03-01 11:59:59.999999", "2024-03-01 12:30:00.000001"
    shop.order(1, changed="2024-03-01 09:00:00", user="early")
    shop.order(3, changed=new, user="new")
    config = shop.config("changed", look_back="1 hour")
    assert take_in(config, shop.settings)[0]["accepted"] == 2
    shop.order(2, changed=late, user="late")  # was committed after the first ingest
    shop.order(0, changed="2024-03-01 11:30:00", user="too late")
    result, _ = take_in(config, shop.settings)
    assert result == {"read": 2, "accepted": 1, "quarantined": 0, "duplicates": 1}
    assert shop.users() == ["early", "late", "new"]
    # Without a look-back, only the newest row is read again. Changing the look-back doesn't reset
    # the watermark, so the wider one reads the row that came too late before.
    assert take_in(shop.config("changed"), shop.settings)[0]["read"] == 1
    wider = shop.config("changed", look_back="90 minutes")
    assert take_in(wider, shop.settings)[0] == result | {"read": 3, "duplicates": 2}
    assert shop.users() == ["early", "late", "new", "too late"]


@pytest.mark.parametrize(("look_back", "warned"), [(None, True), (0, False), (5, False)])
def test_ingest_warns_of_a_watermark_without_look_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], look_back: int | None, warned: bool
) -> None:
    shop = Shop(tmp_path, id_type="INTEGER")
    shop.order(1, user="u")
    stage(shop.settings, shop.config("id", look_back=look_back), now=NOW)
    text = "data.database.interactions: a row that is committed late"
    assert (text in capsys.readouterr().out) == warned


def test_ids_are_looked_back_by_a_number(tmp_path: Path, take_in: TakeIn) -> None:
    shop = Shop(tmp_path, id_type="INTEGER")
    config = shop.config("id", look_back=3)
    far = 2**60  # beyond what a float holds exactly
    for i in (far, far + 1, far + 4):
        shop.order(i, user=f"u{i - far}")
    assert take_in(config, shop.settings)[0]["accepted"] == 3
    shop.order(far + 2, user="u2")
    shop.order(far + 3, user="u3")
    result, _ = take_in(config, shop.settings)
    assert (result["accepted"], result["duplicates"]) == (2, 2)
    assert shop.users() == [f"u{i}" for i in range(5)]


def test_a_correction_that_is_read_again_changes_nothing(tmp_path: Path, take_in: TakeIn) -> None:
    """Corrections and deletions that a look-back reads again are applied only once."""
    shop = Shop(tmp_path, id_type="INTEGER")
    with shop.engine.begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE orders ADD operation TEXT"))
        connection.execute(sqlalchemy.text("ALTER TABLE orders ADD nr TEXT"))
        for id_, operation, nr, item in (
            (1, "insert", "a", "i1"),
            (2, "insert", "b", "i1"),
            (3, "correct", "a", "i2"),
            (4, "delete", "b", "i1"),
        ):
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO orders VALUES"
                    f" ({id_}, '2024-03-01 10:00:00', 'u', '{item}', '{operation}', '{nr}')"
                )
            )
    columns = {"user_id": "user", "item_id": "item", "event_timestamp": "changed"}
    columns |= {"event_id": "nr", "operation": "operation"}
    config = shop.config("id", look_back=10, columns=columns)
    from flows.validate import ValidateConfig, validate_batch

    for _ in range(2):
        batch = stage_source(config, shop.settings, now=NOW)
        limits = ValidateConfig(failure_budget=0.9)
        validate_batch(shop.settings, batch.batch_id, limits, clock="replay")
        rows = Lake(shop.settings.lake).interactions().to_pylist()
        assert [(row["event_id"], row["item_id"]) for row in rows] == [("a", "i2")]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"look_back": "soon"}, "look_back is 'soon', want a time such as"),
        ({"look_back": -1}, "look_back is -1, want a positive number"),
        ({"look_back": 5, "mark": None}, "look_back has no effect without `watermark`"),
    ],
)
def test_a_look_back_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Shop(tmp_path, id_type="INTEGER").config(changes.pop("mark", "id"), **changes)


@pytest.mark.parametrize(("watermark", "look_back"), [("id", "1 hour"), ("changed", 5)])
def test_a_look_back_of_another_kind_than_its_column_is_named(
    tmp_path: Path, take_in: TakeIn, watermark: str, look_back: Any
) -> None:
    shop = Shop(tmp_path, id_type="INTEGER")
    shop.order(1, user="u")
    take_in(shop.config(watermark), shop.settings)
    with pytest.raises(DatasetError, match=rf"look_back is .* '{watermark}' \(watermark\) holds"):
        take_in(shop.config(watermark, look_back=look_back), shop.settings)


def test_typed_times_are_looked_back(tmp_path: Path) -> None:
    from shortlist.datasets.database import _kept, _read_from, _typed

    config = Shop(tmp_path, id_type="INTEGER").config("changed", look_back="2 days")
    assert config.database is not None
    table = config.database.interactions
    moment = datetime.fromisoformat("2024-03-01T12:00:00.000001+01:00")
    for value in (moment, moment.date()):
        assert _read_from(_typed(_kept(value)), table, "here") == value - timedelta(days=2)
