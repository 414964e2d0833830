"""Ingest: a batch is staged whole, once, without duplicates; a bad source leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.ingest import ingest_flow
from shortlist.config import ConfigError, Settings, load_toml
from shortlist.contracts import ContractError
from shortlist.datasets import DataConfig, DatasetError
from shortlist.lake import Lake, LakeError

HEADER = "user_id,item_id,rating,timestamp\n"
ROWS = ["u2,b,5,200\n", "00196,a,4,100\n", "u2,b,5,200\n", "u3,a,1,300\n"]
COLUMNS = {
    **{"user_id": "user_id", "item_id": "item_id"},
    **{"value": "rating", "event_timestamp": "timestamp"},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def config(path: Path, **more: Any) -> DataConfig:
    interactions = {"path": path, "columns": COLUMNS, "event_type": "rating"}
    return DataConfig.model_validate(
        {"source": "files", "files": {"interactions": interactions}, "like_threshold": 4.0} | more
    )


def ingest(path: Path, **more: Any) -> dict[str, Any]:
    """The flow's own function: Prefect itself is part of the end-to-end test."""
    return ingest_flow.fn(config(path, **more))


def test_a_batch_is_staged_in_order_and_without_duplicates(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_text(HEADER + "".join(ROWS))
    result = ingest(source)
    # 4 ratings and 3 likes are read; one rating and its like are there twice.
    assert (result["read"], result["duplicates"], result["staged"]) == (7, 2, 5)
    assert (result["items"], result["users"]) == (2, 3)
    interactions, items, users = Lake(Settings().lake).read_incoming(result["batch_id"])
    assert interactions.column("user_id").to_pylist() == ["00196", "00196", "u2", "u2", "u3"]
    assert interactions.column("event_type").to_pylist() == [
        *("rating", "like", "rating", "like", "rating")
    ]
    assert sorted(items.column("item_id").to_pylist()) == ["a", "b"]
    assert sorted(users.column("user_id").to_pylist()) == ["00196", "u2", "u3"]
    json.dumps(result)  # flows return what Prefect and --json can show


def test_the_same_source_is_the_same_batch(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_text(HEADER + "".join(ROWS))
    first, second = ingest(source), ingest(source)
    assert first == second
    source.write_text(HEADER + "".join(ROWS[:2]))
    assert ingest(source)["batch_id"] != first["batch_id"]
    assert len(list((home / "lake" / "incoming").iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "error", "complaint"),
    [
        (None, DatasetError, "no such file"),
        ("", DatasetError, "is empty"),
        (HEADER, DatasetError, "source 'files' has no events"),
        (HEADER + "u2,b,5\n", DatasetError, "cannot be read as csv"),
        (HEADER + "u2,b,five,200\n", DatasetError, "column 'rating' is not numeric"),
        (HEADER + "u2,b,5,nan\n", DatasetError, "'timestamp', row 1: 'nan' is no time"),
    ],
)
def test_a_bad_source_leaves_nothing(
    home: Path, tmp_path: Path, content: str | None, error: type[Exception], complaint: str
) -> None:
    source = tmp_path / "events.csv"
    if content is not None:
        source.write_text(content)
    with pytest.raises(error, match=complaint) as raised:
        ingest(source)
    assert "events.csv" in str(raised.value) or "no events" in str(raised.value)
    assert not home.exists()


def test_missing_ids_leave_nothing(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.jsonl"
    rows = [{"user_id": user, "item_id": "a", "rating": 3, "timestamp": 5} for user in ("u", None)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ContractError, match="column 'user_id' has 1 nulls"):
        ingest(source)
    source.write_text("".join(json.dumps(row | {"user_id": 1.5}) + "\n" for row in rows))
    with pytest.raises(DatasetError, match=r"column 'user_id' is double.*NaN"):
        ingest(source)
    assert not home.exists()


def test_the_service_needs_a_catalogue_first(home: Path) -> None:
    with pytest.raises(LakeError, match="shortlist run"):
        ingest_flow.fn(DataConfig(source="service"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('source = "files"\n', r'source "files" needs a section \[data.files\]'),
        ('source = "netflix"\n', "source: .*'movielens-100k', 'files' or 'service'"),
        ('source = "service"\ntarget_events = []\n', "target_events"),
        ('source = "service"\ntarget_events = ["stare"]\n', "target_events: .*'stare' is unknown"),
        ('source = "service"\npfad = "x"\n', "pfad: unknown key"),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "data.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_toml(path, DataConfig)
