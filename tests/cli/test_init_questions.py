"""`init` asks what it can't decide; wrong commands and unreadable files are errors."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app
from flows.runtime.configuration import load_run_config
from shortlist.config import ConfigError
from shortlist.datasets import DatasetError

LOG = b"user,item,time\nu1,a,1700000000\nu2,b,1700000001\n"
NO_HEADER = b"u1,a,1700000000\nu2,b,1700000001\nu1,b,1700000002\n"
TIMES = pa.array([1_700_000_000, 1_700_000_001])
Table = bytes | dict[str, Any]


def init(folder: Path, files: dict[str, Table], *more: str) -> tuple[int, str, str | None]:
    """Run `shortlist init`; return (exit code, output, text of the TOML if there is one)."""
    options = list(more)
    for name, content in files.items():
        ending = "csv" if isinstance(content, bytes) else "parquet"
        path = folder / f"{name}.{ending}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(pa.table(content), path)
        options += [str(path)] if name == "interactions" else [f"--{name}", str(path)]
    out = folder / "run.toml"
    done = CliRunner().invoke(app, ["init", *options, "--out", str(out), "--yes"])
    if isinstance(done.exception, DatasetError):  # `main` shows it and exits with 2
        return 2, str(done.exception), out.read_text() if out.exists() else None
    text = " ".join((done.output + done.stderr).split())
    return done.exit_code, text, out.read_text() if out.exists() else None


QUESTIONS: dict[str, tuple[dict[str, Table], str]] = {
    "a log without a header": ({"interactions": NO_HEADER}, "first line is data"),
    "one row without a header": ({"interactions": b"u1,a,1700000000\n"}, "first line is data"),
    "items without a header": (
        {"interactions": LOG, "items": b"1,7.5\n2,8.5\n3,8.5\n"},
        "first line is data",
    ),
    "users without a header": (
        {"interactions": LOG, "users": b"1,25\n2,31\n3,31\n"},
        "first line is data",
    ),
    "users in lists": (
        {"interactions": {"user": [["u"], ["v"]], "item": ["a", "b"], "time": TIMES}},
        "column 'user' is varchar[], want text or whole numbers",
    ),
    "items in structs": (
        {"interactions": {"user": ["u", "v"], "item": [{"sku": "a"}] * 2, "time": TIMES}},
        "column 'item' is struct(sku varchar), want text or whole numbers",
    ),
    "an item's id in bytes": (
        {"interactions": LOG, "items": {"item": [b"a"], "title": ["A"]}},
        "column 'item' is blob, want text or whole numbers",
    ),
    "a title in a struct": (
        {"interactions": LOG, "items": {"item": ["a"], "title": [{"en": "A"}]}},
        "column 'title' is struct(en varchar), want text",
    ),
    "categories in bytes": (
        {"interactions": LOG, "items": {"item": ["a"], "genres": [b"A"]}},
        "column 'genres' is blob, want text or a list",
    ),
    "a device in a map": (
        {
            "interactions": {
                **{"user": ["u", "v"], "item": ["a", "b"], "time": TIMES},
                "device": pa.array([[("os", "x")], []], pa.map_(pa.string(), pa.string())),
            }
        },
        "column 'device' is map(varchar, varchar), want text",
    ),
    "times in a list": (
        {"interactions": {"user": ["u", "v"], "item": ["a", "b"], "time": [[1.5], [2.5]]}},
        "is no time that is understood",
    ),
    "a user's id in a struct": (
        {"interactions": LOG, "users": {"user": [{"id": "u1"}], "age": [7]}},
        "column 'user' is struct(id varchar), want text or whole numbers",
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_cannot_be_decided_is_a_question_in_the_toml(tmp_path: Path, name: str) -> None:
    files, said = QUESTIONS[name]
    code, output, toml = init(tmp_path, files)
    assert code == 1, output
    assert toml is not None
    (line,) = [line for line in toml.splitlines() if line.startswith("# OPEN: ")]
    assert said in line
    assert "[data.files.interactions]" in toml
    for table in files:
        assert f"[data.files.{table}]" in toml


ERRORS: dict[str, tuple[dict[str, Table], list[str], str]] = {
    "a column that isn't there": (
        {"interactions": LOG},
        ["--column", "user_id=customer"],
        "no column 'customer'; there are user, item, time",
    ),
    "a column of items that isn't there": (
        {"interactions": LOG, "items": b"item,title\na,A\n"},
        ["--column", "items.title=name"],
        "no column 'name'; there are item, title",
    ),
    "a name that no table has": (
        {"interactions": LOG},
        ["--column", "customer=user"],
        "--column customer=user: want one of interactions.user_id",
    ),
    "an event type": ({"interactions": LOG}, ["--event-type", "stare"], "--event-type stare: want"),
    "an event type without a header": (
        {"interactions": NO_HEADER},
        ["--event-type", "stare"],
        "--event-type stare: want",
    ),
    "a unit": ({"interactions": LOG}, ["--time-unit", "weeks"], "--time-unit weeks: want one of"),
    "an empty log": ({"interactions": b""}, [], "is empty"),
    "a log of a header": ({"interactions": b"user,item,time\n"}, [], "no rows below its header"),
    "unreadable items": ({"interactions": LOG, "items": b"PK\x03\x04"}, [], "is a zip archive"),
    "no items": ({"interactions": LOG}, ["--items", "/nowhere.csv"], "no such file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_command_or_an_unreadable_file_writes_nothing(tmp_path: Path, name: str) -> None:
    files, options, said = ERRORS[name]
    code, output, toml = init(tmp_path, files, *options)
    assert (code, toml) == (2, None)
    assert said in output


def test_an_open_question_must_be_answered_before_a_run(tmp_path: Path) -> None:
    init(tmp_path, {"interactions": b"user,thing,time\nu1,a,1700000000\n"})
    with pytest.raises(ConfigError, match=r"item_id is '\?', an open question"):
        load_run_config(tmp_path / "run.toml")


def test_lists_of_texts_are_descriptions(tmp_path: Path) -> None:
    """Parquet files may hold a description as a list of paragraphs."""
    items = {"item": ["a"], "title": ["A"], "description": [["One.", "Two."]]}
    code, output, _ = init(tmp_path, {"interactions": LOG, "items": items})
    assert code == 0, output
