"""Missing or outdated feature stores give one clear error, and a service continues without them."""

import shutil
from collections.abc import Callable

import numpy as np
import pytest

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.feature_store import (
    FeatureStoreError,
    OnlineReader,
    ReopeningReader,
    open_store,
    reopening,
)
from shortlist.feature_store.store import _opened

UNTIL = 19_003 * DAY + DAY // 4
MakeHome = Callable[[], tuple[Settings, dict]]


def test_a_missing_store_is_picked_up_when_it_is_there(
    make_home: MakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reopening, "RETRY_SECONDS", 0.0)
    settings, _ = make_home()
    aside = settings.home / "aside"
    settings.feast.rename(aside)
    reader = ReopeningReader(settings)
    at = np.array([UNTIL])
    with pytest.raises(FeatureStoreError, match="run `shortlist refresh`"):
        reader.read(["u1"], [""], at)
    aside.rename(settings.feast)
    assert reader.read(["u1"], [""], at).user["user_events"].tolist() == [5]


def test_a_registry_of_another_release_is_said(make_home: MakeHome) -> None:
    """If Feast's registry lacks a field or service, the error names it and the command to run."""
    settings, _ = make_home()
    store = open_store(settings)
    view = store.get_feature_view("user_stats")
    view.features = view.features[:-1]
    store.registry.apply_feature_view(view, store.project)
    _opened.clear()
    with pytest.raises(
        FeatureStoreError,
        match=r"view user_stats .* lacks user_value_weight.*run `shortlist refresh`",
    ):
        OnlineReader(settings)
    store.registry.delete_feature_service("request_v7", store.project)
    _opened.clear()
    with pytest.raises(FeatureStoreError, match=r"service request_v7 is not in the registry"):
        OnlineReader(settings)


def test_feast_says_no_to_unknown_features_and_nothing_of_unknown_users(home: Settings) -> None:
    """Feast refuses unknown features, and returns null values for unknown users."""
    store = open_store(home)
    with pytest.raises(Exception, match="user_shoe_size"):
        store.get_online_features(["user_stats:user_shoe_size"], [{"user_id": "u1"}])
    unknown = store.get_online_features(["user_stats:user_events"], [{"user_id": "nobody"}])
    assert unknown.to_dict() == {"user_id": ["nobody"], "user_events": [None]}


def test_missing_snapshots_are_said(make_home: MakeHome) -> None:
    import pandas as pd

    settings, _ = make_home()
    shutil.rmtree(settings.features / "user_stats")
    requests = pd.DataFrame(
        {"user_id": ["u1"], "event_timestamp": [pd.Timestamp(UNTIL, unit="us", tz="UTC")]}
    )
    job = open_store(settings).get_historical_features(requests, ["user_stats:user_events"])
    with pytest.raises(FeatureStoreError, match=r"user_stats: no snapshots there; run"):
        job.to_arrow()
