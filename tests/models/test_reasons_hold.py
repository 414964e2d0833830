"""The reasons in many lists are true, checked against the events that they refer to."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from models import registry
from models.queries import OncePerBatch
from models.recommend.hydrate import empty_rows
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.contracts import EVENT_CODE
from shortlist.features.finalize import schema_hash
from shortlist.features.pack import FeaturePack
from shortlist.features.profiles import ProfileEncoder
from shortlist.http.api import RecommendRequest
from tests.models.conftest import state_at
from tests.models.recommenders import recommender_of
from tests.models.small_data import DAY
from tests.models.source_configs import small_config

KINDS = (
    *("popularity", "recent_popularity", "item_knn", "ease", "ials"),
    *("two_tower", "content", "sasrec", "average"),
)
BOUGHT = EVENT_CODE["purchase"]


class World:
    """The events of `small_world` before a time, and the statistics that reasons refer to."""

    def __init__(self, data, at: int):
        before = data.time < at
        user = np.repeat(np.arange(data.num_users), np.diff(data.offsets))
        self.item, self.time, self.user = data.item_idx[before], data.time[before], user[before]
        self.catalogue, self.at = data.catalogue, at
        self.ids = self.catalogue.vocab.ids
        order = np.argsort(self.time, kind="stable")
        users = np.unique(self.user)
        self.of_user = {u: self.item[order][self.user[order] == u] for u in users}
        self.times_of_user = {u: self.time[order][self.user[order] == u] for u in users}
        self.users_of = {
            self.ids[i - 1]: set(self.user[self.item == i].tolist())
            for i in range(1, len(self.ids) + 1)
        }
        self.title = dict(zip(self.ids, self.catalogue.titles[1:], strict=True))
        self.categories = dict(zip(self.ids, self.catalogue.category_lists[1:], strict=True))

    def read(self, user_ids, context_ids, at):
        rows = empty_rows(user_ids, context_ids, at)
        for row, name in enumerate(user_ids):
            none, user = np.empty(0, dtype=np.int64), int(name[1:] or -1)
            items = self.of_user.get(user, none)
            rows.history_items[row] = [self.ids[i - 1] for i in items]
            rows.history_times[row] = self.times_of_user.get(user, none)
            rows.history_values[row] = np.full(len(items), np.nan)
            rows.history_types[row] = np.full(len(items), BOUGHT)
        return rows

    def most(self, since: int) -> Counter:
        return Counter(self.ids[i - 1] for i in self.item[self.time >= since])

    def is_among_most(self, item_id: str, since: int) -> bool:
        counts = self.most(since)
        ahead = sum(n > counts[item_id] for n in counts.values())
        average = sum(counts.values()) / len(self.ids)
        return ahead < max(10, len(self.ids) // 10) and counts[item_id] > average


@pytest.fixture(scope="module")
def served(small_world, tmp_path_factory) -> tuple[World, Recommender]:
    data, validation = small_world
    at = int(data.time.max()) // DAY * DAY
    world = World(data, at)
    options = TrainingOptions(num_threads=1, cache=tmp_path_factory.mktemp("cache"), epochs=2)
    fitted = {kind: registry.fit(small_config(kind), data, validation, options) for kind in KINDS}
    order = np.argsort(world.time, kind="stable")
    rated = np.ones(len(order))
    items = len(world.ids)
    state = state_at(world.item[order], world.time[order], rated, at, items).state
    profiles = ProfileEncoder(("group",), (("comedy", "drama", "science", "war"),))
    recommender = recommender_of(
        (data.catalogue, fitted), *KINDS, profiles=profiles, items=data.catalogue.items
    )
    recommender.about["target_events"] = ["purchase"]
    recommender.reader = world
    new = {"item_id": "brand-new", "title": "comedy tomorrow", "categories": ["comedy"]}
    table = pa.concat_tables(
        [
            data.catalogue.items,
            pa.Table.from_pylist([new | {"available": True}], schema=data.catalogue.items.schema),
        ]
    )
    pack = FeaturePack(
        as_of=at,
        item_ids=world.ids,
        state={name: values[1:] for name, values in state.items()},
        schema=schema_hash(),
        items=table,
    )
    recommender.swap_pack(pack)
    return world, recommender


def holds(world: World, recommender: Recommender, user: int, item, reason: str) -> bool:
    """Return whether a reason is true, by the events and without the code under test."""
    own = [world.ids[i - 1] for i in world.of_user.get(user, [])]
    named = {world.title[one]: one for one in own}
    categories = world.categories | {"brand-new": ["comedy"]}
    if item.item_id == "brand-new":  # it has no events
        assert not re.search("chosen|because|people|expected", reason)
    if re.search(r"you .*\blately", reason):
        return world.times_of_user[user][-1] >= world.at - 7 * DAY
    # Popularity counts events, not users, so no reason may speak of people.
    assert not re.search("popular|everybody", reason)
    if reason == "chosen often lately":
        return world.is_among_most(item.item_id, world.at - 7 * DAY)
    if reason == "chosen often":
        return world.is_among_most(item.item_id, 0)
    if reason == "new in the catalogue":
        return item.item_id not in world.title
    if reason == "a first suggestion":
        return not own
    if reason == "fits your taste":
        return bool(own)
    if found := re.fullmatch(r"because you bought '(.*)'", reason):
        other = named[found[1]]
        return bool((world.users_of[item.item_id] & world.users_of[other]) - {user})
    if found := re.fullmatch(r"like what you bought last: (.*)", reason):
        recent = Counter(name for one in own[-10:] for name in world.categories[one])
        return all(
            recent[name] >= 0.4 * len(own[-10:]) and name in categories[item.item_id]
            for name in found[1].split(", ")
        )
    if reason == "people who bought the same as you bought it too":
        others = set().union(*(world.users_of[one] for one in own))
        return bool((world.users_of[item.item_id] & others) - {user})
    if found := re.fullmatch(r"described like '(.*)'", reason):
        known, new = recommender.chain.sources["content"].item_vectors, recommender.chain.new
        vectors = np.concatenate([known, new.vectors])
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        alike = unit[1:] @ unit[world.catalogue.vocab.idx(named[found[1]])]
        mine = alike[recommender.catalogue.vocab.idx(item.item_id) - 1]
        return (alike > mine).mean() <= 0.12 and named[found[1]] in own[-10:]
    if reason == "expected next after what you bought last":
        return {"sasrec", "average"} & set(item.sources) != set() and bool(own)
    if reason == "more from the catalogue":
        return item.sources == ["fill"]
    raise AssertionError(f"a sentence that nobody can check: {reason}")


def test_every_reason_in_many_lists_is_true(served):
    world, recommender = served
    said: Counter[str] = Counter()
    for user in [*world.of_user, 10_000]:
        request = RecommendRequest(user_id=f"u{user}", k=60)
        for item in recommender.recommend(request, at=world.at).items:
            assert holds(world, recommender, user, item, item.reason), (user, item)
            said[re.sub("'.*'|: .*", "", item.reason)] += 1
    assert said.total() > 2_000
    assert {
        "chosen often lately",
        "because you bought ",
        "like what you bought last",
        "new in the catalogue",
        "a first suggestion",
    } <= set(said)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reason_beside_one_source_is_true(served, kind):
    world, recommender = served
    alone = recommender.view
    chain = alone.chain
    config = chain.config.model_copy(update={"candidate_sources": (kind,)})
    chain.config, before = config, chain.config
    chain._known_queries = OncePerBatch(lambda queries: queries.known(chain.num_known))
    try:
        for user in [*list(world.of_user)[:40], 10_000]:
            request = RecommendRequest(user_id=f"u{user}", k=60)
            for item in recommender.recommend(request, at=world.at).items:
                assert holds(world, recommender, user, item, item.reason), (user, item)
    finally:
        chain.config = before


def test_one_single_user_is_told_nothing_about_everybody(served):
    """If all events are of one user, no other item is called popular."""
    world, recommender = served
    user = next(iter(world.of_user))
    n = len(world.ids) + 1
    counts = np.bincount(world.of_user[user], minlength=n)
    state = {name: np.zeros_like(values) for name, values in recommender.view.items.state.items()}
    state["item_events"][:n] = counts
    state["item_day_counts"][:n, -1] = counts
    items = recommender.view.items.__class__(pack_id="one", as_of=world.at, state=state)
    explainer = recommender.view.explainer.with_items(items)
    history = world.of_user[user]
    rest = np.setdiff1d(np.arange(1, n), history)
    for source in ("recent_popularity", "popularity"):
        said = explainer.reasons(
            history, np.full(len(history), BOUGHT), rest.tolist(), [source] * len(rest)
        )
        assert not [one for one in said if "chosen" in one]
    assert c.ITEM_ID in world.catalogue.items.column_names
