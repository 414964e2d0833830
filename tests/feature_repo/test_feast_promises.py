"""Shortcomings of Feast, each next to the behaviour of this package.

If a test fails because Feast was fixed, the workaround can be removed.
"""

import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.errors import SpecifiedFeaturesNotPresentError
from feast.types import Int64

from benchmarks.feast_stores.redis_server import running_redis
from benchmarks.feast_stores.repository import OWN, STOCK, quiet, store_of
from flows.featurize import featurize
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.columns import MICROSECONDS_PER_HOUR as HOUR
from shortlist.config import Settings
from shortlist.feature_store import FeatureEvent, FeatureStoreError, OfflineReader, open_store
from shortlist.feature_store.store import check_ttl
from tests.feature_repo.streams import CODES, START, TARGETS, publish

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
DASK = STOCK | {"offline_store": {"type": "dask"}}


def write_row(path: Path, *, unit: str = "us", at: datetime = NOW, **columns: Any) -> None:
    """Write a row of user u0 with x = 1 and the stamp an hour before `at`."""
    row = {
        "user_id": ["u0"],
        "event_timestamp": pa.array([at - timedelta(hours=1)], pa.timestamp(unit, tz="UTC")),
        "x": [1],
    }
    pq.write_table(pa.table(row | columns), path)


def make_store(folder: Path, stores: dict[str, Any], **options: Any) -> Any:
    rows = folder.parent / "rows.parquet"
    return store_of(folder, rows, schema={"x": Int64}, stores=stores, view="one", **options)


def joined(store: Any, moments: list[datetime], **options: Any) -> list[Any]:
    requests = pd.DataFrame(
        {"user_id": "u0", "event_timestamp": pd.Series(moments).astype("datetime64[us, UTC]")}
    )
    return store.get_historical_features(requests, ["one:x"], **options).to_df()["x"].tolist()


def test_requests_of_equal_time_are_kept(tmp_path: Path) -> None:
    write_row(tmp_path / "rows.parquet")
    twice = [NOW, NOW, NOW, NOW + timedelta(seconds=1)]
    assert joined(make_store(tmp_path / "own", OWN), twice) == [1] * 4
    # Feast's default offline store drops requests of equal user and time.
    assert joined(make_store(tmp_path / "dask", DASK), twice) == [1] * 2


def test_what_was_not_known_yet_is_not_joined(tmp_path: Path) -> None:
    late = pa.array([NOW + timedelta(hours=1)], pa.timestamp("us", tz="UTC"))
    write_row(tmp_path / "rows.parquet", created_at=late)
    for tag, stores in (("duckdb", STOCK), ("dask", DASK)):
        store = make_store(tmp_path / tag, stores, created="created_at")
        # Feast uses the creation time only to break ties, so it joins rows created in the future.
        assert joined(store, [NOW]) == [1]

    # In Shortlist, the stamp is the time at which an event is known: here two hours late.
    settings = Settings(home=tmp_path / "home")
    rated = [FeatureEvent("u0", item, START + HOUR, 4.0, type_code=CODES[0]) for item in "ab"]
    publish(settings, "day", [(rated[0], START + HOUR), (rated[1], START + 3 * HOUR)])
    featurize(settings, TARGETS, until=START + DAY)
    at = START + np.array([2, 3, 4]) * HOUR
    rows = OfflineReader(settings).read(["u0"] * 3, [""] * 3, at)
    assert rows.history_items == [["a"], ["a", "b"], ["a", "b"]]
    assert rows.user["user_events"].tolist() == [1, 2, 2]


def test_nanoseconds_are_read(tmp_path: Path) -> None:
    write_row(tmp_path / "rows.parquet", unit="ns")
    own, stock = make_store(tmp_path / "own", OWN), make_store(tmp_path / "stock", STOCK)
    with quiet():
        own.materialize(NOW - timedelta(days=1), NOW)
    assert own.get_online_features(["one:x"], [{"user_id": "u0"}]).to_dict()["x"] == [1]
    with quiet(), pytest.raises(Exception, match="TIMESTAMPTZ_NS"):
        stock.materialize(NOW - timedelta(days=1), NOW)


def test_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    write_row(tmp_path / "rows.parquet")
    modes = {}
    for tag, stores in (("own", OWN), ("stock", STOCK)):
        store = make_store(tmp_path / tag, stores)
        with quiet():
            store.materialize(NOW - timedelta(days=1), NOW)
        with sqlite3.connect(tmp_path / tag / "online.db") as connection:
            (modes[tag],) = connection.execute("PRAGMA journal_mode").fetchone()
    assert modes == {"own": "wal", "stock": "delete"}


def test_a_described_field_of_an_on_demand_view_is_refused(home: Settings) -> None:
    view = open_store(home).get_on_demand_feature_view("request_time")
    view.infer_features()
    view.features[0].description = "hour of the day"
    with pytest.raises(SpecifiedFeaturesNotPresentError, match="hour_sin"):
        view.infer_features()
    assert view.description  # the view's description describes its fields instead


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")
def test_feasts_redis_serves_what_has_expired_so_a_ttl_is_refused_there(tmp_path: Path) -> None:
    write_row(tmp_path / "rows.parquet", at=NOW - timedelta(days=2))
    with running_redis(tmp_path / "redis") as address:
        redis = OWN | {"online_store": {"type": "redis", "connection_string": address}}
        store = make_store(tmp_path / "store", redis, ttl=timedelta(days=1))
        with quiet():
            store.materialize(NOW - timedelta(days=9), NOW)
        found = store.get_online_features(["one:x"], [{"user_id": "u0"}]).to_dict()["x"]
    assert (found, np.isnan(joined(store, [NOW]))) == ([1], [True])
    view = store.get_feature_view("one")
    check_ttl(Settings(online_store="sqlite"), [view])
    with pytest.raises(FeatureStoreError, match="view one has a TTL, which Feast ignores in Redis"):
        check_ttl(Settings(online_store=f"redis://{address}/0"), [view])
