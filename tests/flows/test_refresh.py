"""The flow `refresh` and the retries of its steps, on a temporary Prefect server."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import featurize, ingest, validate
from flows.refresh import refresh
from flows.runtime.configuration import RunConfig
from services.events.event_log import EventLog
from shortlist.behaviour.counting import ListRules
from shortlist.config import Settings
from shortlist.datasets import DataConfig, DatasetError, SourceUnavailable
from shortlist.feature_store import FeatureStoreError
from shortlist.feature_store.states.snapshots import Snapshots
from shortlist.lake import Lake, LakeError
from shortlist.validation import ValidateConfig
from tests.flows.conftest import DAY, LAKE_START, House, event, write_lake

COLUMNS = {key: key for key in event(0)}
pytestmark = pytest.mark.usefixtures("prefect_here")
POSTED_AT = LAKE_START + 30 * DAY


@pytest.fixture
def home(house: House, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The home SHORTLIST_HOME: it has a lake, and two posted events in the inbox."""
    monkeypatch.setenv("SHORTLIST_HOME", str(house.settings.home))
    monkeypatch.setattr(ingest.stage_task, "retry_delay_seconds", 0)
    write_lake(house.settings.lake)
    log = EventLog(house.settings.events)
    posted = [event(i, event_timestamp=POSTED_AT, received_at=POSTED_AT + 1) for i in (100, 101)]
    for one in posted:
        del one["operation"]
    assert log.append(posted) == posted
    log.close()
    (house.settings.home / "clock.json").write_text(json.dumps({"now": POSTED_AT + 2}))
    return house.settings


def run_config(**data: Any) -> RunConfig:
    content = {"target_events": ["rating"], "clock": "replay"} | data
    train = {"sources": [{"kind": "popularity"}], "rankers": []}
    return RunConfig.model_validate({"name": "small", "data": content, "train": train})


def absent_files(folder: Path) -> dict[str, Any]:
    log = {"path": str(folder / "absent.csv"), "columns": COLUMNS}
    return {"source": "files", "files": {"interactions": log}}


def database_that_is_down(folder: Path) -> dict[str, Any]:
    url = f"sqlite:///{folder}/absent/shop.db"
    return {
        "source": "database",
        "database": {"url": url, "interactions": {"table": "log", "columns": COLUMNS}},
    }


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (absent_files, DatasetError, "absent.csv: no such file"),
        (database_that_is_down, SourceUnavailable, "unable to open database file"),
    ],
)
def test_posted_events_reach_lake_and_features_while_the_source_is_down(
    home: Settings, tmp_path: Path, source: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        refresh(home, run_config(**source(tmp_path)))
    assert Lake(home.lake).interactions().num_rows == 32
    states = Snapshots.read(home.features)
    assert states is not None
    assert states.until > POSTED_AT


def test_the_error_of_the_source_is_what_an_empty_home_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty home, a refresh raises the error of its source."""
    empty = Settings(home=tmp_path / "empty")
    monkeypatch.setenv("SHORTLIST_HOME", str(empty.home))
    with pytest.raises(DatasetError, match=r"absent\.csv: no such file"):
        refresh(empty, run_config(**absent_files(tmp_path), clock="wall"))


def _stage(home: Settings, folder: Path, bad: bool) -> Any:
    service, absent = {"source": "service"}, absent_files(folder)
    return ingest.stage_task(DataConfig.model_validate(absent if bad else service), None, None)


def _publish(home: Settings, folder: Path, bad: bool) -> Any:
    good = ingest.stage(home, DataConfig(source="service"))["batch_id"]
    return validate.validate_task("nosuch" if bad else good, ValidateConfig(), "replay")


def _build(home: Settings, folder: Path, bad: bool) -> Any:
    targets = ("purchase",) if bad else ("rating",)
    return featurize.featurize_task(targets, POSTED_AT, DAY, ListRules())


STEPS = {
    "stage": (ingest, "stage", ingest.stage_task, _stage),
    "publish": (validate, "validate_batch", validate.validate_task, _publish),
    "build": (featurize, "featurize", featurize.featurize_task, _build),
}


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_tried_again_after_a_transient_error_and_not_with_bad_input(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, bad: bool
) -> None:
    module, name, task, perform = STEPS[step]
    monkeypatch.setattr(task, "retry_delay_seconds", 0)
    work, tries = getattr(module, name), []

    def busy_at_first(*arguments: Any, **more: Any) -> Any:
        tries.append(arguments)
        if not bad and len(tries) == 1:
            raise OSError("disk is busy")
        return work(*arguments, **more)

    monkeypatch.setattr(module, name, busy_at_first)
    if bad:
        with pytest.raises((DatasetError, LakeError, FeatureStoreError)):
            perform(home, tmp_path, bad)
        assert len(tries) == 1
    else:
        assert perform(home, tmp_path, bad)
        assert len(tries) == 2
