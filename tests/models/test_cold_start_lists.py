"""Lists with new items, and lists of users with short histories, through the Recommender."""

from collections import Counter

import numpy as np
import pytest

from models.content.fusion import ContentConfig
from models.recommend.chain import ChainConfig
from models.recommend.cold_start.new_positions import NewItemsConfig
from models.training import OptimiserConfig
from shortlist.http.api import RecommendRequest
from tests.models.recommenders import AT, Clicks, fitted, recommender_of, with_new

SOURCES = ("item_knn", "recent_popularity", "content")
NEW = [
    {"item_id": f"new-{number}", "title": f"even number {number}", "categories": ["even"]}
    for number in range(40, 46)
]
EVERY = NewItemsConfig(share=0.5, first=5)


@pytest.fixture(scope="module")
def models(checkerboard):
    data, validation = checkerboard
    content = ContentConfig(optimiser=OptimiserConfig(learning_rate=3e-3, num_epochs=2))
    return data.catalogue, fitted(SOURCES, data, validation, content=content)


def recommender(models, **config):
    reader = Clicks([("reader", item, AT - 10) for item in ("i002", "i004", "i006")])
    items = with_new(models[0].items, *NEW)
    return recommender_of(models, *SOURCES, items=items, reader=reader, **config)


def answers(of, user_id: str, *, k: int = 8):
    return [
        of.recommend(RecommendRequest(user_id=user_id, k=k), at=AT + moment)
        for moment in range(200)
    ]


def test_kept_positions_show_new_items_as_often_as_their_propensity_says(models):
    slates = answers(recommender(models, new_items=EVERY), "reader", k=5)
    shown = [slate.items[4].item_id.startswith("new") for slate in slates]
    assert np.mean(shown) == pytest.approx(0.5, abs=0.1)
    for slate, new in zip(slates, shown, strict=True):
        assert slate.propensities == pytest.approx([1, 1, 1, 1, 0.5])
        assert slate.items[4].source == "new" if new else slate.items[4].source != "new"


def test_without_kept_positions_no_new_item_is_in_the_first_ones(models):
    slates = answers(recommender(models), "reader", k=5)
    assert not any(item.item_id.startswith("new") for slate in slates for item in slate.items)
    assert all(slate.propensities == [1.0] * 5 for slate in slates)


def test_pages_of_a_list_keep_its_pattern(models):
    of = recommender(models, new_items=EVERY)
    whole = of.recommend(RecommendRequest(user_id="reader", k=12), at=AT)
    first = of.recommend(RecommendRequest(user_id="reader", k=6), at=AT)
    cursor = first.next_cursor
    second = of.recommend(RecommendRequest(user_id="reader", k=6, cursor=cursor), at=AT + 99)
    ids = [item.item_id for item in whole.items]
    assert [item.item_id for item in first.items + second.items] == ids
    assert first.propensities + second.propensities == pytest.approx(whole.propensities)


def test_known_items_without_events_count_as_new_if_they_were_published_lately(models):
    of = recommender(models, new_items=NewItemsConfig(max_events=3, days=7))
    fresh = of.chain.fresh.at(of.items)
    assert len(fresh) == len(NEW)  # no known item has a publication date


def test_users_without_a_history_get_recent_popularity_and_no_new_items(models):
    of = recommender(models, new_items=EVERY, min_history=1)
    asked = RecommendRequest(user_id="somebody", k=8)
    popular = of.chain.sources["recent_popularity"].counts(of.items)
    best = np.argsort(-popular[1:], kind="stable")[:8]
    slate = of.recommend(asked, at=AT)
    assert [item.item_id for item in slate.items] == [of.catalogue.vocab.ids[i] for i in best]
    assert slate.propensities == [1.0] * 8


def test_users_with_enough_events_are_ranked_as_before(models):
    few, plain = recommender(models, min_history=3), recommender(models)
    asked = RecommendRequest(user_id="reader", k=8)
    one, other = (of.recommend(asked, at=AT).items for of in (few, plain))
    assert [item.item_id for item in one] == [item.item_id for item in other]
    assert Counter(i.item_id for i in one) != Counter(
        i.item_id for i in recommender(models, min_history=4).recommend(asked, at=AT).items
    )


def test_a_fallback_that_the_chain_lacks_is_refused():
    with pytest.raises(ValueError, match="min_history = 1 needs the candidate source"):
        ChainConfig(candidate_sources=("ease",), score_sources=("ease",), min_history=1)
