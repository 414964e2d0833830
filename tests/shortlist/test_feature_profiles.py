"""Profiles of users without events, and state builds that fail or have no events."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.contracts import TIMESTAMP, USERS
from shortlist.feature_store.online.user_state import FeatureEvent
from shortlist.feature_store.states.build import build_states
from shortlist.feature_store.store import FeatureStoreError
from tests.shortlist.states import END, START, snapshots, table


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


def test_what_somebody_was_before_is_kept_where_all_is_built_anew(tmp_path: Path) -> None:
    """A full rebuild keeps earlier attributes of a user, for training rows of earlier days.

    The lake stores only the newest attributes, so the earlier ones come from the old state files.
    """
    pq.write_table(table([FeatureEvent("u", "a", START + 9)]), tmp_path / "events.parquet")

    def build(folder: str, plan: str, *, days: int, **options: Any) -> list[tuple[int, str]]:
        people = pa.table(
            {
                "user_id": ["u", *(["new"] if days > 1 else [])],
                "attributes": pa.array(
                    [[("plan", plan)], *([None] if days > 1 else [])], USERS.field(1).type
                ),
                "created_at": pa.array([None] * (2 if days > 1 else 1), TIMESTAMP),
            }
        ).cast(USERS)
        build_states(
            [tmp_path / "events.parquet"],
            people,
            folder=tmp_path / folder,
            target_events=["rating"],
            until=START + days * DAY,
            **options,
        )
        rows = pq.read_table(tmp_path / folder / "user_profile").sort_by("event_timestamp")
        stamps = rows.column("event_timestamp").cast(pa.timestamp("us")).cast(pa.int64())
        lines = zip(rows.column("user_id"), stamps, rows.column("attributes_json"), strict=True)
        return [(t.as_py(), json.as_py()) for user, t, json in lines if user.as_py() == "u"]

    free, paid = (START + 9, '{"plan":"free"}'), (START + 11 * DAY, '{"plan":"paid"}')
    assert build("features", "free", days=1) == [free]
    assert build("features", "paid", days=11) == [free, paid]
    assert build("features", "paid", days=12, anew=True) == [free, paid]
    elsewhere = build("mirror", "paid", days=13, anew=True, profiles=tmp_path / "features")
    assert elsewhere == [free, paid]
    gold = (START + 14 * DAY, '{"plan":"gold"}')
    assert build("features", "gold", days=14, anew=True) == [free, paid, gold]
    assert build("nothing before", "gold", days=14) == [(START + 9, '{"plan":"gold"}')]


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
    """Building states from a lake without events raises an error that says so."""
    with pytest.raises(FeatureStoreError, match="shortlist ingest"):
        build_states(
            [], USERS.empty_table(), folder=tmp_path / "f", target_events=["rating"], until=END
        )
