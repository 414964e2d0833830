"""Exports in forms that are on no list: right values, or one sentence about what to answer."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.guessing.guess import OpenQuestion
from tests.cli.test_init_forms import look, take
from tests.cli.test_init_refused import noted

DE = {"user_id": "Kundennr", "item_id": "Artikelnr", "event_timestamp": "Belegdatum"}


def test_an_erp_export_with_a_minus_behind_and_a_line_of_totals(tmp_path: Path) -> None:
    lines = ["Belegnr;Kundennr;Artikelnr;Bezeichnung;Menge;Einzelpreis;Belegdatum"]
    lines += [
        f"RE{i};{100 + i % 9};ART-{i % 7};Käsebrett groß;{'1-' if i % 20 == 0 else '2'};"
        f"{i % 5 + 1},50;{1 + i % 28:02d}.03.2024 08:00"
        for i in range(120)
    ]
    lines.append("Summe;;;;812;;")
    log = "\r\n".join([*lines, ""]).encode("cp1252")
    columns = DE | {"value": "Einzelpreis"}
    found = look(tmp_path, log, name="erp.txt", columns=columns, event_type="purchase")
    assert "negative in 6 of 121 rows" in noted(found, "events of type `return`")
    staged, _ = take(tmp_path, found["toml"])
    assert Counter(staged.column("event_type").to_pylist()) == {"purchase": 115, "return": 6}
    assert staged.column("value").to_pylist()[:3] == [1.5, 2.5, 3.5]


def test_a_document_database_s_export_of_plays(tmp_path: Path) -> None:
    plays: list[dict[str, Any]] = [
        {
            "_id": {"$oid": f"{i:024x}"},
            "viewer": {"id": {"$numberLong": str(i % 9)}},
            "video": {"id": f"v{i % 7}"},
            "startedAt": {"$date": f"2024-03-{1 + i % 28:02d}T10:00:00.000Z"},
            "watched": "00:12:33",
        }
        for i in range(40)
    ]
    log = "".join(json.dumps(play) + "\n" for play in plays).encode()
    with pytest.raises(OpenQuestion, match=r"which column is user_id\? .*viewer\.id\.\$numberLong"):
        look(tmp_path, log, name="plays.json")
    columns = {
        "user_id": "viewer.id.$numberLong",
        "item_id": "video.id",
        "event_timestamp": "startedAt.$date",
    }
    found = look(tmp_path, log, name="plays.json", columns=columns, event_type="watch")
    staged, _ = take(tmp_path, found["toml"])
    assert staged.column("user_id").to_pylist()[:3] == ["0", "1", "2"]
    with pytest.raises(OpenQuestion, match=r"value is no number; want one like 4\.5"):
        look(tmp_path, log, name="plays.json", columns=columns | {"value": "watched"})


def test_a_news_app_s_lists_of_shown_articles(tmp_path: Path) -> None:
    lines = [
        f"{i}\tU{i % 9}\t11/{1 + i % 28}/2019 9:05:58 AM\tN{i}\tN{i}-0 N7-1{' N9-0' * (i % 3)}"
        for i in range(40)
    ]
    log = "\n".join([*lines, ""]).encode()
    with pytest.raises(OpenQuestion, match="first line is data"):
        look(tmp_path, log, name="shown.tsv")
    header = {"interactions": ("id", "user_id", "time", "history", "shown")}
    options = {"name": "x", "headers": header, "columns": {"item_id": "shown"}}
    with pytest.raises(OpenQuestion, match=r"cells of 'shown' look like lists of ids, .* 'N0-0"):
        look(tmp_path, log, **options)


@pytest.mark.parametrize("mark", [",", "|", ";", ", "])
def test_baskets_are_no_items(tmp_path: Path, mark: str) -> None:
    rows = [
        f'u{i},"{mark.join(f"a{n}" for n in range(i % 4 + 2))}",{1_700_000_000 + i}'
        for i in range(9)
    ]
    with pytest.raises(OpenQuestion, match="would be read as one item"):
        look(tmp_path, "\n".join(["user,item,time", *rows, ""]).encode())


@pytest.mark.parametrize("item", ["The {i} Lives of {i}", "SKU {i}", "2024 {i:03d}", "a{i}"])
def test_ids_with_blanks_are_items(tmp_path: Path, item: str) -> None:
    rows = [f"u{i},{item.format(i=i)},{1_700_000_000 + i}" for i in range(20)]
    found = look(tmp_path, "\n".join(["user,item,time", *rows, ""]).encode())
    staged, _ = take(tmp_path, found["toml"])
    assert staged.column("item_id").to_pylist()[3] == item.format(i=3)


def test_a_web_shop_s_export_names_the_buyer_once_an_order(tmp_path: Path) -> None:
    """Only the first line of an order has its buyer and its time."""
    lines = ["Name,Email,Created at,Lineitem quantity,Lineitem price,Lineitem sku"]
    for order in range(40):
        first = f"c{order % 9}@shop.example,2024-03-{1 + order % 28:02d} 10:00:00 +0200"
        lines += [f"#{order},{first if n == 0 else ','},1,9.90,SKU{n}" for n in range(3)]
    log = "\n".join([*lines, ""]).encode()
    with pytest.raises(OpenQuestion, match=r"80 of 120 rows \(66\.7%\) .* user_id is missing"):
        look(tmp_path, log, columns={"user_id": "Email"})


def test_a_podcast_app_s_plays_in_ticks(tmp_path: Path) -> None:
    plays = {
        "listener": pa.array([float(i % 9) for i in range(60)]),
        "episode": [f"e{i % 7}" for i in range(60)],
        "played_at": [638_400_000_000_000_000 + i if i % 3 else 0 for i in range(60)],
    }
    weights = pa.map_(pa.string(), pa.float64())
    episodes = {
        "episode": [f"e{i}" for i in range(7)],
        "tags": pa.array([[("News", 0.7), ("Sport", i % 2)] for i in range(7)], weights),
        "description": [["Part one.", "Part two."]] * 7,
    }
    pq.write_table(pa.table(plays), tmp_path / "plays.parquet")
    pq.write_table(pa.table(episodes), tmp_path / "episodes.parquet")
    log = (tmp_path / "plays.parquet").read_bytes()
    items = str(tmp_path / "episodes.parquet")
    found = look(tmp_path, log, name="log.parquet", items=items, event_type="watch")
    assert "20 of 60 rows (33.3%)" in noted(found, "epoch_zero")
    staged, _ = take(tmp_path, found["toml"])
    assert staged.column("user_id").to_pylist()[:3] == ["0", "1", "2"]
    items_table, _ = take(tmp_path, found["toml"], "items")
    assert items_table.column("categories").to_pylist()[:2] == [["News"], ["News", "Sport"]]
    assert items_table.column("description").to_pylist()[0] == "Part one. Part two."
