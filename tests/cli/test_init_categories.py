"""`init` finds the notation of categories, and `ingest` reads the names or refuses them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.guessing.guess import OpenQuestion
from shortlist.datasets import DatasetError
from tests.cli.test_init_forms import HEAD, look, take

ITEMS = "item_id,title,genres\n"


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (
            "[{'id': 16, 'name': 'Animation'}, {'id': 35, 'name': 'Comedy'}]",
            ["Animation", "Comedy"],
        ),
        ('["Tools, Hand", "Home"]', ["Tools, Hand", "Home"]),
        ("['Rock \\'n\\' Roll', \"Children's\"]", ["Rock 'n' Roll", "Children's"]),
        ("[['Books', 'Art, Modern'], ['Gifts']]", ["Books", "Art, Modern", "Gifts"]),
        ('[["Books"], ["Gifts", "Books"]]', ["Books", "Gifts"]),
        ('[{"name": "Drama"}]', ["Drama"]),
        ("{'id': 1, 'name': \"Pixar's\"}", ["Pixar's"]),
        ("[Action, Drama]", ["Action", "Drama"]),
        ("[]", []),
        ("('Drama', 'War, Civil')", ["Drama", "War, Civil"]),
        ("('Drama',)", ["Drama"]),
        ("{Drama,War}", ["Drama", "War"]),
        ('{"Sci-Fi, New",Drama}', ["Sci-Fi, New", "Drama"]),
        ("{'Drama', 'War'}", ["Drama", "War"]),
        ("['Drama', None, 'War']", ["Drama", "War"]),
        ('[None, "Children\'s"]', ["Children's"]),
        ("['Drama', nan]", ["Drama"]),
        ("[None]", []),
        ("[{'k': 7, 'label_en': 'Hats'}]", ["Hats"]),
        ("{}", []),
        ('[["Tools", "Hand"], ["Home"]]', ["Tools", "Hand", "Home"]),
        ("{'id': 16, 'name': 'Animation'}", ["Animation"]),
        ("frozenset({'a', 'b'})", ["a", "b"]),
        ("array(['a', 'b, c'], dtype=object)", ["a", "b, c"]),
        ("['a' 'b']", ["a", "b"]),
        ("[{id=16, name=Tools, Hand}, {id=35, name=Home}]", ["Tools, Hand", "Home"]),
    ],
)
def test_lists_in_a_column_are_categories(tmp_path: Path, cell: str, names: list[str]) -> None:
    quoted = cell.replace('"', '""')
    (tmp_path / "items.csv").write_text(f'{ITEMS}a,A,"{quoted}"\n')
    log = f"{HEAD}u,a,1700000000\n".encode()
    found = look(tmp_path, log, items=str(tmp_path / "items.csv"))
    assert any(", ".join(names) in note for note in found["notes"] if "read as lists" in note)
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist() == [names]
    assert staged.column("faults").to_pylist() == [None]


@pytest.mark.parametrize(
    ("cells", "note", "names"),
    [
        (["Drama|War", "War"], "names in 'genres' are separated by '|': 'Drama', 'War'", ["Drama"]),
        (["Home > Cups", "Home"], "names in 'genres' are separated by '>'", ["Home"]),
        (["Drama, War", "War"], "GUESS: names in 'genres' are separated by ','", ["Drama"]),
        (["Home &amp; Garden|Tools", "Toys"], "by '|': 'Home &amp; Garden'", ["Home &amp; Garden"]),
    ],
)
def test_the_separator_of_names_is_shown(
    tmp_path: Path, cells: list[str], note: str, names: list[str]
) -> None:
    rows = "".join(f'{i},A,"{cell}"\n' for i, cell in enumerate(cells))
    (tmp_path / "items.csv").write_text(ITEMS + rows)
    found = look(tmp_path, f"{HEAD}u,0,1700000000\n".encode(), items=str(tmp_path / "items.csv"))
    assert sum(note in one for one in found["notes"]) == 1
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist()[0][:1] == names


@pytest.mark.parametrize("word", ["nan", "None", "NULL", "\\N", "n/a"])
def test_a_word_for_nothing_is_no_category(tmp_path: Path, word: str) -> None:
    (tmp_path / "items.csv").write_text(f"{ITEMS}a,A,Drama|War\nb,B,{word}\n")
    log = f"{HEAD}u,a,1700000000\n".encode()
    found = look(tmp_path, log, items=str(tmp_path / "items.csv"))
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist() == [["Drama", "War"], []]


@pytest.mark.parametrize(
    "cells", [["[{'code': 9, 'w': 1}]"], ["[{'w': 0.5}, {'w': 0.1}]", "[{'w': 7, 'v': None}]"]]
)
def test_objects_without_names_are_a_question(tmp_path: Path, cells: list[str]) -> None:
    rows = "".join(f'{i},A,"{cell}"\n' for i, cell in enumerate(cells))
    (tmp_path / "items.csv").write_text(ITEMS + rows)
    log = f"{HEAD}u,0,1700000000\n".encode()
    with pytest.raises(OpenQuestion, match=r"no names, only numbers under .*; .*_key"):
        look(tmp_path, log, items=str(tmp_path / "items.csv"))


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("{'Hats': 0.9, 'Sci-Fi': 0.1}", ["Hats", "Sci-Fi"]),
        ("{'Animation': 1, 'Comedy': 1, 'War': 0}", ["Animation", "Comedy"]),
        ('{"Animation": true, "Comedy": null, "War": false}', ["Animation"]),
        ("{Animation=1, Rock & Roll=true, War=0}", ["Animation", "Rock & Roll"]),
    ],
)
def test_the_keys_of_a_map_of_flags_are_names(tmp_path: Path, cell: str, names: list[str]) -> None:
    (tmp_path / "items.csv").write_text(ITEMS + 'a,A,"' + cell.replace('"', '""') + '"\n')
    found = look(tmp_path, f"{HEAD}u,a,1700000000\n".encode(), items=str(tmp_path / "items.csv"))
    assert 'category_key = "*"' in found["toml"]
    assert any(note.startswith("GUESS: 'genres' is read as lists") for note in found["notes"])
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist() == [names]


FLAGS = pa.map_(pa.string(), pa.bool_())
TYPED: dict[str, tuple[Any, pa.DataType | None, list[str]]] = {
    "lists of lists": ([["Tools", "Hand"], ["Home"]], None, ["Tools", "Hand", "Home"]),
    "lists of lists of lists": ([[["a"], ["b, c"]], []], None, ["a", "b, c"]),
    "a struct": ({"id": 16, "name": "Art"}, None, ["Art"]),
    "a struct with a list": ({"name": ["Art", "War"]}, None, ["Art", "War"]),
    "lists of lists of structs": ([[{"title": "x"}], [{"title": "y"}]], None, ["x", "y"]),
    "a struct of flags": ({"Art": 1, "War": 0, "Sci-Fi": 2}, None, ["Art", "Sci-Fi"]),
    "a map of flags": ([("Art", True), ("War", False), ("Pop", None)], FLAGS, ["Art"]),
    "a map of weights": ([("Art", 0.5), ("War", 0.0)], pa.map_(pa.string(), pa.float64()), ["Art"]),
    "a list of maps": (
        [[("Art", 1)], [("Pop", 2)]],
        pa.list_(pa.map_(pa.string(), pa.int64())),
        ["Art", "Pop"],
    ),
    "a map of texts": ([("id", "7"), ("name", "Art")], pa.map_(pa.string(), pa.string()), ["Art"]),
    "a fixed list": (["a", "b"], pa.list_(pa.string(), 2), ["a", "b"]),
}


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("column", ["genres", "x"])
def test_typed_columns_of_categories(tmp_path: Path, name: str, column: str) -> None:
    """The name of the column doesn't matter: `x` is also a parameter in the SQL."""
    value, arrow, names = TYPED[name]
    table = {"item_id": ["a", "b"], column: pa.array([value, None], arrow)}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    log = f"{HEAD}u,a,1700000000\n".encode()
    path = str(tmp_path / "items.parquet")
    found = look(tmp_path, log, items=path, columns={"items.categories": column})
    assert any(", ".join(names) in note for note in found["notes"] if "read as lists" in note)
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist() == [names, []]


UNREADABLE: dict[str, tuple[Any, pa.DataType | None, str]] = {
    "bytes": (b"Art", None, "column 'genres' is blob, want text or a list"),
    "names in several languages": (
        {"name": {"en": "Art", "de": "Kunst"}},
        None,
        "has objects without 'name'",
    ),
    "only numbers": ([{"a": 1, "b": 2}], None, "no names, only numbers under a, b"),
    "texts in a list": (["{'Art': 1", "'War': 0}"], None, "lists in 'genres' cannot be read"),
    "a map of structs": (
        [("k", {"v": "Art"})],
        pa.map_(pa.string(), pa.struct([("v", pa.string())])),
        "want names, or a map of names to weights",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_typed_column_without_names_is_a_question(tmp_path: Path, name: str) -> None:
    value, arrow, said = UNREADABLE[name]
    table = {"item_id": ["a"], "genres": pa.array([value], arrow)}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    with pytest.raises(OpenQuestion, match=said) as asked:
        look(
            tmp_path,
            f"{HEAD}u,a,1700000000\n".encode(),
            items=str(tmp_path / "items.parquet"),
        )
    assert "# OPEN: " in asked.value.toml


@pytest.mark.parametrize("cell", ["[{'id': 16, 'na", "['open", "[{'id': 3}]"])
def test_a_list_that_cannot_be_read_is_a_fault(tmp_path: Path, cell: str) -> None:
    good = "[{'id': 1, 'name': 'Art'}]"
    rows = "".join(f'{item},A,"{good}"\n' for item in "acd")  # `init` asks if most are bad
    (tmp_path / "items.csv").write_text(f'{ITEMS}{rows}b,B,"{cell}"\n')
    log = f"{HEAD}u,a,1700000000\n".encode()
    found = look(tmp_path, log, items=str(tmp_path / "items.csv"))
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("faults").to_pylist() == [None] * 3 + [["categories.readable"]]


@pytest.mark.parametrize(("key", "said"), [("name", "by their 'name'"), ("id", "by their 'id'")])
def test_lists_of_structs_are_categories(tmp_path: Path, key: str, said: str) -> None:
    table = {"item_id": ["a"], "genres": [[{key: "x"}, {key: "y"}]]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    log = f"{HEAD}u,a,1700000000\n".encode()
    found = look(tmp_path, log, items=str(tmp_path / "items.parquet"))
    assert any(said in note for note in found["notes"])
    staged, _ = take(tmp_path, found["toml"], "items")
    assert staged.column("categories").to_pylist() == [["x", "y"]]


def test_lists_most_of_which_cannot_be_read_are_a_question(tmp_path: Path) -> None:
    """If most lists in a column can't be read, `init` fails instead of guessing."""
    (tmp_path / "items.csv").write_text(f'{ITEMS}a,A,"[\'open"\nb,B,"[\'also"\nc,C,"[Art]"\n')
    log = f"{HEAD}u,a,1700000000\n".encode()
    with pytest.raises(DatasetError, match="2 of 3 lists in 'genres' cannot be read"):
        look(tmp_path, log, items=str(tmp_path / "items.csv"))
