"""Feature packs (item features): vocabulary order, refusal of other schemas, the pointer file."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.contracts import ITEMS
from shortlist.feature_store import (
    FeatureStoreError,
    current_pack_id,
    latest_pack,
    open_store,
    publish_pack,
    served_items,
)
from shortlist.feature_store.packs import KEPT_PACKS, KEPT_SECONDS, prune
from shortlist.features.event_groups import NUM_GROUPS, empty_group_state
from shortlist.features.finalize import (
    DAY_BUCKETS,
    ITEM_FEATURES,
    ITEM_STATE,
    PACK_STATE,
    schema_hash,
)
from shortlist.features.pack import FeaturePack, PackError
from shortlist.vocab import Vocab


def pack(*, as_of: int = 10_000 * DAY) -> FeaturePack:
    state = {
        name: np.arange(1, 4, dtype=np.int64 if name.endswith("_time") else np.float64)
        for name in ITEM_STATE
        if name != "item_day_counts"
    }
    state["item_day_counts"] = np.arange(3 * DAY_BUCKETS).reshape(3, DAY_BUCKETS)
    state |= empty_group_state("item", 3)
    state["item_group_counts"] += np.arange(NUM_GROUPS)
    return FeaturePack(as_of=as_of, item_ids=["c", "a", "x"], state=state, schema=schema_hash())


def test_states_follow_the_vocabulary_and_unknown_items_are_zero() -> None:
    items = pack().align(Vocab(["a", "b", "c"]))
    assert items.state["item_events"].tolist() == [0, 2, 0, 1]
    assert items.state["item_day_counts"][3].tolist() == list(range(DAY_BUCKETS))
    assert items.state["item_day_counts"][[0, 2]].sum() == 0
    assert items.state["item_last_time"].tolist() == [0, 2, 0, 1]


def test_features_of_all_items_are_those_of_each() -> None:
    items = pack().align(Vocab(["a", "b", "c"]))
    published_at = np.array([0, 0, -DAY, 5])
    asked = np.array([[3, 0], [3, 1]])
    some = items.features(asked, published_at=published_at)
    whole = items.with_matrix(published_at)
    assert some.shape == (2, 2, len(ITEM_FEATURES))
    np.testing.assert_array_equal(whole.features(asked, published_at=published_at), some)
    np.testing.assert_array_equal(
        whole.first(1).features(np.array([1]), published_at=published_at), some[1, 1:]
    )


def test_another_schema_is_refused() -> None:
    other = dataclasses.replace(pack(), schema="0123456789abcdef")
    with pytest.raises(PackError, match=r"0123456789abcdef.*run `shortlist upgrade CONFIG`"):
        other.align(Vocab(["a"]))


def test_a_file_of_another_schema_is_refused_even_if_it_lacks_states(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pack().save(path)
    old = pq.read_table(path).drop(["item_group_counts"])
    about = {b"shortlist": b'{"as_of": 0, "schema": "0123456789abcdef"}'}
    pq.write_table(old.replace_schema_metadata(about), path)
    with pytest.raises(
        PackError, match=r"pack old: .*0123456789abcdef.*run `shortlist upgrade CONFIG`"
    ):
        FeaturePack.load(path)


def test_the_pointer_moves_to_the_newest_published(tmp_path: Path) -> None:
    publish_pack(pack(as_of=2 * DAY), tmp_path)
    published = pack(as_of=DAY)  # published last, so it is current although its data are older
    publish_pack(published, tmp_path)
    assert current_pack_id(tmp_path) == published.pack_id
    loaded = latest_pack(tmp_path)
    assert (loaded.as_of, loaded.item_ids, loaded.schema) == (DAY, ["c", "a", "x"], schema_hash())
    for name in PACK_STATE:
        np.testing.assert_array_equal(loaded.state[name], published.state[name])


def test_old_packs_go_and_a_catalogue_that_stays_is_one_file(tmp_path: Path) -> None:
    """Old packs are removed, and packs with the same catalogue share its file."""
    settings = Settings(home=tmp_path)
    items = [catalogue("A"), *[catalogue("B")] * 7]
    packs = [dataclasses.replace(pack(as_of=day * DAY), items=one) for day, one in enumerate(items)]
    ids = [one.pack_id for one in packs]
    for one in packs:
        publish_pack(one, settings.packs)
    states = [name for name in ids if (settings.packs / f"{name}.parquet").is_file()]
    assert states == ids[-KEPT_PACKS:]
    published = served_items(settings, ids)
    assert [published[name].column("title").to_pylist() for name in ids] == [["A"], *[["B"]] * 7]
    files = [(settings.packs / f"{name}.items.parquet").stat().st_ino for name in ids]
    assert len(set(files)) == 2
    later = time.time() + KEPT_SECONDS + 60
    prune(settings.packs, ids[-1], now=later)
    assert list(served_items(settings, ids)) == ids[-KEPT_PACKS:]
    assert latest_pack(settings.packs).pack_id == ids[-1]


def catalogue(title: str) -> pa.Table:
    row = {"item_id": "a", "title": title, "categories": [], "available": True}
    return pa.Table.from_pylist([row], schema=ITEMS)


def test_late_events_of_a_tick_give_it_a_new_id() -> None:
    """A pack with the same `as_of` but other events has another id, so that services load it."""
    state = {name: values.copy() for name, values in pack().state.items()}
    assert (
        FeaturePack(pack().as_of, ["c", "a", "x"], state, schema_hash()).pack_id == pack().pack_id
    )
    state["item_events"][1] += 1
    late = FeaturePack(pack().as_of, ["c", "a", "x"], state, schema_hash())
    assert late.pack_id != pack().pack_id


def test_a_missing_pack_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="run `shortlist refresh`"):
        latest_pack(tmp_path)
    (tmp_path / "current.json").write_text("{")
    with pytest.raises(PackError, match="not a pack pointer"):
        latest_pack(tmp_path)


def test_a_missing_store_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match="run `shortlist refresh`"):
        open_store(Settings(home=tmp_path))
