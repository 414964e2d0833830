"""Ingest: only new data are staged, and a bad source leaves no files behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.ingest import stage
from flows.validate import ValidateConfig, validate_batch
from shortlist.config import ConfigError, Settings, load_toml
from shortlist.datasets import DataConfig, DatasetError
from shortlist.lake import Lake, LakeError

HEADER = "user_id,item_id,rating,timestamp\n"
ROWS = [
    "u2,b,5,1700000200\n",
    "00196,a,4,1700000100\n",
    "u2,b,5,1700000200\n",
    "u3,a,1,1700000300\n",
]
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
    """Stage a file without Prefect, which is part of the end-to-end test."""
    return stage(Settings(), config(path, **more))


def validate(batch_id: str) -> dict[str, Any]:
    limits = ValidateConfig(failure_budget=0.5)
    return validate_batch(Settings(), batch_id, limits, clock="replay")


def test_from_a_file_to_the_lake(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_text(HEADER + "".join(ROWS))
    result = ingest(source)
    # 4 ratings and 3 likes are read. One rating occurs twice, and so does its like.
    assert (result["read"], result["items"], result["users"]) == (7, 0, 0)
    json.dumps(result)  # Prefect and --json need serialisable results
    done = validate(result["batch_id"])
    assert (done["read"], done["accepted"], done["duplicates"]) == (7, 5, 2)
    assert (done["items"], done["users"]) == (2, 3)
    events = Lake(Settings().lake).interactions()
    assert events.column("user_id").to_pylist() == ["00196", "00196", "u2", "u2", "u3"]
    assert events.column("event_type").to_pylist() == [
        *("rating", "like", "rating", "like", "rating")
    ]


def test_a_run_takes_only_what_is_new(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "1.csv").write_text(HEADER + "".join(ROWS))
    first = ingest(folder)
    assert ingest(folder)["batch_id"] == first["batch_id"]  # staging is idempotent
    validate(first["batch_id"])
    before = Lake(Settings().lake).interactions()

    again = ingest(folder)
    assert (again["read"], again["unchanged"], again["files"]) == (0, 1, [])
    done = validate(again["batch_id"])
    assert (done["read"], done["accepted"], done["unchanged"]) == (0, 0, 1)
    assert Lake(Settings().lake).interactions().equals(before)

    (folder / "2.csv").write_text(HEADER + "u9,b,3,1700000050\n")
    # File 1 has one more line.
    (folder / "1.csv").write_text(HEADER + "".join(ROWS) + "u9,a,3,1700000060\n")
    more = ingest(folder)
    assert (more["read"], more["unchanged"]) == (9, 0)
    done = validate(more["batch_id"])
    assert (done["accepted"], done["duplicates"], done["late"]) == (2, 7, 2)
    assert done["stale_from"] == 1_700_000_050_000_000


def test_another_mapping_reads_again(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_text(HEADER + "".join(ROWS))
    validate(ingest(source)["batch_id"])
    result = ingest(source, like_threshold=1.0)
    assert (result["read"], result["unchanged"]) == (8, 0)
    assert validate(result["batch_id"])["accepted"] == 1  # the like of a rating of 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"events\.csv: no such file"),
        ("", r"events\.csv: is empty"),
        (HEADER, "source 'files' has no events"),
        ("user,item\n1,2\n", r"events\.csv: no column 'user_id'; there are user, item"),
    ],
)
def test_a_bad_source_leaves_nothing(
    home: Path, tmp_path: Path, content: str | None, complaint: str
) -> None:
    source = tmp_path / "events.csv"
    if content is not None:
        source.write_text(content)
    with pytest.raises(DatasetError, match=complaint):
        ingest(source)
    assert not (home / "lake").exists()


def test_the_service_needs_a_catalogue_first(home: Path) -> None:
    with pytest.raises(LakeError, match="shortlist run"):
        stage(Settings(), DataConfig(source="service"))


FILES = 'source = "files"\n[files.interactions]\npath = "x.csv"\n'
MAPPED = 'columns = { user_id = "u", item_id = "i", event_timestamp = "t" }\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('source = "files"\n', r'source "files" needs a section \[data.files\]'),
        ('source = "netflix"\n', "source: .*'movielens-100k'"),
        ('source = "service"\ntarget_events = []\n', "target_events"),
        ('source = "service"\ntarget_events = ["stare"]\n', "target_events: .*'stare' is unknown"),
        ('source = "service"\npfad = "x"\n', "pfad: unknown key"),
        ('source = "sequences"\n', "needs `path`"),
        ('source = "amazon-reviews-2023"\n', "needs `category`"),
        (FILES + 'columns = { user_id = "u" }\n', "columns must map item_id, event_timestamp"),
        (FILES + MAPPED, "no event type: map 'event_type' to a column, or set event_type"),
        (FILES + MAPPED.replace("user_id", "usr_id"), "'usr_id' is no column of the contract"),
        (FILES + MAPPED + 'event_type = "stare"\n', "no event type"),
        (FILES + MAPPED + 'event_type = "view"\ntimestamp_unit = "h"\n', 'want "s", "ms"'),
        (FILES + MAPPED + 'event_type = "view"\ntime_zone = "Mars"\n', "no such time zone"),
        (
            FILES + MAPPED + 'event_types = { a = "stare" }\nevent_type = "view"\n',
            "'stare' is unkn",
        ),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "data.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_toml(path, DataConfig)
