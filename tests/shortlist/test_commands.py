"""The inbox of commands, and the catalogue after them."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from shortlist.contracts import ITEMS, check
from shortlist.http.api import ItemChange
from shortlist.items.commands import Command, CommandError, CommandInbox
from shortlist.items.item_changes import changed_rows, with_changes

T = 1_700_000_000_000_000


def append(folder: Path, name: str) -> list[int]:
    inbox = CommandInbox(folder)
    return [inbox.append([{"item_id": f"{name}{n}"}], received_at=T) for n in range(20)]


def test_two_processes_number_their_commands_together(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(append, [tmp_path, tmp_path], ["a", "b"]))
    inbox = CommandInbox(tmp_path)
    stored = inbox.between(0, inbox.last())
    assert [command.number for command in stored] == list(range(1, 41))
    for name in "ab":
        mine = [c.change["item_id"] for c in stored if c.change["item_id"].startswith(name)]
        assert mine == [f"{name}{n}" for n in range(20)]
    assert [c.number for c in inbox.between(38, 39)] == [39]


def test_an_inbox_without_a_file_has_no_commands_and_makes_none(tmp_path: Path) -> None:
    inbox = CommandInbox(tmp_path / "events")
    assert (inbox.last(), inbox.between(0, 9)) == (0, [])
    assert not inbox.path.parent.exists()


def test_a_post_is_stored_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    inbox = CommandInbox(tmp_path)
    assert inbox.append([{"item_id": "i1"}], received_at=T) == 1
    with pytest.raises(TypeError):
        inbox.append([{"item_id": "i2"}, {"item_id": object()}], received_at=T)
    assert inbox.last() == 1
    assert inbox.append([{"item_id": "i3"}], received_at=T) == 2


def test_numbers_go_on_after_those_that_the_caller_knows(tmp_path: Path) -> None:
    """An inbox restored from an old backup never gives a number that a pack contains already."""
    inbox = CommandInbox(tmp_path)
    assert inbox.append([{"item_id": "i1"}, {"item_id": "i2"}], received_at=T, above=100) == 102
    assert inbox.append([{"item_id": "i3"}], received_at=T, above=50) == 103
    assert [command.number for command in inbox.after(101)] == [102, 103]


def test_a_damaged_inbox_is_named_with_what_to_do(tmp_path: Path) -> None:
    inbox = CommandInbox(tmp_path)
    inbox.path.write_text("no database " * 100)
    for use in (inbox.last, lambda: inbox.append([{"item_id": "i"}], received_at=T)):
        with pytest.raises(CommandError, match=r"commands\.db: .*restore it from a backup"):
            use()


def catalogue() -> pa.Table:
    rows = [
        {"item_id": "i1", "title": "One", "categories": ["a"], "price": 1.0, "available": True}
        | {"attributes": [("colour", "red")], "vector_image": [0.5, 0.5]},
        {"item_id": "i2", "title": "Two", "categories": ["b"], "available": True},
    ]
    schema = pa.schema([*ITEMS, pa.field("vector_image", pa.list_(pa.float32()))])
    return pa.Table.from_pylist(rows, schema=schema)


def commands(*changes: dict) -> list[Command]:
    given = [ItemChange.model_validate(change).given for change in changes]
    return [Command(n, T + n, json.loads(json.dumps(one))) for n, one in enumerate(given, start=1)]


def test_a_change_replaces_what_it_names_and_keeps_the_rest() -> None:
    before = catalogue()
    after = with_changes(
        before,
        commands(
            {"item_id": "i1", "price": 9.0},
            {"item_id": "new", "title": "New", "published_at": -86_400_000_000},
            {"item_id": "i1", "title": None, "attributes": {"size": "L", "brand": "x"}},
            {"item_id": "new", "categories": ["a", "b"]},
        ),
    )
    rows = {row["item_id"]: row for row in check(after, ITEMS, where="test").to_pylist()}
    assert rows["i2"] == catalogue().to_pylist()[1]
    one = rows["i1"]
    assert (one["price"], one["title"], one["categories"]) == (9.0, None, ["a"])
    assert one["attributes"] == [("brand", "x"), ("size", "L")]
    assert one["vector_image"] == [0.5, 0.5]
    new = rows["new"]
    assert (new["title"], new["categories"], new["available"]) == ("New", ["a", "b"], True)
    assert new["published_at"].isoformat() == "1969-12-31T00:00:00+00:00"
    assert new["vector_image"] is None


def test_a_deleted_item_is_unavailable_until_it_comes_back() -> None:
    deleted = commands({"item_id": "i1", "deleted": True})
    (row,) = changed_rows(catalogue(), deleted).to_pylist()
    assert (row["available"], row["title"], row["price"]) == (False, "One", 1.0)
    back = [*deleted, *commands({"item_id": "i1", "available": True})]
    assert [r["available"] for r in changed_rows(catalogue(), back).to_pylist()] == [True]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"item_id": "i1", "price": -1}, "greater than or equal to 0"),
        ({"item_id": "i1", "price": 1e13}, "less than or equal to"),
        ({"item_id": "NaN"}, "placeholder"),
        ({"item_id": "i1", "categories": ["a", "a"]}, "'a' is there twice"),
        ({"item_id": "i1", "categories": None}, "valid list"),
        ({"item_id": "i1", "available": None}, "valid boolean"),
        ({"item_id": "i1", "published_at": 1_700_000_000}, "looks like seconds"),
        ({"item_id": "i1", "deleted": True, "price": 3}, "leave out price, or deleted"),
        ({"item_id": "i1", "colour": "red"}, "Extra inputs"),
        ({"title": "no id"}, "Field required"),
    ],
)
def test_what_is_no_change_is_refused(body: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ItemChange.model_validate(body)


def test_vectors_of_a_change_become_columns() -> None:
    changes = commands(
        {"item_id": "i1", "vectors": {"image": None, "audio": [1, 2.5]}},
        {"item_id": "i3", "vectors": {"image": [3, 4]}},
        {"item_id": "i3", "vectors": {"audio": [5]}},
    )
    rows = {row["item_id"]: row for row in with_changes(catalogue(), changes).to_pylist()}
    assert {name: (row["vector_image"], row["vector_audio"]) for name, row in rows.items()} == {
        "i1": (None, [1, 2.5]),
        "i2": (None, None),
        "i3": ([3, 4], [5]),
    }
    assert "vectors" not in rows["i1"]
    assert changed_rows(catalogue(), changes).schema.field("vector_audio").type == pa.list_(
        pa.float32()
    )


@pytest.mark.parametrize(
    "vectors", [{"image": []}, {"Image": [1]}, {"": [1]}, {"image": [float("nan")]}, {"a": "1"}]
)
def test_a_vector_that_cannot_be_right_is_refused(vectors: dict) -> None:
    with pytest.raises(ValueError, match="vectors"):
        ItemChange.model_validate({"item_id": "i1", "vectors": vectors})
