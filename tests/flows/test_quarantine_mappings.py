"""`quarantine restore` reads each row with the column mapping of its original file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.ingest import stage
from flows.runtime.configuration import RunConfig
from flows.validate import validate_batch
from flows.validation.restore import listed, restore
from shortlist.config import Settings
from shortlist.lake import Lake
from shortlist.validation.quarantine import QuarantineError

ROOT = Path(__file__).resolve().parents[2]
WHEN = 1_700_000_000
RATINGS = {
    "columns": {"user_id": "user", "item_id": "item", "value": "stars", "event_timestamp": "when"},
    "event_type": "rating",
}
ORDERS = {
    "columns": {"user_id": "buyer", "item_id": "sku", "value": "paid", "event_timestamp": "at"},
    "event_type": "purchase",
    "timestamp_unit": "ms",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    (tmp_path / "ratings.csv").write_text(
        "user,item,stars,when\n"
        + "".join(f"u{i},i{i % 3},4,{WHEN + i}\n" for i in range(6))
        + f"u7,i9,4,{WHEN + 50}\n"
    )
    (tmp_path / "orders.csv").write_text(
        "at,buyer,sku,paid\n"
        + "".join(f"{(WHEN + i) * 1000},u{i},i{i % 3},9.5\n" for i in range(6))
        + f"{(WHEN + 60) * 1000},u8,i9,19.5\n{(WHEN + 61) * 1000},u9,i1,-3\n"
    )
    (tmp_path / "items.csv").write_text("id\ni0\ni1\ni2\n")
    return tmp_path


def run_config(folder: Path, tables: Any = None, **validation: Any) -> RunConfig:
    files = {
        "interactions": tables
        or [
            RATINGS | {"path": folder / "ratings.csv"},
            ORDERS | {"path": folder / "orders.csv"},
        ],
        "items": {"path": folder / "items.csv", "columns": {"item_id": "id"}},
    }
    return RunConfig.model_validate(
        {
            "name": "q",
            "data": {"source": "files", "clock": "replay", "files": files},
            "validation": {"failure_budget": 1.0, "unknown_items": "quarantine"} | validation,
            "train": {"sources": [{"kind": "popularity"}], "rankers": [{"kind": "lambdamart"}]},
        }
    )


def take_in(config: RunConfig, **data: Any) -> dict[str, Any]:
    batch = stage(Settings(), config.data.model_copy(update=data))
    return validate_batch(Settings(), batch["batch_id"], config.validation, clock="replay")


def last_events() -> list[tuple[str, str, str, float, int]]:
    """Return (user, item, type, value, second) of the lake's events of item i9."""
    rows = Lake(Settings().lake).interactions().to_pylist()
    return [
        (
            *(row["user_id"], row["item_id"], row["event_type"], row["value"]),
            int(row["event_timestamp"].timestamp()),
        )
        for row in rows
        if row["item_id"] == "i9"
    ]


def test_rows_of_two_files_find_their_place_by_their_own_mapping(folder: Path) -> None:
    config = run_config(folder)
    result = take_in(config)
    batch = result["batch_id"]
    assert (result["accepted"], result["quarantined"]) == (12, 3)
    (folder / "items.csv").write_text("id\ni0\ni1\ni2\ni9\n")
    take_in(config)
    done = restore(batch, config)
    assert (done["accepted"], done["quarantined"]) == (2, 1)
    rating, order = ("u7", "i9", "rating", 4.0), ("u8", "i9", "purchase", 19.5)
    assert last_events() == [(*rating, WHEN + 50), (*order, WHEN + 60)]
    # The row that stays in quarantine keeps its file, line and mapping.
    left = pq.read_table(Settings().quarantine / batch / "interactions.parquet").to_pylist()
    assert [(Path(row["file"]).name, row["line"], row["user_id"]) for row in left] == [
        ("orders.csv", 8, "u9")
    ]
    # Neither another order of tables in the config nor missing files have an effect.
    (folder / "ratings.csv").unlink()
    (folder / "orders.csv").unlink()
    assert config.data.files is not None
    tables = [table.model_dump() for table in reversed(config.data.files.interactions)]
    done = restore(batch, run_config(folder, tables))
    assert done["quarantined"] == 1
    assert len(listed()) == 1


def test_a_mended_mapping_of_one_file_is_used_for_its_rows(folder: Path) -> None:
    wrong = ORDERS | {"path": folder / "orders.csv", "timestamp_unit": "iso"}
    tables = [RATINGS | {"path": folder / "ratings.csv"}, wrong]
    batch = take_in(run_config(folder, tables))["batch_id"]
    done = restore(batch, run_config(folder))
    assert (done["read"], done["accepted"]) == (9, 6)
    rows = Lake(Settings().lake).interactions(event_types=("purchase",))
    seconds = [int(one.timestamp()) for one in rows.column("event_timestamp").to_pylist()]
    assert seconds == [WHEN + i for i in range(6)]


def test_posted_events_are_read_as_the_service_wrote_them(folder: Path) -> None:
    """Rows of a batch from the inbox are restored as posts, although the config maps files."""
    config = run_config(folder)
    take_in(config)
    settings = Settings()
    settings.events.mkdir(parents=True)
    event = {
        **{"event_id": "posted-1", "user_id": "u1", "item_id": "i9", "event_type": "click"},
        **{"event_timestamp": (WHEN + 90) * 1_000_000, "received_at": (WHEN + 91) * 1_000_000},
    }
    (settings.events / "0001.jsonl").write_text(json.dumps(event) + "\n")
    batch = take_in(config, source="service", files=None)["batch_id"]
    assert {row["rule"] for row in listed() if row["batch_id"] == batch} == {"item_id.known"}
    (folder / "items.csv").write_text("id\ni0\ni1\ni2\ni9\n")
    take_in(config)
    assert restore(batch, config)["accepted"] == 1
    assert last_events() == [("u1", "i9", "click", None, WHEN + 90)]
    ids = Lake(settings.lake).interactions(event_types=("click",)).column("event_id").to_pylist()
    assert ids == ["posted-1"]


def test_a_batch_of_an_older_version_says_what_to_do(folder: Path) -> None:
    config = run_config(folder)
    batch = take_in(config)["batch_id"]
    (Settings().quarantine / batch / "mappings.json").unlink()
    with pytest.raises(QuarantineError, match=r"mappings\.json: is missing: .* ingest it again"):
        restore(batch, config)


REPLAY = """
import sys
from flows.runtime.configuration import load_run_config, RunConfig
from flows.validation.restore import restore

config = RunConfig.model_validate_json(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
restore(sys.argv[1], config, rule=sys.argv[3])
"""


def test_two_restores_at_once_lose_nothing(folder: Path) -> None:
    batch = take_in(run_config(folder))["batch_id"]
    (folder / "items.csv").write_text("id\ni0\ni1\ni2\ni9\n")
    take_in(run_config(folder))
    content = run_config(folder).model_dump_json()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", REPLAY, batch, content, rule],
            cwd=ROOT,
            env=os.environ.copy(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rule in ("item_id.known", "value.not_negative")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems[-2_000:]
    assert len(last_events()) == 2
    assert [(row["batch_id"], row["rows"]) for row in listed()] == [(batch, 1)]
