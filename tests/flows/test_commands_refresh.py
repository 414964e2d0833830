"""A refresh carries out posted changes of items, whatever fails beside them."""

from pathlib import Path

import pytest

from flows.refresh import carry_out_commands, refresh
from flows.runtime.configuration import RunConfig, load_run_config
from shortlist import columns as c
from shortlist.config import Settings
from shortlist.datasets import DatasetError
from shortlist.datasets.service.item_commands import num_pending
from shortlist.feature_store.packs import latest_pack
from shortlist.items.commands import CommandInbox
from tests.conftest import WORLD_TOML, write_world
from tests.services.conftest import copy_home

FOLDERS = ("packs", "feast", "features", "lake")
T = 1_703_000_000_000_000


@pytest.fixture
def settings(
    served_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_here: None
) -> Settings:
    home = copy_home(served_home, tmp_path / "home", folders=FOLDERS)
    (home / "clock.json").write_bytes((served_home / "clock.json").read_bytes())
    monkeypatch.setenv("SHORTLIST_HOME", str(home))
    return Settings()


def config(folder: Path, *, more: str = "", world: bool = True) -> RunConfig:
    """Return the config of the served home, with other rules of validation."""
    source = write_world(folder / "world") if world else folder / "absent"
    path = folder / "tiny.toml"
    path.write_text(WORLD_TOML.format(folder=source) + more)
    return load_run_config(path)


def lake_rows(settings: Settings) -> dict[str, dict]:
    from shortlist.lake import Lake

    return {row[c.ITEM_ID]: row for row in Lake(settings.lake).items().to_pylist()}


def test_changes_are_carried_out_though_the_source_is_down(settings, tmp_path) -> None:
    CommandInbox.of(settings).append([{"item_id": "i3", "price": 7.0}], received_at=T)
    with pytest.raises((DatasetError, OSError)):
        refresh(settings, config(tmp_path, world=False))
    assert lake_rows(settings)["i3"]["price"] == 7.0
    assert num_pending(settings) == 0
    assert latest_pack(settings.packs).commands == 1


def test_a_bad_row_is_quarantined_and_its_withdrawal_counts(settings, tmp_path) -> None:
    """Neither a rule that stops a batch nor limits of whole catalogues hold the changes up."""
    rules = """
[[validation.expectations]]
name = "cheap"
table = "items"
row = "price IS NULL OR price < 50"
action = "stop"

[[validation.expectations]]
name = "a whole catalogue"
table = "items"
batch = "count(*)"
min = 50
action = "stop"
"""
    strict = config(tmp_path, more=rules)
    inbox = CommandInbox.of(settings)
    inbox.append([{"item_id": "i4", "price": 99.0, "available": False}], received_at=T)
    inbox.append([{"item_id": "i5", "price": 9.0}, {"item_id": "x", "price": 98.0}], received_at=T)
    before = lake_rows(settings)
    assert carry_out_commands(settings, strict, until=T) is None
    after = lake_rows(settings)
    assert after["i5"]["price"] == 9.0
    assert "x" not in after
    assert (after["i4"]["available"], after["i4"]["price"]) == (False, before["i4"]["price"])
    assert num_pending(settings) == 0
    assert carry_out_commands(settings, strict, until=T) is None  # nothing is left to do


def test_an_inbox_behind_the_lake_or_damaged_does_not_stop_a_refresh(settings, tmp_path) -> None:
    inbox = CommandInbox.of(settings)
    inbox.append([{"item_id": "i3", "price": 7.0}] * 5, received_at=T)
    run = config(tmp_path)
    assert carry_out_commands(settings, run, until=T) is None
    inbox.path.unlink()
    assert num_pending(settings) == 0
    assert carry_out_commands(settings, run, until=T) is None
    inbox.path.write_text("no database " * 100)
    error = carry_out_commands(settings, run, until=T)
    assert "commands.db" in str(error)
