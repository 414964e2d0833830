"""Names and settings in Feast's files agree with those in the code."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from shortlist.behaviour.refusals import USER_REFUSALS
from shortlist.config import Settings
from shortlist.feature_store import FeatureStoreError, open_store, repo_config
from shortlist.features.event_groups import ITEM_GROUP_STATE, USER_GROUP_STATE
from shortlist.features.finalize import (
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
from shortlist.features.searches import USER_SEARCHES
from shortlist.features.state_descriptions import MEANINGS

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
    assert fields("user_event_groups") == USER_GROUP_STATE
    assert fields("user_searches") == USER_SEARCHES
    assert fields("user_refusals") == USER_REFUSALS
    assert fields("item_state") == (*ITEM_STATE, ITEM_TICK)
    assert fields("item_event_groups") == ITEM_GROUP_STATE
    assert fields("context_trend") == CONTEXT_STATE
    on_demand = store.get_on_demand_feature_view("request_time")
    assert tuple(field.name for field in on_demand.features) == CONTEXT_ON_DEMAND


def test_services_ask_for_every_state(home: Settings) -> None:
    """Feast's feature services contain all states of requests and of items."""
    store = open_store(home)

    def asked(service: str) -> set[str]:
        views = store.get_feature_service(service).feature_view_projections
        return {field.name for view in views for field in view.features}

    assert asked(REQUEST_SERVICE) == {
        *USER_STATE,
        *USER_GROUP_STATE,
        *USER_SEARCHES,
        *USER_REFUSALS,
        *USER_HISTORY,
        *USER_PROFILE,
        *CONTEXT_STATE,
        *CONTEXT_ON_DEMAND,
    }
    assert asked(ITEM_SERVICE) == {*PACK_STATE, ITEM_TICK}


def test_every_field_is_described_and_every_view_owned(home: Settings) -> None:
    store = open_store(home)
    views = store.list_feature_views()
    on_demand = store.list_on_demand_feature_views()
    fields = [field for view in views for field in (*view.entity_columns, *view.features)]
    for view in on_demand:
        for source in view.source_request_sources.values():
            fields += source.schema
    services = store.list_feature_services()
    assert {field.name: field.description for field in fields} == MEANINGS
    assert all(owned.description for owned in (*views, *on_demand, *services))
    assert {owned.owner for owned in (*views, *on_demand, *services)} == {"platform"}


def test_a_field_without_a_description_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feast import Field
    from feast.types import Float64

    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    definitions = runpy.run_path(str(ROOT / "feature_repo" / "definitions.py"))
    with pytest.raises(ValueError, match=r"user_shoe_size is not described; want a line in MEANI"):
        definitions["with_descriptions"](Field(name="user_shoe_size", dtype=Float64))


def test_the_stored_on_demand_view_does_the_maths_of_the_core(home: Settings) -> None:
    """Feast's on-demand view gives the same values as `time_features`."""
    at = np.random.default_rng(0).integers(0, 2**51, size=200)
    view = open_store(home).get_on_demand_feature_view("request_time")
    stored = view.feature_transformation.udf({"request_at": at.tolist()})
    for name, values in time_features(at).items():
        np.testing.assert_allclose(stored[name], values, atol=1e-12)
