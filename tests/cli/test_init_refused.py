"""`init` counts rows that validation would refuse, and guesses a column by most of its values."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from cli.guessing import refused
from cli.guessing.guess import OpenQuestion, guess, write_toml
from flows.runtime.configuration import RunConfig, load_run_config
from shortlist.config import Settings
from shortlist.datasets import stage_source
from shortlist.datasets.guess.sample import Sample
from shortlist.validation.dry_run import would_refuse

NOW = 1_800_000_000_000_000


def look(folder: Path, head: str, rows: list[str], **more: Any) -> dict[str, Any]:
    path = folder / "log.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    options = {"items": None, "users": None, "columns": {}, "event_type": None, "name": None}
    return guess(str(path), **(options | more))


def loaded(folder: Path, found: dict[str, Any]) -> RunConfig:
    write_toml(found["toml"], folder / "run.toml")
    return load_run_config(folder / "run.toml")


def rows(count: int, user: str = "u{i}", rest: str = "") -> list[str]:
    """Return `count` CSV rows of user, item and time, with `rest` appended to each."""
    return [
        f"{user.format(i=i % 30)},i{i % 7},{1_700_000_000 + 60 * i}{rest.format(i=i)}"
        for i in range(count)
    ]


def noted(found: dict[str, Any], text: str) -> str:
    (note,) = [note for note in found["notes"] if text in note]
    return note


def test_rows_without_a_user_get_a_larger_budget_if_they_are_many(tmp_path: Path) -> None:
    found = look(tmp_path, "user,item,time", [*rows(80), *rows(20, user="")])
    assert "20 of 100 rows (20.0%) of interactions go" in noted(found, "user_id.required")
    config = loaded(tmp_path, found)
    assert config.validation.failure_budget == 0.22
    few = look(tmp_path, "user,item,time", [*rows(199), *rows(1, user="")])
    assert "failure_budget" not in few["toml"]
    assert "1 of 200 rows (0.5%) of interactions go to quarantine" in noted(few, "quarantine")


def test_rows_without_a_user_but_with_a_session_stand_alone(tmp_path: Path) -> None:
    log = [*rows(80, rest=",s{i}"), *rows(20, user="", rest=",t{i}")]
    config = loaded(tmp_path, look(tmp_path, "user,item,time,session", log))
    assert config.data.files is not None
    assert config.data.files.interactions[0].no_user == ("",)
    assert config.data.exclude == ()


def test_words_that_are_no_event_type_get_a_larger_budget(tmp_path: Path) -> None:
    log = [*rows(80, rest=",view"), *rows(20, rest=",heartbeat")]
    found = look(tmp_path, "user,item,time,event", log)
    config = loaded(tmp_path, found)
    assert config.validation.failure_budget == 0.22
    assert config.data.exclude == ()


REPEATED = [*rows(120), *["user,item,time"] * 3]
BAD: dict[str, list[str]] = {
    "repeated headers": REPEATED,
    "no times": [*rows(95), *["u1,i1,#N/A"] * 5],
    "times of 0": [*rows(95), *["u1,i1,0"] * 5],
    "no items": [*rows(95), *["u1,,1700000000"] * 5],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_of_every_kind_go_to_quarantine(tmp_path: Path, name: str) -> None:
    found = look(tmp_path, "user,item,time", BAD[name])
    assert loaded(tmp_path, found).data.exclude == ()
    assert any(note.startswith("GUESS: ") and "failure_budget" in note for note in found["notes"])


MANY: dict[str, tuple[str, list[str], str]] = {
    "users": ("user,item,time", [*rows(5), *rows(95, user="")], r"95 of 100 rows .*user_id"),
    "another column of users": (
        "customer_id,visitor_id,item,time",
        [f"{'' if i % 3 else 'c'},v{i % 9},i{i % 7},{1_700_000_000 + i}" for i in range(90)],
        r"'visitor_id' has fewer empty cells: --column user_id=visitor_id",
    ),
    "event types": (
        "user,item,time,event",
        [*rows(90, rest=",heartbeat"), *rows(10, rest=",view")],
        r"90 of 100 rows .*`event_types` may map its words heartbeat",
    ),
    "milliseconds": (
        "user,item,time",
        [f"u{i % 9},i{i % 7},{1_700_000_000 * (1000 if i % 5 < 2 else 1)}" for i in range(100)],
        r"40 of 100 rows .*set failure_budget to 0\.44 under \[validation\]",
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_many_bad_rows_are_a_question(tmp_path: Path, name: str) -> None:
    head, log, said = MANY[name]
    with pytest.raises(OpenQuestion, match=said) as asked:
        look(tmp_path, head, log)
    assert "# OPEN: " in asked.value.toml


@pytest.mark.parametrize("word", ["NULL ", " guest", "  NA"])
def test_words_for_nobody_are_trimmed_as_ingest_does(tmp_path: Path, word: str) -> None:
    log = [
        f"{word if i % 3 else f'u{i % 12}'},i{i % 9},{1_700_000_000 + i},s{i}" for i in range(80)
    ]
    config = loaded(tmp_path, look(tmp_path, "user,item,time,session", log))
    assert config.data.files is not None
    assert config.data.files.interactions[0].no_user == (word.strip(),)


def test_only_an_event_type_can_be_the_target(tmp_path: Path) -> None:
    log = [*rows(45, rest=",page_view"), *rows(20, rest=",heartbeat"), *rows(5, rest=",purchase")]
    config = loaded(tmp_path, look(tmp_path, "user,item,time,event", log))
    assert config.data.target_events in (("purchase",), ("view",))


def test_numbers_for_event_types_are_a_question_with_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(
        OpenQuestion, match=r'0, 2, none of which .*event_types = \{ "0" = "view" \}'
    ):
        look(tmp_path, "user,item,time,action_type", [*rows(50, rest=",0"), *rows(9, rest=",2")])


def test_a_larger_budget_where_no_condition_helps(tmp_path: Path) -> None:
    """If bad rows can't be excluded by a condition, `init` writes a larger failure budget."""
    log = [*rows(90), *(f"u1,i1,{4_070_908_800 + i}" for i in range(10))]
    found = look(tmp_path, "user,item,time", log)
    assert "event_timestamp.range" in noted(found, "10 of 100 rows (10.0%) of interactions go")
    assert loaded(tmp_path, found).validation.failure_budget == 0.11


def test_a_mapping_by_which_most_rows_are_bad_is_a_question(tmp_path: Path) -> None:
    with pytest.raises(OpenQuestion, match=r"100 of 100 rows .*value\.number.*mapping right"):
        look(tmp_path, "user,item,time,rating", rows(100, rest=",good{i}"))


@pytest.mark.parametrize("odd", ["999", "-5"])
def test_one_odd_rating_does_not_widen_the_scale(tmp_path: Path, odd: str) -> None:
    log = [f"u{i},i{i},{1_700_000_000 + i},{i % 5 + 1}" for i in range(400)]
    found = look(tmp_path, "user,item,time,rating", [*log, f"u1,i200,1700000000,{odd}"])
    assert "ratings from 1 to 5, liked from 4" in found["said"]
    assert noted(found, "beyond the scale").startswith("GUESS: 1 ratings in 'rating'")
    assert "value.rating_range" in noted(found, "quarantine")


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ("5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 4 3 2 1", "1 to 5"),
        ("0.5 1 1.5 2 2.5 3 3.5 4 4.5 5 5 5 5 4 4", "0.5 to 5"),
        ("10 9 8 7 8 9 10 8 8 9 9 1 3", "1 to 10"),
        ("100 100 90 80 100 100 50 70 100", "50 to 100"),
    ],
)
def test_rare_ratings_belong_to_the_scale(tmp_path: Path, ratings: str, scale: str) -> None:
    log = [f"u{i},i{i},{1_700_000_000 + i},{one}" for i, one in enumerate(ratings.split())]
    assert f"ratings from {scale}" in look(tmp_path, "user,item,time,rating", log)["said"]


def test_decimal_commas_are_read_and_said(tmp_path: Path) -> None:
    log = [f"u{i};i{i};{45_000 + i},25;{i % 5 + 1},5" for i in range(60)]
    found = look(tmp_path, "user;item;time;rating", log)
    assert noted(found, "decimal comma").startswith("GUESS: numbers in 'rating'")
    assert "ratings from 1.5 to 5.5" in found["said"]
    config = loaded(tmp_path, found)
    assert config.data.files is not None
    assert config.data.files.interactions[0].decimal == ","
    settings = Settings(home=tmp_path / "home")
    batch = stage_source(config.data, settings, now=NOW)

    folder = settings.lake / "incoming" / batch.batch_id / "interactions"
    staged = pq.read_table(folder).slice(0, 120)
    assert set(staged.column("faults").to_pylist()) == {None}
    assert sorted(set(staged.column("value").to_pylist())) == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert str(staged.column("event_timestamp")[0].as_py()) == "2023-03-15 06:00:00+00:00"


@pytest.mark.parametrize(
    ("cell", "number"),
    [("12,50", 12.5), ("1.234,50 €", 1234.5), ("1.234", 1234.0), ("€ 7", 7.0), ("4.5", 4.5)],
)
def test_prices_with_a_decimal_comma(tmp_path: Path, cell: str, number: float) -> None:
    goods = ["item;name;price", *(f"i{i};N{i};{i},99" for i in range(9)), f"i9;N;{cell}"]
    (tmp_path / "items.csv").write_text("\n".join(goods) + "\n")
    found = look(tmp_path, "user,item,time", rows(60), items=str(tmp_path / "items.csv"))
    settings = Settings(home=tmp_path / "home")
    batch = stage_source(loaded(tmp_path, found).data, settings, now=NOW)

    staged = pq.read_table(settings.lake / "incoming" / batch.batch_id / "items")
    assert staged.column("price").to_pylist()[0] == 0.99
    assert staged.column("price").to_pylist()[-1] == number


def test_repeats_are_those_of_users(tmp_path: Path) -> None:
    """Rows without a user don't count in the guess whether users return to the same item."""
    mine = [f"u{i},i{i},{1_700_000_000 + i},s{i}" for i in range(60)]
    nobody = [f"NA,i{i % 3},{1_700_000_000 + i},t{i}" for i in range(60)]
    found = look(tmp_path, "user,item,time,session", [*mine, *nobody])
    assert "repeats allowed" not in found["said"]


def test_rare_words_for_nobody_are_seen(tmp_path: Path) -> None:
    log = [f"u{i % 300},i{i % 7},{1_700_000_000 + i}" for i in range(2970)]
    log += [f"guest,i1,{1_700_000_000 + i}" for i in range(30)]
    found = look(tmp_path, "user,item,time", log)
    assert "30 of 3,000 rows have user_id 'guest': no user" in noted(found, "'guest'")


@pytest.mark.parametrize("word", ["Not Logged In", "00000000-0000-0000-0000-000000000000", "N.A."])
def test_more_words_for_nobody(tmp_path: Path, word: str) -> None:
    log = [f"{word if i % 3 else f'u{i % 12}'},i{i % 9},{1_700_000_000 + i},s" for i in range(80)]
    config = loaded(tmp_path, look(tmp_path, "user,item,time,session", log))
    assert config.data.files is not None
    assert config.data.files.interactions[0].no_user == (word,)


@pytest.mark.parametrize(("share", "shown"), [(3, True), (2, True), (1, False)])
def test_a_giant_is_compared_with_the_others(tmp_path: Path, share: int, shown: bool) -> None:
    """With four others, a user with 4 times their average has half of all rows."""
    size = 40 * share
    log = [f"kasse,i{i % 9},{1_700_000_000 + i}" for i in range(size)]
    log += [f"u{i % 4},i{i % 9},{1_700_000_000 + i}" for i in range(50)]
    notes = look(tmp_path, "user,item,time", log)["notes"]
    assert any("'kasse': is that right?" in note for note in notes) == shown


def test_a_giant_item_can_be_excluded(tmp_path: Path) -> None:
    log = [f"u{i % 9},{'NA' if i % 2 else f'i{i % 20}'},{1_700_000_000 + i}" for i in range(80)]
    note = noted(look(tmp_path, "user,item,time", log), "'NA'")
    assert note.endswith("""set exclude = ["item_id = 'NA'"]""")


def test_a_column_that_numbers_the_rows_is_no_item(tmp_path: Path) -> None:
    log = [f"{i},u{i % 4},{1_700_000_000 + i}" for i in range(60)]
    with pytest.raises(OpenQuestion, match="which column is item_id"):
        look(tmp_path, "id,user,time", log)
    assert look(tmp_path, "id,user,time", log, columns={"item_id": "id"})
    again = [f"{i % 20},u{i % 4},{1_700_000_000 + i}" for i in range(60)]
    assert 'item_id = "id"' in look(tmp_path, "id,user,time", again)["toml"]


@pytest.mark.parametrize(
    ("name", "cells", "said"),
    [
        ("liked", ("0", "1"), '"1" = "like", "0" = "dislike"'),
        ("is_recommended", ("False", "True"), '"True" = "like", "False" = "dislike"'),
        ("vote", ("-1", "1"), '"1" = "like", "-1" = "dislike"'),
        ("colour", ("0", "1"), ""),
    ],
)
def test_a_column_of_yes_and_no_is_named(
    tmp_path: Path, name: str, cells: tuple[str, str], said: str
) -> None:
    notes = look(
        tmp_path,
        f"user,item,time,{name}",
        [*rows(60, rest="," + cells[0]), f"u1,i8,1700000000,{cells[1]}"],
    )["notes"]
    assert any(said in note and f"'{name}' has only" in note for note in notes) == bool(said)


@pytest.mark.parametrize(
    ("far", "high", "unrated"), [(99, 10, 99), (999, 100, 999), (-99, 5, -99), (99, 98, None)]
)
def test_a_number_far_from_all_ratings_means_not_rated(
    tmp_path: Path, far: int, high: int, unrated: int | None
) -> None:
    log = [f"u{i % 9},i{i},{1_700_000_000 + i},{i % high + 1}" for i in range(200)]
    log += [f"u{i % 9},i{i},{1_700_001_000 + i},{far}" for i in range(40)]
    found = look(tmp_path, "user,item,time,rating", log)
    assert (f"unrated = {unrated}" in found["toml"]) == (unrated is not None)
    assert f"ratings from 1 to {high if unrated else 99}" in found["said"]


@pytest.mark.parametrize("none", [0, None])
def test_minus_one_beside_one_is_a_thumb_down(tmp_path: Path, none: int | None) -> None:
    words = [1, -1] if none is None else [1, -1, none]
    log = [
        f"u{i % 9},i{i},{1_700_000_000 + i},{words[i % len(words)]}" for i in range(30 * len(words))
    ]
    found = look(tmp_path, "user,item,time,rating", log)
    assert "-1 (30 rows) a thumb down" in noted(found, "thumb")
    assert not any("quarantine" in note for note in found["notes"])
    config = loaded(tmp_path, found)
    assert config.validation.rating_range == (-1, 1)
    assert config.data.like_threshold == 1
    assert not any(line.startswith("unrated") for line in found["toml"].splitlines())


@pytest.mark.parametrize(
    ("mark", "words", "range_to_set"),
    [(-1, [1, 2, 3, 4, 5], "[-1, 5]"), (0, [5, 6, 7, 8, 9, 10], "[0, 10]")],
)
def test_the_advice_for_ratings_that_are_none_passes_validation(
    tmp_path: Path, mark: int, words: list[int], range_to_set: str
) -> None:
    log = [f"u{i % 9},i{i},{1_700_000_000 + i},{words[i % len(words)]}" for i in range(90)]
    log += [f"u{i % 9},i{i},{1_700_001_000 + i},{mark}" for i in range(60)]
    found = look(tmp_path, "user,item,time,rating", log)
    advice = f"take out `unrated` and set `rating_range` = {range_to_set}"
    assert advice in noted(found, "means not rated")
    low, high = min(words), max(words)
    before = f"rating_range = [{low}, {high}]"
    lines = [line for line in found["toml"].splitlines() if not line.startswith("unrated")]
    assert any(line.startswith(before) for line in lines)
    toml = "\n".join(
        f"rating_range = {range_to_set}" if line.startswith(before) else line for line in lines
    )
    rules, query = refused._rules(toml), refused._staged(sample_of(tmp_path), "interactions", toml)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert would_refuse(connection, "interactions", query, rules).bad == 0


def sample_of(folder: Path) -> Sample:
    return Sample(str(folder / "log.csv"), Settings(home=folder).cache, ())


def test_ratings_without_a_value_are_counted(tmp_path: Path) -> None:
    log = [f"u{i % 9},i{i},{1_700_000_000 + i},{i % 5 + 1}" for i in range(50)]
    log += [f"u{i},i{i},{1_700_000_000 + i},{'n/a' if i % 2 else ''}" for i in range(6)]
    found = look(tmp_path, "user,item,time,rating", log)
    assert noted(found, "have no value").startswith("6 of 56 ratings have no value in 'rating'")


def test_a_giant_among_few_users_is_shown(tmp_path: Path) -> None:
    log = [
        f"{'00000000' if i % 3 else f'u{i % 10}'},i{i % 7},{1_700_000_000 + i}" for i in range(90)
    ]
    found = look(tmp_path, "user,item,time", log)
    assert 'no_user = ["00000000"]' in noted(found, "'00000000'")
    assert not any("'u" in note and "is that right" in note for note in found["notes"])
