"""Unavailable items are never shown, with any source, filter or endpoint."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from models import registry
from models.queries import Source
from models.recommend.hydrate import empty_rows
from models.recommend.recommender import Recommender
from models.training import TrainingOptions
from shortlist import columns as c
from shortlist.contracts import TIMESTAMP
from shortlist.features.profiles import ProfileEncoder
from shortlist.http.api import Filters, RecommendRequest, SimilarRequest
from tests.models.recommenders import AT, pack_of, recommender_of, with_new
from tests.models.source_configs import small_config

HISTORY = ["i002", "i004", "i006"]
KINDS = tuple(registry.SOURCES)
FILTERS = {
    "none": {},
    "categories": {"filters": Filters(categories=["even", "new"])},
    "exclude_categories": {"filters": Filters(exclude_categories=["odd"])},
    "max_price": {"filters": Filters(max_price=30)},
    "published_after": {"filters": Filters(published_after=AT - 20 * 86_400_000_000)},
    "exclude": {"exclude": ["i008", "i010", "new-1"]},
}
WHO = {
    "a user": {"user_id": "u1"},
    "recent items": {"recent_items": HISTORY},
    "both": {"user_id": "u1", "recent_items": ["i008", "new-2"]},
    "nobody": {"user_id": "stranger"},
}


class OneKnown:
    """A feature reader that knows only one user, who has a history."""

    def read(self, user_ids, context_ids, at):
        rows = empty_rows(user_ids, context_ids, at)
        for row, user_id in enumerate(user_ids):
            if user_id == "u1":
                rows.history_items[row] = HISTORY
                rows.history_times[row] = AT - np.array([3, 2, 1])
                rows.history_values[row] = np.full(3, 4.0)
                rows.history_types[row] = np.zeros(3, dtype=np.int64)
        return rows


@pytest.fixture(scope="module")
def fitted(checkerboard, tmp_path_factory) -> dict[str, Source]:
    data, validation = checkerboard
    options = TrainingOptions(num_threads=1, cache=tmp_path_factory.mktemp("cache"), epochs=2)
    return {kind: registry.fit(small_config(kind), data, validation, options) for kind in KINDS}


@pytest.fixture(scope="module")
def items(checkerboard) -> pa.Table:
    """The catalogue with prices and dates, and three items that are new to the models."""
    old = checkerboard[0].catalogue.items
    new = [
        {"item_id": f"new-{i}", "title": f"even number {i}", "categories": ["even", "new"]}
        for i in range(3)
    ]
    rows = with_new(old, *new).to_pylist()
    for number, row in enumerate(rows):
        stamp = AT - (number % 30) * 86_400_000_000
        row |= {"price": float(number), "published_at": pa.scalar(stamp, TIMESTAMP).as_py()}
    return pa.Table.from_pylist(rows, schema=with_new(old, *new).schema)


def without(items: pa.Table, gone: set[str]) -> pa.Table:
    rows = items.to_pylist()
    for row in rows:
        row[c.AVAILABLE] = row[c.ITEM_ID] not in gone
    return pa.Table.from_pylist(rows, schema=items.schema)


def halves(shown: list[str]) -> Iterator[set[str]]:
    assert shown
    yield set(shown[::2])
    yield set(shown[1::2])
    yield set(shown)


def serving(checkerboard, fitted, items: pa.Table, *names: str) -> Recommender:
    models = (checkerboard[0].catalogue, fitted)
    profiles = ProfileEncoder(("group",), (("one",),))
    recommender = recommender_of(models, *names, items=items, profiles=profiles)
    recommender.reader = OneKnown()
    return recommender


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("kind", KINDS)
def test_no_source_and_no_filter_shows_it(checkerboard, fitted, items, kind, who):
    recommender = serving(checkerboard, fitted, items, kind)
    for name, asked in FILTERS.items():
        request = RecommendRequest.model_validate(WHO[who] | asked | {"k": 100})

        def shown(request=request) -> list[str]:
            return [item.item_id for item in recommender.recommend(request, at=AT).items]

        recommender.swap_pack(pack_of(items))
        before = shown()
        found = {s for item in recommender.recommend(request, at=AT).items for s in item.sources}
        if name == "none" and who != "nobody":  # some sources need a history
            assert kind in found
        assert "new" in found  # the source of new items is part of every chain
        for gone in halves(before):
            recommender.swap_pack(pack_of(without(items, gone)))
            after = shown()
            assert not gone & set(after), (kind, who, name)
            assert set(before) - gone <= set(after)


@pytest.mark.parametrize("kind", ["item_knn", "content", "two_tower"])
@pytest.mark.parametrize("item_id", ["i002", "new-1"])
def test_unavailable_items_are_no_similar_items(checkerboard, fitted, items, kind, item_id):
    names = (kind,) if kind == "content" else (kind, "content")
    recommender = serving(checkerboard, fitted, items, *names)
    for asked in FILTERS.values():
        request = SimilarRequest.model_validate({"item_id": item_id, "k": 100} | asked)

        def similar(request=request) -> list[str]:
            return [item.item_id for item in recommender.similar(request, at=AT)]

        recommender.swap_pack(pack_of(items))
        before = similar()
        for gone in halves(before):
            recommender.swap_pack(pack_of(without(items, gone)))
            assert not gone & set(similar())


def test_everything_off_the_shelf_gives_empty_lists(checkerboard, fitted, items):
    recommender = serving(checkerboard, fitted, items, "item_knn", "content", "popularity")
    everything = set(items.column(c.ITEM_ID).to_pylist())
    recommender.swap_pack(pack_of(without(items, everything)))
    for who in WHO.values():
        request = RecommendRequest.model_validate(who | {"k": 100})
        assert recommender.recommend(request, at=AT).items == []
    assert recommender.similar(SimilarRequest(item_id="i002", k=100), at=AT) == []
