"""A published pack is swapped in once; what cannot be used leaves the old one serving."""

import dataclasses
import json
import time

import numpy as np
import pytest

from services import pack_watch
from services.pack_watch import PackWatch
from shortlist.event_kinds import no_kinds
from shortlist.feature_store import publish_pack
from shortlist.features import DAY_BUCKETS, ITEM_STATE, schema_hash
from shortlist.pack import FeaturePack


def pack(*, events: int, as_of: int = 86_400_000_000) -> FeaturePack:
    state = {name: np.full(2, float(events)) for name in ITEM_STATE}
    state["item_day_counts"] = np.full((2, DAY_BUCKETS), events)
    state |= no_kinds("item", 2)
    return FeaturePack(as_of=as_of, item_ids=["i1", "i2"], state=state, schema=schema_hash())


@pytest.fixture
def swapped() -> list[FeaturePack]:
    return []


@pytest.fixture
def watch(tmp_path, swapped) -> PackWatch:
    publish_pack(pack(events=1), tmp_path)
    return PackWatch(tmp_path, swapped.append)


def test_nothing_new_swaps_nothing(watch, swapped):
    assert not watch.check()
    assert swapped == []


def test_other_states_of_the_same_tick_are_swapped_in(watch, swapped, tmp_path):
    """A tick featurized again with late events is another pack."""
    publish_pack(pack(events=5), tmp_path)
    assert watch.check()
    assert not watch.check()
    assert [p.state["item_events"][0] for p in swapped] == [5]
    assert swapped[0].pack_id != pack(events=1).pack_id


def test_a_broken_pack_is_logged_once_and_the_next_good_one_serves(
    watch, swapped, tmp_path, caplog
):
    pointer = tmp_path / "current.json"
    pointer.write_text(json.dumps({"pack_id": "gone"}))
    assert not watch.check()
    assert not watch.check()
    assert caplog.text.count("cannot be used") == 1
    publish_pack(pack(events=7, as_of=2 * 86_400_000_000), tmp_path)
    assert watch.check()
    assert [p.state["item_events"][0] for p in swapped] == [7]


def test_a_pack_that_the_recommender_refuses_does_not_count_as_seen(tmp_path):
    publish_pack(pack(events=1), tmp_path)
    served = pack(events=1).schema

    def swap(new: FeaturePack) -> None:
        if new.schema != served:
            raise ValueError("another schema")

    watch = PackWatch(tmp_path, swap)
    publish_pack(dataclasses.replace(pack(events=2), schema="other"), tmp_path)
    assert not watch.check()
    publish_pack(pack(events=3), tmp_path)
    assert watch.check()


def test_the_thread_finds_it_by_itself(watch, swapped, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_watch, "CHECK_SECONDS", 0.02)
    watch.start()
    publish_pack(pack(events=9), tmp_path)
    deadline = time.monotonic() + 10
    while not swapped and time.monotonic() < deadline:
        time.sleep(0.02)
    watch.stop()
    assert len(swapped) == 1
