"""`shortlist init` writes a run's TOML for unknown files, or one sentence about what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.guessing.guess import guess, write_toml
from cli.main import app
from flows.runtime.configuration import load_run_config
from shortlist.datasets import DatasetError

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(
    f"{i},{i % 3 + 1},{i % 10 / 2 + 0.5},{1_260_759_144 + i}\n" for i in range(30)
)
MOVIES = 'movieId,title,genres\n1,Toy Story (1995),A|B\n2,"Heat, The (1996)",B\n3,Up,A\n'
SHOP = "".join(
    json.dumps(
        {
            **{"visitorid": f"v{i}", "event": kind, "product": {"sku": f"s{i % 4}"}},
            **{"ts": 1_700_000_000_000 + i, "price": i / 2},
        }
    )
    + "\n"
    for i, kind in enumerate(["view", "addtocart", "transaction"] * 5)
)


def write(folder: Path, **files: str) -> dict[str, str]:
    paths = {}
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_text(content)
        paths[name] = str(path)
    return paths


def look(interactions: str, **more: Any) -> dict[str, Any]:
    options = {"items": None, "users": None, "columns": {}, "event_type": None, "name": None}
    return guess(interactions, **(options | more))


def test_ratings_and_movies(tmp_path: Path) -> None:
    files = write(tmp_path, ratings_csv=RATINGS, movies_csv=MOVIES)
    out = tmp_path / "my.toml"
    told = CliRunner().invoke(
        app, ["init", files["ratings_csv"], "--items", files["movies_csv"], "--out", str(out), "-y"]
    )
    assert told.exit_code == 0, told.stdout
    assert "target: rating; clock: replay; ratings from 0.5 to 5, liked from 4" in told.stdout
    assert f"shortlist run {out}" in told.stdout.replace("\n", "")
    config = load_run_config(out)
    assert config.data.files is not None
    (events,) = config.data.files.interactions
    assert events.columns == {
        **{"user_id": "userId", "item_id": "movieId", "value": "rating"},
        "event_timestamp": "timestamp",
    }
    assert (events.event_type, events.timestamp_unit) == ("rating", "s")
    items = config.data.files.items
    assert items is not None
    assert items.columns["published_at"] == items.columns["title"] == "title"
    assert (config.data.like_threshold, config.validation.rating_range) == (4.0, (0.5, 5.0))
    again = CliRunner().invoke(app, ["init", files["ratings_csv"], "--out", str(out), "-y"])
    assert isinstance(again.exception, DatasetError)
    assert "is there already" in str(again.exception)


def test_a_shop_s_events_in_json_lines(tmp_path: Path) -> None:
    files = write(tmp_path, shop_jsonl=SHOP)
    found = look(files["shop_jsonl"], columns={"item_id": "product.sku"}, name="shop")
    columns = found["summary"]["columns"]["interactions"]
    assert columns["item_id"] == "product.sku"
    assert (columns["user_id"], columns["event_timestamp"]) == ("visitorid", "ts")
    assert 'timestamp_unit = "ms"' in found["toml"]
    assert 'addtocart = "add_to_cart", transaction = "purchase"' in found["toml"]
    out = tmp_path / "shop.toml"
    done = CliRunner().invoke(
        app,
        [
            "init",
            files["shop_jsonl"],
            "--out",
            str(out),
            "--column",
            "item_id=product.sku",
            "--json",
        ],
    )
    assert json.loads(done.stdout)["next"] == f"shortlist run {out}"
    load_run_config(out)


def test_an_object_is_no_id_but_its_keys_may_be(tmp_path: Path) -> None:
    line = {"visitor": {"id": "v"}, "product": {"sku": "s"}, "action": "view", "ts": 1_700_000_000}
    files = write(tmp_path, log_jsonl=json.dumps(line) + "\n")
    columns = look(files["log_jsonl"])["summary"]["columns"]["interactions"]
    assert (columns["user_id"], columns["item_id"]) == ("visitor.id", "product.sku")


def test_log_and_catalogue_may_call_the_item_differently(tmp_path: Path) -> None:
    log = "Kunde,Artikel,Zeit,op\n" + "".join(
        f"k{i},{i % 3},{1_700_000_000 + i},\n" for i in range(9)
    )
    files = write(tmp_path, log_csv=log, cat_csv="nr,name,EUR\n1,Hut,3\n2,Tasse,4\n")
    chosen = {"user_id": "Kunde", "item_id": "Artikel", "event_timestamp": "Zeit"}
    with pytest.raises(DatasetError, match=r"say --column items\.item_id=NAME"):
        look(files["log_csv"], items=files["cat_csv"], columns=chosen)
    chosen |= {"items.item_id": "nr", "price": "EUR", "interactions.operation": "op"}
    found = look(files["log_csv"], items=files["cat_csv"], columns=chosen)["summary"]["columns"]
    assert found["items"] == {"item_id": "nr", "title": "name", "price": "EUR"}
    assert (found["interactions"]["item_id"], found["interactions"]["operation"]) == (
        "Artikel",
        "op",
    )


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (["2024-05-31 10:00:00", "2024-06-01T11:00:00Z"], "iso"),
        (["31.05.2024 10:00", "01.06.2024 11:00"], "%d.%m.%Y %H:%M"),
        (["1700000000000000", "1700000000000001"], "us"),
    ],
)
def test_units_of_time_are_seen(tmp_path: Path, times: list[str], unit: str) -> None:
    rows = "".join(f"u{i},a,{time}\n" for i, time in enumerate(times))
    files = write(tmp_path, e_csv="user_id,item_id,time\n" + rows)
    assert f'timestamp_unit = "{unit}"' in look(files["e_csv"])["toml"]


@pytest.mark.parametrize(
    ("content", "more", "complaint"),
    [
        ("a,b,c\n1,2,3\n", {}, "which column is user_id.* say --column user_id=NAME"),
        ("user,item,time\n1,2,noon\n", {}, "column 'time' is no time that is understood.*'noon'"),
        ("user,item,time\n", {}, "has no rows below its header"),
        ("user^item^time\n1^2^1700000000\n", {}, r"^[^;]*has one column, 'user\^.*`separator`"),
        ("user  item  time\nu1    i1    1700000000\n", {}, "has one column, 'user  item  time'"),
        (
            "user,item,time,event\n1,2,1700000000,stare\n",
            {},
            "stare, none of which is an event type",
        ),
        (
            "user,item,time\n1,2,1700000000\n",
            {"event_type": "stare"},
            "--event-type stare: want one of",
        ),
        (
            "user,item,time\n1,2,1700000000\n",
            {"columns": {"value": "x"}},
            "no column 'x'; there are user",
        ),
        (
            "user,item,time\n1,2,1700000000\n",
            {"columns": {"valu": "x"}},
            "--column valu=x: want one of",
        ),
        (
            "user,item,time\n1,2,1700000000\n",
            {"columns": {"items.title": "x"}},
            "want one of interactions",
        ),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(
    tmp_path: Path, content: str, more: dict[str, Any], complaint: str
) -> None:
    files = write(tmp_path, e_csv=content)
    with pytest.raises(DatasetError, match=complaint):
        look(files["e_csv"], **more)


@pytest.mark.parametrize(
    ("words", "wording"),
    [
        (("listen", "click"), {"watch": "listened to"}),
        (("read", "view"), {"watch": "read"}),
        (("play", "listen"), {}),  # two words for one event type, so neither is used
        (("order", "view"), {"purchase": "ordered"}),
        (("purchase", "view"), {}),
    ],
)
def test_reasons_repeat_the_words_of_the_log(
    tmp_path: Path, words: tuple[str, str], wording: dict[str, str]
) -> None:
    """`init` maps the log's word for an event type to a verb for reasons, such as "listened to"."""
    rows = "".join(f"u{i},i{i % 9},{words[i % 2]},{1_700_000_000 + i}\n" for i in range(40))
    files = write(tmp_path, e_csv="user_id,item_id,event,time\n" + rows)
    out = tmp_path / "run.toml"
    write_toml(look(files["e_csv"])["toml"], out)
    assert load_run_config(out).data.wording == wording


def test_a_database_is_no_file(tmp_path: Path) -> None:
    """A database URL gives an error that says so."""
    told = CliRunner().invoke(app, ["init", f"sqlite:///{tmp_path}/shop.db"])
    assert told.exit_code == 2
    assert "is a database" in told.output


def test_users_get_their_attributes(tmp_path: Path) -> None:
    people = "userId,age,name\n" + "".join(f"{i},{i % 3},name {i}\n" for i in range(60))
    files = write(tmp_path, ratings_csv=RATINGS, people_csv=people)
    assert 'attributes = ["age"]' in look(files["ratings_csv"], users=files["people_csv"])["toml"]


@pytest.mark.parametrize(
    ("log", "marks"),
    [
        ("a,b,c\nx,y,z\n", ['user_id = "?"', 'item_id = "?"', 'event_timestamp = "?"']),
        ("user,item,time\nu,i,noon\n", ['timestamp_unit = "?"', 'event_timestamp = "time"']),
        ("user,item,time,event\nu,i,1700000000,stare\n", ["stare, none of which", "# OPEN: "]),
    ],
)
def test_an_open_question_is_written_down(tmp_path: Path, log: str, marks: list[str]) -> None:
    files, out = write(tmp_path, log_csv=log), tmp_path / "my.toml"
    told = CliRunner().invoke(app, ["init", files["log_csv"], "--out", str(out), "-y"])
    assert told.exit_code == 1
    assert "with the question marked" in " ".join(told.output.split())
    assert all(mark in out.read_text() for mark in marks)


@pytest.mark.parametrize("nobody", ["NA", "null", "(not set)", "-1"])
@pytest.mark.parametrize("session", [True, False])
def test_users_that_are_nobody_are_shown(tmp_path: Path, nobody: str, session: bool) -> None:
    """A frequent placeholder in user_id, such as "NA", is mapped to "no user" and reported."""
    rows = [f"{f'u{i}' if i % 5 else nobody},i{i % 5},{1_700_000_000 + i}" for i in range(60)]
    head = "user,item,time" + (",session" if session else "")
    rows = [row + (f",s{i // 4}" if session else "") for i, row in enumerate(rows)]
    found = look(write(tmp_path, log_csv="\n".join([head, *rows]) + "\n")["log_csv"])
    assert f'no_user = ["{nobody}"]' in found["toml"]
    (note,) = [note for note in found["notes"] if f"'{nobody}'" in note]
    assert f"12 of 60 rows have user_id '{nobody}': no user" in note
    assert ("is then treated as a user" if session else "such rows have no user") in note
    assert ("failure_budget = 0.22" in found["toml"]) != session


def test_a_giant_user_is_shown_and_kept(tmp_path: Path) -> None:
    """A user with half of the events is reported as a question, but not removed."""
    rows = [f"{'shop' if i % 2 else f'u{i}'},i{i % 5},{1_700_000_000 + i}" for i in range(60)]
    path = write(tmp_path, log_csv="\n".join(["user,item,time", *rows]) + "\n")["log_csv"]
    found = look(path)
    assert "no_user" not in found["toml"]
    assert any("'shop': is that right?" in note for note in found["notes"])


def test_small_numbers_may_be_ratings(tmp_path: Path) -> None:
    """`init` suggests options for a column of small numbers that may be ratings."""
    rows = [f"u{i},i{i % 5},{1_700_000_000 + i},{i % 5 + 1}" for i in range(60)]
    path = write(tmp_path, log_csv="\n".join(["user,item,time,Note", *rows]) + "\n")["log_csv"]
    assert any("--column value=Note --event-type rating" in one for one in look(path)["notes"])
    found = look(path, columns={"value": "Note"}, event_type="rating")
    assert "ratings from 1 to 5, liked from 4" in found["said"]
