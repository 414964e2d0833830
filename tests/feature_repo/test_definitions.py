"""The names and settings that stand in two places agree: Feast's files and the code."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from shortlist.config import Settings
from shortlist.event_kinds import ITEM_KINDS, USER_KINDS
from shortlist.feature_store import FeatureStoreError, open_store, repo_config
from shortlist.features import (
    CONTEXT_ON_DEMAND,
    CONTEXT_STATE,
    ITEM_SERVICE,
    ITEM_STATE,
    ITEM_TICK,
    PACK_STATE,
    REQUEST_SERVICE,
    USER_HISTORY,
    USER_PROFILE,
    USER_STATE,
    time_features,
)
from shortlist.searches import USER_SEARCHES

ROOT = Path(__file__).resolve().parents[2]


def test_the_yaml_says_what_settings_say() -> None:
    from feast.repo_config import load_repo_config

    repo = ROOT / "feature_repo"
    yaml = load_repo_config(repo, repo / "feature_store.yaml")
    code = repo_config(Settings(home=ROOT / "var", online_store="sqlite"))
    for config in (yaml, code):
        config.registry.path = str((repo / config.registry.path).resolve())
        config.online_store.path = str((repo / config.online_store.path).resolve())
    assert yaml.registry == code.registry
    assert yaml.online_store == code.online_store
    assert yaml.offline_store == code.offline_store
    assert (yaml.project, yaml.provider) == (code.project, code.provider)
    assert yaml.entity_key_serialization_version == code.entity_key_serialization_version == 3


def test_a_redis_uri_becomes_feasts_connection_string() -> None:
    config = repo_config(Settings(online_store="redis://:secret@store:6380/2"))
    assert config.online_store.type == "redis"
    assert config.online_store.connection_string == "store:6380,password=secret,db=2"
    with pytest.raises(FeatureStoreError, match=r"http://store.*want 'sqlite' or a URI like"):
        repo_config(Settings(online_store="http://store"))


def test_fields_are_the_names_of_the_core(home: Settings) -> None:
    store = open_store(home)

    def fields(view: str) -> tuple[str, ...]:
        return tuple(field.name for field in store.get_feature_view(view).features)

    assert fields("user_stats") == USER_STATE
    assert fields("user_history") == USER_HISTORY
    assert fields("user_profile") == USER_PROFILE
    assert fields("user_kinds") == USER_KINDS
    assert fields("user_searches") == USER_SEARCHES
    assert fields("item_state") == (*ITEM_STATE, ITEM_TICK)
    assert fields("item_kinds") == ITEM_KINDS
    assert fields("context_trend") == CONTEXT_STATE
    on_demand = store.get_on_demand_feature_view("request_time")
    assert tuple(field.name for field in on_demand.features) == CONTEXT_ON_DEMAND


def test_services_ask_for_every_state(home: Settings) -> None:
    store = open_store(home)

    def asked(service: str) -> set[str]:
        views = store.get_feature_service(service).feature_view_projections
        return {field.name for view in views for field in view.features}

    assert asked(REQUEST_SERVICE) == {
        *USER_STATE,
        *USER_KINDS,
        *USER_SEARCHES,
        *USER_HISTORY,
        *USER_PROFILE,
        *CONTEXT_STATE,
        *CONTEXT_ON_DEMAND,
    }
    assert asked(ITEM_SERVICE) == {*PACK_STATE, ITEM_TICK}


def test_the_stored_on_demand_view_does_the_maths_of_the_core(home: Settings) -> None:
    at = np.random.default_rng(0).integers(0, 2**51, size=200)
    view = open_store(home).get_on_demand_feature_view("request_time")
    stored = view.feature_transformation.udf({"request_at": at.tolist()})
    for name, values in time_features(at).items():
        np.testing.assert_allclose(stored[name], values, atol=1e-12)


def test_feast_applies_the_repository_of_a_fresh_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Settings
) -> None:
    from feast import FeatureStore
    from feast.cli.cli import cli

    shutil.copytree(
        ROOT / "feature_repo",
        tmp_path / "feature_repo",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    monkeypatch.delenv("SHORTLIST_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    # What Feast changes in a process of its own.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    done = CliRunner().invoke(cli, ["-c", "feature_repo", "apply"])
    for name in ("definitions", "__init__"):
        sys.modules.pop(name, None)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "var" / "feast").glob("*.db")) == [
        "online_store.db",
        "registry.db",
    ]
    monkeypatch.chdir(tmp_path)  # Feast's apply leaves it changed
    listed = CliRunner().invoke(cli, ["-c", "feature_repo", "feature-views", "list"])
    assert "user_history" in listed.output
    # What a featurize of this clone would have written.
    shutil.copytree(home.features, tmp_path / "var" / "features")
    monkeypatch.chdir(tmp_path)
    times = ["2000-01-01T00:00:00", "2030-01-01T00:00:00"]
    done = CliRunner().invoke(cli, ["-c", "feature_repo", "materialize", *times])
    assert done.exit_code == 0, done.output
    store = FeatureStore(repo_path=str(tmp_path / "feature_repo"))
    asked = ["user_stats:user_events", "user_history:history_items"]
    answer = store.get_online_features(asked, [{"user_id": "u1"}]).to_dict()
    assert (answer["user_events"], answer["history_items"]) == ([5], [["a", "b", "c", "d"]])
