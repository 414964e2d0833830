"""Profiles of people without events, and builds that fail or have nothing to build."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.contracts import TIMESTAMP, USERS
from shortlist.feature_store.push import FeatureEvent
from shortlist.feature_store.states import build_states
from shortlist.feature_store.store import FeatureStoreError
from tests.shortlist.test_feature_states import END, START, snapshots, table


def test_a_profile_is_there_before_the_first_event(tmp_path: Path) -> None:
    pq.write_table(table([FeatureEvent("u", "a", START + 9)]), tmp_path / "events.parquet")
    people = pa.table(
        {
            "user_id": ["u", "new", "nobody"],
            "attributes": pa.array(
                [[("sex", "F")], [("a", 'quote " and ünïcode')], None], USERS.field(1).type
            ),
            "created_at": pa.array([None, START, None], pa.int64()).cast(TIMESTAMP),
        }
    ).cast(USERS)
    build_states(
        [tmp_path / "events.parquet"],
        people,
        folder=tmp_path / "features",
        target_events=["rating"],
        until=END,
    )
    rows = pq.read_table(tmp_path / "features" / "user_profile")
    stamps = rows.column("event_timestamp").cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    assert dict(zip(rows.column("user_id").to_pylist(), stamps, strict=True)) == {
        "u": START + 9,
        "new": START,
        "nobody": 0,
    }
    texts = rows.sort_by("user_id").column("attributes_json").to_pylist()
    assert texts == ['{"a":"quote \\" and ünïcode"}', "{}", '{"sex":"F"}']


def test_a_failed_build_leaves_the_old_snapshots(tmp_path: Path) -> None:
    snapshots([FeatureEvent("u", "a", START)], tmp_path)
    part = tmp_path / "features" / "user_stats" / "000000.parquet"
    before = part.read_bytes()
    with pytest.raises(FeatureStoreError, match=r"no event of type like before"):
        build_states(
            [tmp_path / "events.parquet"],
            USERS.empty_table(),
            folder=tmp_path / "features",
            target_events=["like"],
            until=END,
        )
    assert part.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.parquet", "features"]


def test_an_empty_lake_is_said(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match="shortlist ingest"):
        build_states(
            [], USERS.empty_table(), folder=tmp_path / "f", target_events=["rating"], until=END
        )
