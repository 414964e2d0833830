"""Promoted releases and published item features are swapped in; broken ones are refused."""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from services.release import hot_swap
from services.release.hot_swap import HotSwap
from services.release.serving import Serving
from shortlist.config import Settings
from shortlist.experiment import (
    Experiment,
    ExperimentConfig,
    experiment_file,
    write_experiment,
)
from shortlist.feature_store import publish_pack
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import DAY_BUCKETS, ITEM_STATE, schema_hash
from shortlist.features.pack import FeaturePack
from shortlist.home.switches import end_switch, switch_on
from shortlist.releases.release import Release, ReleaseError, ReleaseStore


def pack(*, events: int, as_of: int = 86_400_000_000) -> FeaturePack:
    state = {name: np.full(2, float(events)) for name in ITEM_STATE}
    state["item_day_counts"] = np.full((2, DAY_BUCKETS), events)
    state |= empty_group_state("item", 2)
    return FeaturePack(as_of=as_of, item_ids=["i1", "i2"], state=state, schema=schema_hash())


@dataclass
class Recommender:
    """Stand-in for the models that records the item features it gets."""

    release_id: str
    packs: list[FeaturePack] = field(default_factory=list)

    def swap_pack(self, new: FeaturePack) -> None:
        if new.schema != schema_hash():
            raise ValueError("another schema")
        self.packs.append(new)


def load(release: Release, first: FeaturePack) -> Serving:
    if "broken" in release.about:
        raise ValueError(f"cannot be loaded: {release.about['broken']}")
    return Serving(recommender=cast(Any, Recommender(release.release_id, [first])))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def publish(settings: Settings) -> Callable[..., str]:
    def publish(name: str, **about: Any) -> str:
        content = {"target_events": [name]} | about
        with ReleaseStore(settings.releases).publishing(content) as (folder, content):
            (folder / "weights.txt").write_text(name)
        return content["release_id"]

    return publish


@pytest.fixture
def promote(settings: Settings) -> Callable[[str], None]:
    return ReleaseStore(settings.releases).promote


def begun(settings: Settings, *, follow_releases: bool = True) -> HotSwap:
    swap = HotSwap(settings, load, follow_releases=follow_releases)
    swap.begin(ReleaseStore(settings.releases).open())
    return swap


@pytest.fixture
def swap(settings, publish, promote) -> HotSwap:
    publish_pack(pack(events=1), settings.packs)
    promote(publish("first"))
    return begun(settings)


def events(swap: HotSwap) -> list[float]:
    packs = cast(Recommender, swap.serving.recommender).packs
    return [float(given.state["item_events"][0]) for given in packs]


def test_nothing_new_swaps_nothing(swap):
    before = swap.serving
    assert not swap.check()
    assert swap.serving is before
    assert events(swap) == [1]


def test_a_promoted_release_replaces_everything_that_depends_on_it(swap, publish, promote):
    running, second = swap.serving, publish("second")
    assert not swap.check()  # published, but not promoted
    promote(second)
    assert swap.check()
    assert not swap.check()
    assert swap.serving.release_id == second
    assert running.release_id != second  # earlier requests finish with this object


def test_a_rollback_is_followed(swap, publish, promote, settings):
    first = swap.serving.release_id
    promote(publish("second"))
    swap.check()
    ReleaseStore(settings.releases).roll_back()
    assert swap.check()
    assert swap.serving.release_id == first


def test_other_states_of_the_same_tick_are_swapped_in(swap, settings):
    """Late events can change the pack of a tick; the changed pack is swapped in too."""
    publish_pack(pack(events=5), settings.packs)
    assert swap.check()
    assert not swap.check()
    assert events(swap) == [1, 5]


def test_a_release_and_item_features_published_together_are_served_together(
    swap, publish, promote, settings
):
    second = publish("second")
    publish_pack(pack(events=5), settings.packs)
    promote(second)
    assert swap.check()
    assert (swap.serving.release_id, events(swap)) == (second, [5])
    assert not swap.check()


def test_a_broken_pack_is_logged_once_and_the_next_good_one_serves(swap, settings, caplog):
    pointer = settings.packs / "current.json"
    pointer.write_text(json.dumps({"pack_id": "gone"}))
    assert not swap.check()
    assert not swap.check()
    assert caplog.text.count("cannot be used") == 1
    publish_pack(pack(events=7, as_of=2 * 86_400_000_000), settings.packs)
    assert swap.check()
    assert events(swap) == [1, 7]


def test_a_release_beside_a_broken_pack_starts_with_the_last_good_one(
    swap, publish, promote, settings
):
    publish_pack(dataclasses.replace(pack(events=2), schema="other"), settings.packs)
    promote(publish("second"))
    assert swap.check()
    assert events(swap) == [1]
    publish_pack(pack(events=3), settings.packs)
    assert swap.check()
    assert events(swap) == [1, 3]


def test_a_release_that_cannot_be_loaded_is_refused_once_and_the_old_one_stays(
    swap, publish, promote, caplog
):
    running, broken = swap.serving, publish("second", broken="another feature schema")
    promote(broken)
    assert not swap.check()
    assert not swap.check()
    assert swap.serving is running
    assert swap.refused is not None
    assert swap.refused.release_id == broken
    assert "cannot be loaded: another feature schema" in swap.refused.reason
    assert caplog.text.count("refused") == 1
    promote(publish("third"))
    assert swap.check()
    assert swap.refused is None


def test_a_release_that_was_changed_after_its_promotion_is_refused(
    swap, publish, promote, settings
):
    running, second = swap.serving, publish("second")
    promote(second)
    (settings.releases / second / "weights.txt").write_text("tampered")
    assert not swap.check()
    assert swap.serving is running
    assert swap.refused is not None
    assert "weights.txt has sha256" in swap.refused.reason


def test_a_rollback_to_what_is_served_clears_the_refusal(swap, publish, promote, settings):
    running = swap.serving
    promote(publish("second", broken="yes"))
    swap.check()
    ReleaseStore(settings.releases).roll_back()
    assert not swap.check()
    assert swap.serving is running
    assert swap.refused is None


def test_a_broken_pointer_is_refused_and_the_next_promotion_serves(
    swap, publish, promote, settings
):
    pointer = settings.releases / "current.json"
    good = pointer.read_text()
    pointer.unlink()
    pointer.write_text("{")
    assert not swap.check()
    assert swap.refused is not None
    assert "not a pointer to a release" in swap.refused.reason
    pointer.write_text(good)
    second = publish("second")
    promote(second)
    assert swap.check()
    assert swap.serving.release_id == second


def test_a_pinned_worker_follows_item_features_only(settings, publish, promote):
    publish_pack(pack(events=1), settings.packs)
    first = publish("first")
    promote(first)
    swap = begun(settings, follow_releases=False)
    promote(publish("second"))
    assert not swap.check()
    publish_pack(pack(events=2), settings.packs)
    assert swap.check()
    assert (swap.serving.release_id, events(swap)) == (first, [1, 2])


def test_a_first_release_that_was_changed_does_not_begin(settings, publish, promote):
    publish_pack(pack(events=1), settings.packs)
    first = publish("first")
    promote(first)
    (settings.releases / first / "weights.txt").write_text("tampered")
    with pytest.raises(ReleaseError, match=r"weights\.txt"):
        begun(settings)


def test_the_thread_finds_both_by_itself(swap, publish, promote, settings, monkeypatch):
    """The background thread swaps in a promoted release and a published pack."""
    monkeypatch.setattr(hot_swap, "CHECK_SECONDS", 0.02)
    swap.start()
    second = publish("second")
    promote(second)
    publish_pack(pack(events=9), settings.packs)
    deadline = time.monotonic() + 10
    while (swap.serving.release_id, events(swap)[-1]) != (second, 9):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    swap.stop()


def split(settings: Settings, challenger: str, name: str = "c") -> None:
    arms = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "release": challenger}]
    content = {"name": name, "champion": "old", "challenger": "new", "arm": arms}
    config = ExperimentConfig.model_validate(content)
    write_experiment(settings, Experiment(config=config, started=1, started_at="now"))


def arms_of(swap: HotSwap, users: range = range(400)) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for n in users:
        serving, arm = swap.serving_for(f"u{n}")
        found.setdefault(arm, set()).add(serving.release_id)
    return found


def test_a_canary_answers_its_users_with_its_release_and_item_features(swap, publish, settings):
    first, challenger = swap.serving.release_id, publish("challenger")
    assert arms_of(swap) == {"main": {first}}
    with pytest.raises(KeyError, match="no experiment runs"):
        swap.serving_for("u1", "new")
    split(settings, challenger)
    assert swap.check()
    assert not swap.check()
    assert arms_of(swap) == {"old": {first}, "new": {challenger}}
    assert [swap.serving_for("u7") for _ in range(3)] == [swap.serving_for("u7")] * 3
    assert swap.serving_for(None) == (swap.serving, "main"), "a visitor has no lasting id"
    assert swap.serving_for("u7", "new")[0].release_id == challenger
    with pytest.raises(KeyError, match="want one of old, new"):
        swap.serving_for("u7", "newer")
    publish_pack(pack(events=5), settings.packs)
    assert swap.check()
    packs = cast(Recommender, swap.serving_for("u7", "new")[0].recommender).packs
    assert packs[-1].state["item_events"][0] == 5
    experiment_file(settings).unlink()
    assert swap.check()
    assert arms_of(swap) == {"main": {first}}


def test_a_challenger_that_cannot_be_loaded_splits_nobody(swap, publish, settings):
    split(settings, publish("challenger", broken="no models"))
    assert not swap.check()
    assert swap.refused is not None
    assert "no models" in swap.refused.reason
    assert set(arms_of(swap)) == {"main"}
    experiment_file(settings).write_text("{")
    assert not swap.check()
    assert set(arms_of(swap)) == {"main"}


def test_sources_that_are_switched_off_are_told_at_each_check(settings, publish, promote):
    publish_pack(pack(events=1), settings.packs)
    promote(publish("first"))
    told: list[frozenset[str]] = []
    swap = HotSwap(settings, load, follow_releases=True, switch_off=told.append)
    swap.begin(ReleaseStore(settings.releases).open())
    switch_on(settings, "sources_off", "ease", reason="slow")
    swap.check()
    end_switch(settings, "sources_off", "ease")
    swap.check()
    assert told == [{"ease"}, frozenset()]
