"""Compaction keeps every row, and posted changes of items are carried out without a refresh."""

import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.featurize import featurize
from flows.forget import forget
from flows.operations import caretaker
from flows.operations.caretaker import can_serve, carry_out, follow
from flows.refresh import refresh
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.datasets.service.item_commands import num_pending
from shortlist.feature_store import latest_pack
from shortlist.forgetting.requests import ForgetInbox
from shortlist.home.home_lock import HomeLocked, home_lock
from shortlist.items.commands import CommandInbox
from shortlist.lake import Lake
from shortlist.lake.compaction import compact_lake
from tests.flows.conftest import DAY, LAKE_START, write_lake
from tests.flows.test_refresh import run_config


def test_compaction_leaves_one_file_a_partition_and_every_row(tmp_path: Path) -> None:
    write_lake(tmp_path)
    lake = Lake(tmp_path)

    def add(number: int) -> None:
        rows = lake.interactions().slice(0, 1).to_pylist()
        rows[0] |= {"event_id": f"new{number}", "event_order": 100 + number}
        events = pa.Table.from_pylist(rows, schema=INTERACTIONS)
        lake.publish(f"batch{number}", events, ITEMS.empty_table(), USERS.empty_table())

    for number in range(3):
        add(number)
    before, files = lake.interactions(), len(lake.interaction_files())
    done = compact_lake(tmp_path)
    assert (done.files_before, done.files_after) == (files, len(lake.manifest.partitions))
    assert files > done.files_after
    assert len(lake.interaction_files()) == done.files_after
    assert lake.interactions().sort_by("event_id") == before.sort_by("event_id")
    assert lake.items().num_rows == 6
    again = compact_lake(tmp_path)
    assert (again.files_before, again.version) == (done.files_after, done.version)
    add(3)
    assert lake.interactions().num_rows == before.num_rows + 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path / "home"))
    settings = Settings()
    write_lake(settings.lake)
    until = LAKE_START + 2 * DAY
    (settings.home / "clock.json").write_text(json.dumps({"now": until}))
    featurize(settings, ("rating",), until=until)
    return settings


@pytest.mark.usefixtures("prefect_here")
def test_posted_changes_reach_lake_and_item_features(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker, "PAUSE", 0)
    config = run_config(source="service")
    assert carry_out(home, config) == 0
    before = latest_pack(home.packs)
    changes = [{"item_id": "new", "title": "Tea"}, {"item_id": "i1", "available": False}]
    CommandInbox.of(home).append(changes, received_at=LAKE_START + 2 * DAY)
    left = [True, False]
    follow(home, config, stopped=lambda: not left.pop(0))
    assert num_pending(home) == 0
    pack = latest_pack(home.packs)
    assert (pack.as_of, pack.commands, before.commands) == (before.as_of, 2, 0)
    items = {row["item_id"]: row for row in Lake(home.lake).items().to_pylist()}
    assert items["new"]["title"] == "Tea"
    assert items["i1"]["available"] is False
    assert pack.items is not None
    assert set(pack.items.column("item_id").to_pylist()) == set(items)
    assert not can_serve(home)  # no release is promoted


@pytest.mark.usefixtures("prefect_here")
def test_people_who_asked_to_be_forgotten_leave_lake_and_states(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker, "PAUSE", 0)
    config = run_config(source="service")
    forget(home, "u1")
    assert "u1" in user_ids(Lake(home.lake).interactions())
    left, built = [True, True, False], []
    monkeypatch.setattr(
        caretaker, "refresh", lambda *given, **named: built.append(refresh(*given, **named))
    )
    follow(home, config, stopped=lambda: not left.pop(0))
    assert len(built) == 1  # not again in the second round, though the request is still pending
    assert [request.user_id for request in ForgetInbox(home).pending()] == ["u1"]
    assert user_ids(Lake(home.lake).interactions()) == {"u0", "u2"}
    states = [pq.read_table(path) for path in home.features.rglob("user_*/*.parquet")]
    assert states
    assert not any("u1" in user_ids(table) for table in states)


def test_a_damaged_inbox_of_changes_does_not_stop_forgetting(
    home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caretaker, "PAUSE", 0.001)
    inbox = CommandInbox.of(home)
    inbox.append([{"item_id": "new"}], received_at=LAKE_START)
    inbox.path.write_text("no database " * 100)
    asked: list[int] = []
    monkeypatch.setattr(caretaker, "forget_requested", lambda *_: asked.append(1) or len(asked))
    left = [True, True, False]
    follow(home, run_config(source="service"), stopped=lambda: not left.pop(0))
    said = capsys.readouterr().out
    assert "CommandError: " in said
    assert "caretaker: 2 people are out of lake and states" in said


def user_ids(table: pa.Table) -> set[str]:
    return set(table.column("user_id").to_pylist())


def test_a_running_refresh_is_not_disturbed(home: Settings) -> None:
    CommandInbox.of(home).append([{"item_id": "new"}], received_at=LAKE_START)
    errors: list[BaseException] = []

    def other() -> None:
        try:
            carry_out(home, run_config(source="service"))
        except HomeLocked as error:
            errors.append(error)

    with home_lock(home, "refresh", what="shortlist refresh"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert num_pending(home) == 1
