"""Prices, availability and new items come from the pack (item features), not from the release."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from models.content.fusion import ContentConfig
from models.recommend.recommender import Recommender
from models.training import OptimiserConfig
from shortlist import columns as c
from shortlist.contracts import TIMESTAMP
from shortlist.features.pack import FeaturePack
from shortlist.http.api import Filters, RecommendRequest, SimilarRequest
from shortlist.items.catalogue import Catalogue
from tests.models.recommenders import AT, _table, fitted, pack_of, recommender_of, with_new

SOURCES = ("popularity", "recent_popularity", "item_knn", "ease", "content")


def changed(items: pa.Table, item_id: str, **values) -> pa.Table:
    rows = items.to_pylist()
    for row in rows:
        if row[c.ITEM_ID] == item_id:
            row.update(values)
    return pa.Table.from_pylist(rows, schema=items.schema)


@pytest.fixture(scope="module")
def models(checkerboard):
    data, validation = checkerboard
    content = ContentConfig(optimiser=OptimiserConfig(learning_rate=3e-3, num_epochs=3))
    return data.catalogue, fitted(SOURCES, data, validation, content=content)


def shown(recommender: Recommender, **request) -> list[str]:
    asked = RecommendRequest(**({"recent_items": ["i002", "i004", "i006"], "k": 50} | request))
    return [item.item_id for item in recommender.recommend(asked, at=AT).items]


@pytest.mark.parametrize("source", SOURCES)
def test_an_item_taken_off_the_shelf_disappears_with_the_next_pack(models, source):
    recommender = recommender_of(models, source)
    gone = shown(recommender)[0]
    recommender.swap_pack(pack_of(changed(models[0].items, gone, available=False)))
    assert gone not in shown(recommender)
    recommender.swap_pack(pack_of(models[0].items))
    assert shown(recommender)[0] == gone


def test_an_item_that_left_the_catalogue_is_not_shown_and_indices_stay(models):
    recommender = recommender_of(models, "item_knn")
    before = shown(recommender)
    items = models[0].items
    recommender.swap_pack(pack_of(items.filter(pa.compute.not_equal(items[c.ITEM_ID], before[0]))))
    assert shown(recommender) == before[1:]


def test_an_item_off_the_shelf_is_not_similar_either(models):
    recommender = recommender_of(models, "item_knn")

    def similar() -> list[str]:
        asked = SimilarRequest(item_id="i002", k=40)
        return [item.item_id for item in recommender.similar(asked, at=AT)]

    gone = similar()[0]
    recommender.swap_pack(pack_of(changed(models[0].items, gone, available=False)))
    assert gone not in similar()


def test_filters_read_the_prices_dates_and_categories_of_now(models):
    recommender = recommender_of(models, "popularity")
    stamp = pa.scalar(AT, TIMESTAMP).as_py()
    now = changed(
        models[0].items, "i010", price=5.0, published_at=stamp, categories=["odd", "brand new"]
    )
    for filters in (
        Filters(max_price=6),
        Filters(published_after=AT - 1),
        Filters(categories=["brand new"]),
    ):
        recommender.swap_pack(pack_of(models[0].items))
        assert shown(recommender, filters=filters) == []
        recommender.swap_pack(pack_of(now))
        assert shown(recommender, filters=filters) == ["i010"]


def test_categories_of_the_release_keep_their_columns():
    """New categories get new columns, so that columns of the release stay valid."""
    rows = [{"item_id": "b", "categories": ["m", "x"], "available": True}]
    release = Catalogue.from_items(_table(rows))
    now = release.with_current(with_new(release.items, {"item_id": "a", "categories": ["a", "x"]}))
    assert now.category_names == ["m", "x", "a"]
    assert now.vocab.ids == ["b", "a"]
    assert now.category_matrix.tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("source", SOURCES)
def test_a_new_item_is_shown_as_new_beside_every_source(models, source):
    items = with_new(models[0].items, {"item_id": "a-new", "title": "a thing"})
    recommender = recommender_of(models, source, items=items)
    found = {
        item.item_id: item
        for item in recommender.recommend(
            RecommendRequest(recent_items=["i002", "a-new"], k=50, explain=True), at=AT
        ).items
    }
    assert "a-new" not in found, "it is in the history"
    answer = recommender.recommend(RecommendRequest(recent_items=["i002"], k=50), at=AT)
    place = {item.item_id: item for item in answer.items}
    assert "new" in place["a-new"].sources
    recommender.swap_pack(pack_of(changed(items, "a-new", available=False)))
    assert "a-new" not in shown(recommender)


def test_newest_come_first_and_only_a_few_of_them(models):
    stamps = [pa.scalar(AT - day * c.MICROSECONDS_PER_DAY, TIMESTAMP).as_py() for day in range(15)]
    rows = [{"item_id": f"n{day:02d}", "published_at": t} for day, t in enumerate(stamps)]
    recommender = recommender_of(models, "item_knn", items=with_new(models[0].items, *rows))
    queries_new = recommender.chain.new
    assert queries_new is not None
    # Without the content source, only the source "new" retrieves them; at most ten are shown.
    bare = recommender_of(
        (models[0], {"item_knn": models[1]["item_knn"]}),
        "item_knn",
        items=with_new(models[0].items, *rows),
    )
    asked = RecommendRequest(recent_items=["i002", "i004", "i006"], k=50)
    items = bare.recommend(asked, at=AT).items
    got = [item.item_id for item in items if item.source == "new"]
    assert sorted(got) == [f"n{day:02d}" for day in range(10)]


def test_a_new_item_is_found_by_content_and_similar_works_for_it(models):
    rows = [
        {"item_id": "new-even", "title": "even number 31", "categories": ["even"]},
        {"item_id": "new-odd", "title": "odd number 32", "categories": ["odd"]},
    ]
    recommender = recommender_of(models, "content", items=with_new(models[0].items, *rows))
    like = recommender.similar(SimilarRequest(item_id="new-even", k=5), at=AT)
    kind = dict(zip(models[0].vocab.ids, models[0].category_lists[1:], strict=True))
    assert {item.source for item in like} == {"content"}
    assert all(kind[item.item_id] == ["even"] for item in like)
    from_old = recommender.similar(SimilarRequest(item_id=like[0].item_id, k=40), at=AT)
    assert "new-even" in [item.item_id for item in from_old]
    new = recommender.chain.new
    assert new is not None
    assert new.vectors is not None
    even = recommender.catalogue.vocab.idx("new-even")
    same = recommender.chain.sources["content"].item_vectors[  # an old item with similar text
        recommender.catalogue.vocab.idx(like[0].item_id)
    ]
    assert float(same @ new.vectors[even - new.num_known - 1]) > 0.8


def test_scores_of_sources_know_new_items_only_by_content(models):
    items = with_new(models[0].items, {"item_id": "new", "title": "even", "categories": ["even"]})
    recommender = recommender_of(models, "item_knn", "content", items=items)
    slate = recommender.recommend(RecommendRequest(recent_items=["i002"], k=50), at=AT)
    (place,) = [i for i, item in enumerate(slate.items) if item.item_id == "new"]
    assert "content" in slate.items[place].sources
    assert np.isfinite(slate.features[place]).all()


def test_a_pack_with_another_price_has_another_id_and_survives_its_file(models, tmp_path):
    items = models[0].items
    pack = pack_of(items)
    assert pack.pack_id == pack_of(items).pack_id
    assert pack.pack_id != pack_of(changed(items, "i001", price=9.0)).pack_id
    assert pack.pack_id != replace(pack, items=None).pack_id
    pack.save(tmp_path / "p.parquet")
    loaded = FeaturePack.load(tmp_path / "p.parquet")
    assert loaded.pack_id == pack.pack_id
    assert loaded.items is not None
    assert loaded.items.equals(items)
