"""`shortlist quarantine`: list, show, correct and restore rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from flows.ingest import stage
from flows.runtime.configuration import RunConfig
from flows.validate import validate_batch
from flows.validation.restore import listed, restore, shown
from shortlist.config import Settings
from shortlist.files.text_files import WriteError
from shortlist.lake import Lake
from shortlist.validation.quarantine import QuarantineError

HEADER = "user,item,stars,when\n"
GOOD = "".join(f"u{i},i{i % 3},4,{1_700_000_000 + i}\n" for i in range(6))
BAD = "u7,i9,4,1700000050\nu8,i1,11,1700000051\nu9,i2\n"
TRAIN: Any = {"sources": [{"kind": "popularity"}], "rankers": [{"kind": "lambdamart"}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    (tmp_path / "e.csv").write_text(HEADER + GOOD + BAD)
    (tmp_path / "items.csv").write_text("id\ni0\ni1\ni2\n")
    return tmp_path


def run_config(folder: Path, **validation: Any) -> RunConfig:
    columns = {"user_id": "user", "item_id": "item", "value": "stars", "event_timestamp": "when"}
    events = {"path": folder / "e.csv", "columns": columns, "event_type": "rating"}
    items = {"path": folder / "items.csv", "columns": {"item_id": "id"}}
    data = {
        **{"source": "files", "clock": "replay", "like_threshold": 4.0},
        "files": {"interactions": events, "items": items},
    }
    limits = {"failure_budget": 0.5, "unknown_items": "quarantine"} | validation
    return RunConfig.model_validate(
        {"name": "q", "data": data, "validation": limits, "train": TRAIN}
    )


def take_in(config: RunConfig) -> dict[str, Any]:
    batch = stage(Settings(), config.data)
    return validate_batch(Settings(), batch["batch_id"], config.validation, clock="replay")


def test_from_quarantine_to_the_lake(folder: Path) -> None:
    result = take_in(run_config(folder))
    # Nine lines are read, with the likes of six good and two bad ratings.
    assert (result["read"], result["accepted"], result["quarantined"]) == (17, 12, 5)
    rules = {(row["table"], row["rule"]): row["rows"] for row in listed()}
    assert rules == {
        ("interactions", "item_id.known"): 2,
        ("interactions", "value.rating_range"): 2,
        ("interactions", "line.missing_columns"): 1,
    }
    batch = result["batch_id"]
    seen = shown(batch, rule="line.missing_columns", limit=5, out=None)
    assert seen["tables"]["interactions"][0]["original"] == "u9,i2"
    assert "want fields: 4 Found: 2" in seen["tables"]["interactions"][0]["reason"]
    with pytest.raises(WriteError, match=r"nosuch/x: No such file or directory; want a file path"):
        shown(batch, rule=None, limit=5, out=Path("/nosuch/x"))

    # The missing item is added to the catalogue: only its events are restored.
    (folder / "items.csv").write_text("id\ni0\ni1\ni2\ni9\n")
    assert take_in(run_config(folder))["read"] == 0
    done = restore(batch, run_config(folder))
    users = Lake(Settings().lake).interactions().column("user_id").to_pylist()
    assert users.count("u7") == 2  # the rating and its like
    assert done["quarantined"] > 0
    left = {row["rule"] for row in listed()}
    assert "item_id.known" not in left

    # Restore with a wider range of ratings, and with the incomplete line corrected by hand.
    out = folder / "mended.jsonl"
    count = shown(batch, rule=None, limit=1, out=out)["rows"]["interactions"]
    lines = out.read_text().splitlines()
    assert (count, len(lines)) == (3, 2)  # the like has no line, since it is derived from a rating
    torn = next(i for i, line in enumerate(lines) if line == "u9,i2")
    lines[torn] = "u9,i2,3,1700000052"
    out.write_text("\n".join(lines) + "\n")
    done = restore(batch, run_config(folder, rating_range=(1, 11)), mended=out)
    assert (done["quarantined"], listed()) == (0, [])
    events = Lake(Settings().lake).interactions().to_pylist()
    ratings = {row["user_id"]: row["value"] for row in events if row["event_type"] == "rating"}
    assert (ratings["u8"], ratings["u9"]) == (11.0, 3.0)
    assert len({row["event_id"] for row in events}) == len(events)


def places(batch: str) -> list[tuple[str, int]]:
    table = shown(batch, rule=None, limit=99, out=None)["tables"]["interactions"]
    return sorted((Path(row["file"]).name, row["line"]) for row in table)


def test_lines_are_the_file_s_also_after_a_restore(folder: Path) -> None:
    """Likes that ingest derives from ratings don't change the reported line numbers."""
    batch = take_in(run_config(folder))["batch_id"]
    # Rows 7 and 8 with their likes, and the incomplete line, which is line 10 of the file.
    assert places(batch) == [("e.csv", n) for n in (7, 7, 8, 8, 10)]
    restore(batch, run_config(folder), rule="value.rating_range")
    restore(batch, run_config(folder))
    assert places(batch) == [("e.csv", n) for n in (7, 7, 8, 8, 10)]


def test_restoring_some_rows_leaves_the_others(folder: Path) -> None:
    batch = take_in(run_config(folder))["batch_id"]
    out = folder / "mended.jsonl"
    shown(batch, rule="value.rating_range", limit=1, out=out)
    assert len(out.read_text().splitlines()) == 1
    with pytest.raises(QuarantineError, match=r"has 1 lines, the quarantine .* has 3;"):
        restore(batch, run_config(folder), mended=out)
    out.write_text(out.read_text().replace('"11"', '"5"'))
    done = restore(batch, run_config(folder), rule="value.rating_range", mended=out)
    assert (done["read"], done["accepted"], done["warnings"]) == (2, 2, [])
    assert {row["rule"]: row["rows"] for row in listed()} == {
        "item_id.known": 2,
        "line.missing_columns": 1,
    }


def test_a_restore_is_no_batch_to_compare_with(folder: Path) -> None:
    """Batch-level rules skip restored rows, and later batches aren't compared with them."""
    batch = take_in(run_config(folder))["batch_id"]
    mean = {"name": "mean", "batch": "avg(value)", "min": 20, "action": "stop"}
    restore(batch, run_config(folder, expectations=[mean], rating_range=(1, 11)))
    first, second = Lake(Settings().lake).manifest.batches
    assert first["rows"] == 17
    assert "rows" not in second


def test_a_mended_file_that_cannot_be_used_is_refused(folder: Path) -> None:
    batch = take_in(run_config(folder))["batch_id"]
    before = listed()
    out = folder / "mended.jsonl"
    for content, message in (
        (b'{"user":"u7"}\n{"user":"caf\xe9"}\nx\n', "line 2 is not UTF-8"),
        (b'{"user":"u7"}\n\nx\n', "line 2 is empty"),
        (b'{"user":"u7"}\n', "has 1 lines"),
        (b"", "line 1 is empty"),
    ):
        out.write_bytes(content)
        with pytest.raises(QuarantineError, match=message):
            restore(batch, run_config(folder), mended=out)
    assert listed() == before


def test_a_text_with_a_line_separator_is_one_line(folder: Path) -> None:
    """U+2028 and U+0085 are line ends for `str.splitlines`, but not in JSON Lines."""
    note = "a\u2028b\u0085c"
    row = {"user": "u1", "item": "i9", "stars": 3, "when": 1700000060, "note": note}
    (folder / "e.csv").unlink()
    (folder / "e.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    config = run_config(folder, failure_budget=1.0)
    assert config.data.files is not None
    events = config.data.files.interactions[0].model_copy(update={"path": str(folder / "e.jsonl")})
    files = config.data.files.model_copy(update={"interactions": (events,)})
    config = config.model_copy(update={"data": config.data.model_copy(update={"files": files})})
    batch = take_in(config)["batch_id"]
    out = folder / "mended.jsonl"
    shown(batch, rule=None, limit=1, out=out)
    out.write_text(out.read_text().replace("i9", "i1"))
    assert restore(batch, config, mended=out)["accepted"] == 1
    assert Lake(Settings().lake).interactions().column("user_id").to_pylist() == [row["user"]]


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(QuarantineError, match=r"no such batch in quarantine; there are none"):
        shown("nosuch", rule=None, limit=5, out=None)
    batch = take_in(run_config(folder))["batch_id"]
    with pytest.raises(QuarantineError, match=f"there are {batch}"):
        restore("nosuch", run_config(folder))
    with pytest.raises(QuarantineError, match=r"no row broke 'x\.y'"):
        shown(batch, rule="x.y", limit=5, out=None)
    with pytest.raises(QuarantineError, match=r"nowhere\.jsonl: no such file"):
        restore(batch, run_config(folder), mended=folder / "nowhere.jsonl")


def test_the_commands(folder: Path) -> None:
    assert "nothing is in quarantine" in CliRunner().invoke(app, ["quarantine", "list"]).stdout
    batch = take_in(run_config(folder))["batch_id"]
    told = CliRunner().invoke(app, ["quarantine", "list"]).stdout
    assert batch in told
    assert "value.rating_range" in told
    one = CliRunner().invoke(app, ["quarantine", "show", batch, "--json"])
    rows = json.loads(one.stdout)["tables"]["interactions"]
    assert {row["file"].split("/")[-1] for row in rows} == {"e.csv"}
    told = CliRunner().invoke(app, ["quarantine", "show", batch, "--rule", "value.rating_range"])
    assert "range of ratings: want 1 to 5" in told.stdout
