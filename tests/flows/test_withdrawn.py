"""Items that are missing in a newer, complete catalogue become unavailable."""

from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from shortlist.datasets.config import DatabaseItems
from shortlist.lake.versions import read_versions
from tests.flows.conftest import GOOD_USERS, House, event, item

CATALOGUE = [item(i) for i in range(5)]
EVENTS = [event(i) for i in range(20)]


@pytest.fixture
def shop(house: House) -> House:
    house.complete = True
    house.validate(EVENTS, CATALOGUE)
    return house


def available(shop: House) -> dict[str, bool]:
    items = shop.lake.items()
    return dict(zip(*(items.column(n).to_pylist() for n in ("item_id", "available")), strict=True))


def gone(shop: House) -> set[str]:
    return {item_id for item_id, here in available(shop).items() if not here}


def test_an_item_leaves_with_a_newer_catalogue_and_comes_back(shop: House) -> None:
    result = shop.validate(EVENTS, CATALOGUE[:3], GOOD_USERS)
    assert (result["withdrawn"], gone(shop), len(available(shop))) == (2, {"i3", "i4"}, 5)
    folder = shop.lake.folder
    assert folder is not None
    versions = [row for row in read_versions(folder).to_pylist() if row["item_id"] == "i3"]
    assert sorted((row["known_at"], row["available"]) for row in versions)[-1][1] is False
    assert len(versions) == 2
    assert pq.read_table(folder / "items.parquet").column("title").null_count == 0

    assert shop.validate(EVENTS, CATALOGUE[:3])["withdrawn"] == 0  # an unchanged file
    changed = [*EVENTS, event(20)]
    assert shop.validate(changed, CATALOGUE[:3])["withdrawn"] == 0
    assert gone(shop) == {"i3", "i4"}
    assert shop.validate(changed, CATALOGUE)["withdrawn"] == 0
    assert gone(shop) == set()


@pytest.mark.parametrize(
    "rows",
    [
        [*CATALOGUE[:3], item(3, price=-1.0), item(4)],  # i3 is quarantined
        [*CATALOGUE[:3], {"item_id": None, "title": "T4", "price": 1.0}],
        [*CATALOGUE[:3], '{"item_id": "i3", "title'],
        [*({**one, "operation": "insert"} for one in CATALOGUE[:3])],
    ],
)
def test_an_item_that_may_still_be_there_does_not_leave(shop: House, rows: list[Any]) -> None:
    assert shop.validate(EVENTS, rows)["withdrawn"] == 0
    assert gone(shop) == set()


def test_a_file_of_changes_takes_nothing_away(shop: House) -> None:
    shop.complete = False
    shop.validate(EVENTS, [item(0, price=2.0)])
    assert gone(shop) == set()


def test_one_new_file_of_several_takes_nothing_away(shop: House) -> None:
    folder = shop.folder / "catalogue"
    folder.mkdir()
    columns = {"item_id": "item_id", "title": "title"}
    for name, ids in (("a", ("i0", "i1")), ("b", ("i2", "i3", "i4"))):
        lines = [f'{{"item_id": "{one}", "title": "{one}"}}\n' for one in ids]
        (folder / f"{name}.jsonl").write_text("".join(lines))

    def validate() -> int:
        files = {
            "interactions": {
                "path": shop.folder / "interactions.jsonl",
                "columns": {key: key for key in EVENTS[0]},
                "timestamp_unit": "us",
            },
            "items": {"path": folder, "columns": columns},
        }
        return shop.validate(EVENTS, files=files)["withdrawn"]

    assert validate() == 0
    (folder / "a.jsonl").write_text('{"item_id": "i0", "title": "new"}\n')
    assert validate() == 0
    assert gone(shop) == set()


def test_complete_is_a_setting_of_files() -> None:
    with pytest.raises(ValidationError, match="complete has no effect on a database"):
        DatabaseItems.model_validate(
            {"table": "items", "columns": {"item_id": "id"}, "complete": True}
        )
