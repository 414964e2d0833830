"""Category lists in the notations of JSON, Python, numpy, Java and PostgreSQL."""

import duckdb
import pytest

from shortlist.datasets.config import ItemFile
from shortlist.datasets.files.lists import categories_sql
from shortlist.datasets.files.readers import Raw


def read(
    cell: str | None, *, key: str = "name", separator: str = "|", column: str = "cell"
) -> list[str] | None:
    """Return the names in a cell; None if it can't be read."""
    columns = {"item_id": "-"}
    table = ItemFile(path="-", columns=columns, category_key=key, category_separator=separator)
    raw = Raw("", {column: column}, {column: "VARCHAR"}, "")
    names, bad = categories_sql(raw, column, table, "items.csv")
    with duckdb.connect() as connection:
        query = f"SELECT {names}, {bad} FROM (SELECT $1::VARCHAR AS {column})"
        ((found, unreadable),) = connection.execute(query, [cell]).fetchall()
    assert not (unreadable and found)
    return None if unreadable else found


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['Tools', ['Hand, small', ['Saws']]]", ["Tools", "Hand, small", "Saws"]),
        ('["a", ["b", ["c, d"]], null]', ["a", "b", "c, d"]),
        ('["caf\\u00e9 \\"x\\""]', ['café "x"']),
        ('["80s", 1984]', ["80s", "1984"]),
        ('[{"name": "A"}, "B"]', ["A", "B"]),
        ('[[{"name": "A"}], [{"name": "B", "id": 2}]]', ["A", "B"]),
        ('[{"name": ["A", "B"]}]', ["A", "B"]),
        ("frozenset({'a', 'b'})", ["a", "b"]),
        ("frozenset()", []),
        ("set()", []),
        ("{'a', 'b'}", ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("['a, x'\n 'b']", ["a, x", "b"]),
        ("[['a' 'b'] ['c']]", ["a", "b", "c"]),
        ("[1 2 3]", ["1", "2", "3"]),
        ("[16, 35]", ["16", "35"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("np.array(['a'], dtype='<U6')", ["a"]),
        ("array([], dtype=object)", []),
        ("Index(['a', 'b'], dtype='object')", ["a", "b"]),
        ("dict_keys(['a'])", ["a"]),
        ("(Drama, War)", ["Drama", "War"]),
        ("(Used)", ["(Used)"]),
        ("[DVD] Drama|War", ["[DVD] Drama", "War"]),
        ("Sci-Fi [4K]|Rock (Live)", ["Sci-Fi [4K]", "Rock (Live)"]),
        ('"Drama|War"', ["Drama", "War"]),
        ("{id=1, name=Ham, Eggs, z=2}", ["Ham, Eggs"]),
        ("a|b|a", ["a", "b"]),
        (None, []),
        ("", []),
        ("[nan]", []),
    ],
)
def test_names_are_read(cell: str | None, names: list[str]) -> None:
    assert read(cell) == names
    assert read(cell, column="x") == names


@pytest.mark.parametrize(
    "cell",
    [
        "{'Animation': 1, 'Comedy': 1}",
        '{"Animation": 1}',
        "{Animation=1}",
        "{1: 'Animation'}",
        "{'id': 16, 'na",
        "[Drama, Wa",
        "{Drama, Wa",
        "['Children's', 'War']",
        "[Rock 'n' Roll]",
        "[('Drama', 0.5), ('War', 0.1)]",
        '[["Drama", 0.5], ["War", 1]]',
        "OrderedDict([('a', 1)])",
        "[array(['a'], dtype=object)]",
        '[{"name": {"en": "A"}}]',
        'a:1:{i:0;s:5:"Drama";}',
        '"Drama"=>"1", "War"=>"0"',
    ],
)
def test_what_cannot_be_read_has_no_names(cell: str) -> None:
    assert read(cell) is None


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        (
            "{'Animation': 1, 'Comedy': 0, \"Children's\": True, 'x': None}",
            ["Animation", "Children's"],
        ),
        ('{"A": 1, "B": 0, "C": true, "D": null, "E": "0", "F": false, "G": 0.0}', ["A", "C"]),
        ("{Drama=1, War=0, Rock & Roll=true}", ["Drama", "Rock & Roll"]),
        ("{'War': 0}", []),
        ("{}", []),
        ("Drama|War", ["Drama", "War"]),
    ],
)
def test_the_keys_of_maps_are_names(cell: str, names: list[str]) -> None:
    assert read(cell, key="*") == names


def test_a_path_keeps_repeated_names() -> None:
    assert read("Home > Cups > Home", separator=">") == ["Home", "Cups", "Home"]
