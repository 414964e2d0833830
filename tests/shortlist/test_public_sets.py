"""Readers of named public data sets, on small files in the original formats."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError
from shortlist.lake import Lake

TakeIn = Callable[[DataConfig, Settings], tuple[dict[str, int], list[dict[str, Any]]]]
RATINGS = [("1", "31", "2.5", "1260759144"), ("1", "10", "3.0", "1260759179")]
FILMS = [
    ("31", "Dangerous Minds (1995)", "Drama"),
    ("10", 'One, "Two" (1996)', "Action|Comedy"),
    ("99", "Nobody knows when", "(no genres listed)"),
]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(f"{path.stem}/{name}", content)
    return path


def csv_archive(folder: Path, name: str) -> Path:
    ratings = ["userId,movieId,rating,timestamp", *(",".join(row) for row in RATINGS)]
    films = ["movieId,title,genres"]
    films += [f'{i},"{title.replace(chr(34), chr(34) * 2)}",{genres}' for i, title, genres in FILMS]
    files = {"ratings.csv": ratings, "movies.csv": films, "tags.csv": ["userId,movieId,tag"]}
    content = {key: ("\r\n".join(lines) + "\r\n").encode() for key, lines in files.items()}
    return archive(folder / f"{name}.zip", content)


def dat_archive(folder: Path) -> Path:
    ratings = "".join("::".join((u, i, r[0], t)) + "\n" for u, i, r, t in RATINGS)
    films = "".join("::".join((i, t.replace('"', ""), g)) + "\n" for i, t, g in FILMS)
    films = films.replace("Dangerous", "Dangéreux")
    return archive(
        folder / "ml-1m.zip",
        {
            "ratings.dat": ratings.encode(),
            "movies.dat": films.encode("latin-1"),
            "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
        },
    )


@pytest.mark.parametrize("name", ["latest-small", "20m", "32m", "1m"])
def test_movielens_archives(tmp_path: Path, take_in: TakeIn, name: str) -> None:
    path = dat_archive(tmp_path) if name == "1m" else csv_archive(tmp_path, f"ml-{name}")
    settings = Settings(home=tmp_path / "home")
    config = DataConfig.model_validate(
        {"source": f"movielens-{name}", "path": path, "like_threshold": 3.0}
    )
    account, bad = take_in(config, settings)
    # A rating of 2.5 is valid on this scale. The third event is the like for the rating of 3.0.
    assert (account["accepted"], bad) == (3, [])
    items = {row["item_id"]: row for row in Lake(settings.lake).items().to_pylist()}
    assert items["31"]["title"] == ("Dangéreux" if name == "1m" else "Dangerous") + " Minds (1995)"
    assert items["10"]["categories"] == ["Action", "Comedy"]
    assert items["10"]["published_at"].year == 1996
    assert (items["99"]["categories"], items["99"]["published_at"]) == ([], None)
    users = Lake(settings.lake).users().to_pylist()
    assert [row["user_id"] for row in users] == (["1", "2"] if name == "1m" else ["1"])
    if name == "1m":
        assert dict(users[1]["attributes"])["occupation"] == "16"
    # The unpacked archive is the same source, so it has no new events.
    folder = tmp_path / "home" / "cache" / f"ml-{name}"
    again, _ = take_in(config.model_copy(update={"path": folder}), settings)
    assert again["accepted"] == 0


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file or folder, want ml-32m.zip"),
        (b"PK\x03\x04 cut", "not a zip archive, or cut short"),
        ({"ratings.csv": b"userId\n"}, "has no movies.csv, want ratings.csv, movies.csv"),
    ],
)
def test_a_broken_archive_is_named(
    tmp_path: Path, take_in: TakeIn, content: Any, complaint: str
) -> None:
    path = tmp_path / "ml-32m.zip"
    if isinstance(content, dict):
        archive(path, content)
    elif content is not None:
        path.write_bytes(content)
    config = DataConfig(source="movielens-32m", path=path)
    with pytest.raises(DatasetError, match=complaint):
        take_in(config, Settings(home=tmp_path / "home"))


REVIEW = {
    **{"rating": 5.0, "title": "Such a lovely scent", "text": "I am\nhappy.", "images": []},
    **{"asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHN"},
    **{"timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": True},
}
PRODUCT = {
    **{"main_category": "All Beauty", "title": "Howard LC0008", "average_rating": 4.8},
    **{"rating_number": 10, "features": [], "description": ["Fresh.", "And clean."]},
    **{"price": None, "images": [{"thumb": "t.jpg", "large": "l.jpg"}], "store": "Howard"},
    **{"categories": ["Beauty", "Hair"], "details": {}, "parent_asin": "B00YQ6X8EO"},
}


def test_amazon_reviews_2023(tmp_path: Path, take_in: TakeIn) -> None:
    reviews = [REVIEW, REVIEW | {"user_id": "B", "rating": 1.0, "timestamp": 1588687729000}]
    products = [
        PRODUCT | {"price": price, "parent_asin": asin}
        for asin, price in (
            ("B00YQ6X8EO", "from 21.99"),
            ("B2", "—"),
            ("B3", 9.5),
            ("B4", None),
        )
    ]
    for name, rows in (("All_Beauty", reviews), ("meta_All_Beauty", products)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    settings = Settings(home=tmp_path / "home")
    config = DataConfig(
        source="amazon-reviews-2023",
        category="All_Beauty",
        path=tmp_path,
        target_events=("review",),
    )
    account, bad = take_in(config, settings)
    assert (account["accepted"], bad) == (2, [])
    first = Lake(settings.lake).interactions().to_pylist()[0]
    assert (first["event_type"], first["value"], first["text"]) == ("review", 5.0, "I am\nhappy.")
    assert first["event_timestamp"].microsecond == 923_000
    items = {row["item_id"]: row for row in Lake(settings.lake).items().to_pylist()}
    assert [items[i]["price"] for i in ("B00YQ6X8EO", "B2", "B3", "B4")] == [21.99, None, 9.5, None]
    item = items["B2"]
    assert (item["description"], item["brand"], item["image"]) == (
        *("Fresh. And clean.", "Howard", "l.jpg"),
    )
    assert item["categories"] == ["Beauty", "Hair"]
    other = config.model_copy(update={"category": "Toys"})
    with pytest.raises(DatasetError, match=r"no Toys\.jsonl\.gz there"):
        take_in(other, settings)


def test_sequences(tmp_path: Path, take_in: TakeIn) -> None:
    path = tmp_path / "Beauty.txt"
    path.write_text("1 10 11 12\n2 11 10\n\n3\n4 10 10\n")
    settings = Settings(home=tmp_path / "home")
    config = DataConfig(source="sequences", path=path, target_events=("view",))
    assert not config.has_time
    account, bad = take_in(config, settings)
    assert (account["read"], account["accepted"]) == (8, 7)
    assert [(row["user_id"], row["expectation"]) for row in bad] == [("3", "item_id.required")]
    events = Lake(settings.lake).interactions().to_pylist()
    order = [row["item_id"] for row in events if row["user_id"] == "1"]
    assert order == ["10", "11", "12"]
    assert [row["item_id"] for row in events if row["user_id"] == "4"] == ["10", "10"]
    assert Lake(settings.lake).items().num_rows == 3
    again, _ = take_in(config, settings)
    assert again["read"] == 0
