"""Lists that were shown, and which of their items were chosen."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.lake import Lake

T = 1_717_000_000_000_000
HOUR = 3_600_000_000


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def publish(lake: Lake, *events: dict[str, Any]) -> None:
    plain = {"user_id": "u", "event_order": 0, "ingested_at": T, "source": "test"}
    rows = [plain | {"event_id": f"e{n}"} | event for n, event in enumerate(events)]
    columns = []
    for field in INTERACTIONS:
        kind = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns.append(pa.array([row.get(field.name) for row in rows], kind).cast(field.type))
    items = [{"item_id": one, "categories": [], "available": True} for one in "abc"]
    lake.publish(
        "first",
        pa.table(columns, schema=INTERACTIONS),
        pa.Table.from_pylist(items, schema=ITEMS),
        pa.Table.from_pylist([{"user_id": "u"}], schema=USERS),
    )


def shown(item: str, position: int | None, *, at: int = T, request: str = "r1") -> dict[str, Any]:
    return {
        "event_type": "impression",
        "item_id": item,
        "position": position,
        "event_timestamp": at,
        "request_id": request,
        "value": 0.25,
        "surface": "home",
    }


def click(item: str, at: int, request: str | None = None) -> dict[str, Any]:
    return {
        "event_type": "click",
        "item_id": item,
        "event_timestamp": at,
        "request_id": request,
    }


def found(lake: Lake, **changes: Any) -> list[tuple]:
    wanted = {"since": T, "until": T + 100 * HOUR, "chosen_by": ["click"]} | changes
    return [
        (row["request_id"], row["item_id"], row["position"], row["chosen"])
        for row in lake.shown_lists(**wanted).to_pylist()
    ]


def test_a_list_has_its_items_by_position_with_propensity(lake):
    publish(lake, shown("b", 2, at=T + 5), shown("a", 1), shown("c", None), shown("c", 1, at=T - 1))
    assert found(lake) == [("r1", "a", 1, False), ("r1", "b", 2, False)]
    row = lake.shown_lists(since=T, until=T + HOUR, chosen_by=["click"]).to_pylist()[1]
    assert row["asked"] == T  # time of the list: that of its first impression
    assert (row["propensity"], row["surface"], row["device"]) == (0.25, "home", None)


def test_an_item_is_chosen_from_the_list_that_the_event_names(lake):
    later = T + HOUR
    publish(
        lake,
        shown("a", 1),
        shown("b", 2),
        shown("a", 1, at=later, request="r2"),
        shown("c", 2, at=later, request="r2"),
        click("a", later + 1, "r2"),
        click("c", later + 1),
    )
    chosen = [(request, item) for request, item, _, is_chosen in found(lake) if is_chosen]
    assert chosen == [("r2", "a"), ("r2", "c")]


def test_an_event_without_a_list_counts_for_a_day_and_within_the_window(lake):
    publish(
        lake, shown("a", 1), shown("b", 2), click("a", T + 23 * HOUR), click("b", T + 25 * HOUR)
    )
    assert [is_chosen for *_, is_chosen in found(lake)] == [True, False]
    assert [is_chosen for *_, is_chosen in found(lake, until=T + 2 * HOUR)] == [False, False]
    assert not any(is_chosen for *_, is_chosen in found(lake, chosen_by=["purchase"]))


def test_a_lake_without_impressions_has_no_lists(lake):
    publish(lake, click("a", T))
    assert found(lake) == []
