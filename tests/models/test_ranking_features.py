"""Ranking features with three items, computed by hand, and what must not affect them."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from models.queries import Queries
from models.ranking.features import compute as features_module
from models.ranking.features.compute import ranking_features, ranking_schema
from models.ranking.features.searches import SEARCH
from models.ranking.schema import RankingSchema, SchemaError
from shortlist.columns import MICROSECONDS_PER_DAY
from shortlist.contracts import ITEMS, TIMESTAMP
from shortlist.features.event_groups import empty_group_state
from shortlist.features.finalize import (
    CONTEXT_FEATURES,
    DAY_BUCKETS,
    ITEM_FEATURES,
    ITEM_STATE,
    USER_FEATURES,
)
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.features.searches import NO_SEARCHES, Searches
from shortlist.items.catalogue import Catalogue

NOW = 11_000 * MICROSECONDS_PER_DAY
YEAR = int(365.25 * MICROSECONDS_PER_DAY)
PROFILES = ProfileEncoder(("gender",), (("F", "M"),))
SCHEMA = ranking_schema(["ease", "recent_popularity"], profiles=PROFILES)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    # a: Comedy and Drama, published 2 years before NOW. b: Comedy, 4 years before. c: War, with an
    # unknown date.
    published = pa.array([NOW - 2 * YEAR, NOW - 4 * YEAR, None], pa.int64()).cast(TIMESTAMP)
    return Catalogue.from_items(
        pa.table(
            {
                "item_id": ["a", "b", "c"],
                "title": ["A", "B", "C"],
                "description": pa.nulls(3, pa.string()),
                "categories": [["Comedy", "Drama"], ["Comedy"], ["War"]],
                "brand": pa.nulls(3, pa.string()),
                "price": pa.nulls(3, pa.float64()),
                "published_at": published,
                "available": [True, True, True],
                "image": pa.nulls(3, pa.string()),
                "attributes": pa.nulls(3, ITEMS.field("attributes").type),
                "updated_at": pa.nulls(3, TIMESTAMP),
            },
            schema=ITEMS,
        )
    )


@pytest.fixture(scope="module")
def items() -> ItemState:
    state = {name: np.zeros(4) for name in ITEM_STATE} | empty_group_state("item", 4)
    state["item_day_counts"] = np.zeros((4, DAY_BUCKETS))
    state["item_events"] = np.array([0.0, 5, 2, 0])
    state["item_value_sum"] = np.array([0.0, 20, 4, 0])
    state["item_value_count"] = np.array([0.0, 5, 2, 0])
    state["item_first_time"] = np.array([0, 1, 1, 0]) * (NOW - 10 * MICROSECONDS_PER_DAY)
    state["item_last_time"] = np.array([0, 1, 1, 0]) * (NOW - MICROSECONDS_PER_DAY)
    state["item_day_counts"][2, -1] = 2
    return ItemState(pack_id="p", as_of=NOW, state=state)


def make_queries(*histories: list[int], values: list[list[float]] | None = None) -> Queries:
    n, length = len(histories), max(max((len(h) for h in histories), default=0), 1)
    history = np.zeros((n, length), dtype=np.int64)
    value = np.zeros((n, length), dtype=np.float32)
    for row, items_of in enumerate(histories):
        history[row, : len(items_of)] = items_of
        if values is not None:
            value[row, : len(items_of)] = values[row]
    user = np.zeros((n, len(USER_FEATURES)), dtype=np.float32)
    user[:, USER_FEATURES.index("user_mean_value")] = 3
    return Queries(
        user_ids=[f"u{row}" for row in range(n)],
        at=np.full(n, NOW + MICROSECONDS_PER_DAY),
        history=history,
        history_time=np.where(history > 0, NOW, 0),
        history_value=value,
        history_type=np.zeros_like(history),
        seen=[np.array(h, dtype=np.int64) for h in histories],
        user=user,
        context=np.full((n, len(CONTEXT_FEATURES)), 0.5, dtype=np.float32),
        profile=np.ones((n, 1), dtype=np.int64),
        searches=[NO_SEARCHES] * n,
    )


CANDIDATES = np.array([[1, 2, 3]])
SCORES = {
    "ease": np.array([[4.0, 2.0, 0.0]], dtype=np.float32),
    "recent_popularity": np.array([[7.0, np.nan, -np.inf]], dtype=np.float32),
}
RANKS = {
    "ease": np.array([[1.0, 2.0, 0.0]], dtype=np.float32),
    "recent_popularity": np.array([[4.0, 0.0, 0.0]], dtype=np.float32),
}


def columns_of(x: np.ndarray) -> dict[str, list[float]]:
    """Return the feature values of the first request, by name."""
    return {name: x[0, :, i].tolist() for i, name in enumerate(SCHEMA.names)}


def build(queries, items, catalogue, candidates=CANDIDATES, scores=SCORES, ranks=RANKS):
    return ranking_features(
        queries,
        items,
        catalogue=catalogue,
        candidates=candidates,
        source_scores=scores,
        source_ranks=ranks,
        schema=SCHEMA,
    )


def test_blocks_of_user_context_profile_and_item(items, catalogue):
    columns = columns_of(build(make_queries([2]), items, catalogue))
    assert columns["user_mean_value"] == [3, 3, 3]
    assert columns["hour_sin"] == [0.5, 0.5, 0.5]
    assert columns["profile_gender"] == [1, 1, 1]
    assert columns["item_events_log"] == pytest.approx(np.log1p([5, 2, 0]))
    # As of the tick, a day before the request: the last event was a day before it.
    assert columns["item_days_since_last_log"] == pytest.approx(np.log1p([1, 1, 0]))


def test_history_features_by_hand(items, catalogue):
    # The history, oldest first: c (War, rated 1), b (Comedy, rated 5).
    columns = columns_of(build(make_queries([3, 2], values=[[1.0, 5.0]]), items, catalogue))
    half = 0.5**0.5  # cosine of {Comedy, Drama} with {Comedy}
    assert columns["history_length_log"] == pytest.approx([np.log1p(2)] * 3)
    # The long-term profile has the weights Comedy 1 and War 1, so its length is sqrt(2).
    assert columns["category_affinity_long"] == pytest.approx([half * half, half, half])
    # In the recent profile, Comedy has weight 1, and War decays by one position.
    war = 0.5 ** (1 / 10)
    length = (1 + war**2) ** 0.5
    assert columns["category_affinity_recent"] == pytest.approx(
        [half / length, 1 / length, war / length]
    )
    # Values relative to their mean of 3: War -2, Comedy +2, in two events with a value.
    assert columns["category_value_affinity"] == pytest.approx([half, 1, -1])
    assert columns["category_share_10"] == pytest.approx([0.5, 0.5, 0.5])
    assert columns["category_share_50"] == pytest.approx([0.5, 0.5, 0.5])
    assert columns["category_overlap_last"] == pytest.approx([half, 1, 0])
    assert columns["category_overlap_max_10"] == pytest.approx([half, 1, 1])
    assert columns["category_overlap_mean_10"] == pytest.approx([half / 2, 0.5, 0.5])
    # Of the history, only the date of b is known. a is 2 years newer than b, c is unknown.
    assert columns["years_from_history"] == pytest.approx([2, 0, 0], abs=1e-5)
    assert columns["years_from_last_10"] == pytest.approx([2, 0, 0], abs=1e-5)


def test_share_windows_look_at_the_newest(items, catalogue):
    columns = columns_of(build(make_queries([3] * 10 + [2] * 10), items, catalogue))
    assert columns["category_share_10"] == pytest.approx([1, 1, 0])
    assert columns["category_share_50"] == pytest.approx([0.5, 0.5, 0.5])
    assert columns["category_overlap_max_10"][2] == 0


def test_cross_features_by_hand(items, catalogue):
    columns = columns_of(build(make_queries([2]), items, catalogue))
    assert columns["value_cross"] == pytest.approx([3 * 20 / 5, 3 * 4 / 2, 0])
    assert columns["popularity_place"] == pytest.approx([0, 1 / 3, 2 / 3])
    # In the last 14 days only b has events, so a and c share the next place.
    assert columns["recent_popularity_place"] == pytest.approx([1 / 3, 0, 1 / 3])


def test_search_features_by_hand(items, catalogue):
    day = MICROSECONDS_PER_DAY
    now = NOW + day  # time of the request
    held = Searches(
        ("a comedy, please", "war & WAR!", "no drama"), (now - 2 * day, now - day, now), 3
    )
    queries = dataclasses.replace(make_queries([2], []), searches=[held, NO_SEARCHES])
    two = {name: np.repeat(values, 2, axis=0) for name, values in SCORES.items()}
    ranks = {name: np.repeat(values, 2, axis=0) for name, values in RANKS.items()}
    x = build(queries, items, catalogue, np.repeat(CANDIDATES, 2, axis=0), two, ranks)
    columns = columns_of(x)
    # Item a matches 2 of the 3 words of the first search (two days old) and 1 of 2 of the last one.
    # Item b matches 1 of 3 of the first search; c matches the only word of the second (a day old).
    assert columns["search_match"] == pytest.approx([1 / 2, 1 / 3 / 4, 1 / 2])
    assert columns["search_match_last"] == pytest.approx([1 / 2, 0, 0])
    of_nobody = x[1][:, [SCHEMA.names.index(name) for name in SEARCH]]
    assert not of_nobody.any()


def test_source_features_by_hand(items, catalogue):
    columns = columns_of(build(make_queries([2]), items, catalogue))
    deviation = (8 / 3) ** 0.5  # of the scores 4, 2, 0
    z = [2 / deviation, 0, -2 / deviation]
    assert columns["ease:score"] == [4, 2, 0]
    assert columns["ease:score_z"] == pytest.approx(z)
    assert columns["ease:place"] == pytest.approx([0, 1 / 3, 2 / 3])
    assert columns["ease:reciprocal_rank"] == [1, 0.5, 0]
    # Only one score exists. Missing scores get the lowest score, so all are equal.
    assert columns["recent_popularity:score"] == [7, 7, 7]
    assert columns["recent_popularity:score_z"] == [0, 0, 0]
    assert columns["recent_popularity:reciprocal_rank"] == [0.25, 0, 0]
    assert columns["num_sources"] == [2, 1, 0]
    assert columns["reciprocal_rank_sum"] == pytest.approx([1 / 61 + 1 / 64, 1 / 62, 0])
    assert columns["score_z_mean"] == pytest.approx([value / 2 for value in z])


def test_a_source_without_scores_gives_zeros(items, catalogue):
    only_ease = {"ease": SCORES["ease"]}
    columns = columns_of(build(make_queries([2]), items, catalogue, scores=only_ease))
    for name in ("score", "score_z", "place"):
        assert columns[f"recent_popularity:{name}"] == [0, 0, 0]
    assert columns["ease:score"] == [4, 2, 0]


def test_unknown_user_and_padding_are_finite(items, catalogue):
    padded = np.array([[1, 2, 3, 0, 0]])
    pad = np.full((1, 2), np.nan, dtype=np.float32)
    scores = {name: np.hstack([values, pad]) for name, values in SCORES.items()}
    ranks = {name: np.hstack([values, np.zeros((1, 2))]) for name, values in RANKS.items()}
    queries = dataclasses.replace(
        make_queries([]),
        user=np.zeros((1, len(USER_FEATURES)), dtype=np.float32),
        profile=np.zeros((1, 1), dtype=np.int64),
    )
    x = build(queries, items, catalogue, padded, scores, ranks)
    assert np.isfinite(x).all()
    # Padding doesn't affect the other candidates.
    np.testing.assert_array_equal(x[:, :3], build(queries, items, catalogue))


def random_batch(rng: np.random.Generator, *, n: int, width: int):
    histories = [rng.integers(1, 4, size=rng.integers(0, 60)).tolist() for _ in range(n)]
    values = [rng.integers(1, 6, size=len(h)).astype(float).tolist() for h in histories]
    candidates = rng.integers(0, 4, size=(n, width))
    scores = {name: rng.normal(size=(n, width)).astype(np.float32) for name in SCHEMA.sources}
    scores["ease"][rng.random((n, width)) < 0.3] = -np.inf
    ranks = {name: rng.integers(0, 5, size=(n, width)).astype(float) for name in SCHEMA.sources}
    asked = [
        Searches(("comedy a", "war drama")[: row % 3], (NOW, NOW + 1)[: row % 3], row % 3)
        for row in range(n)
    ]
    queries = dataclasses.replace(make_queries(*histories, values=values), searches=asked)
    return queries, candidates, scores, ranks


def test_a_request_alone_is_as_in_a_batch_and_in_chunks(items, catalogue, monkeypatch):
    queries, candidates, scores, ranks = random_batch(np.random.default_rng(0), n=7, width=5)
    together = build(queries, items, catalogue, candidates, scores, ranks)
    monkeypatch.setattr(features_module, "CHUNK_CELLS", 1)
    chunked = build(queries, items, catalogue, candidates, scores, ranks)
    np.testing.assert_array_equal(together, chunked)
    for row in range(len(queries)):
        # A service doesn't pad a history to the length of other requests.
        length = max(int(queries.lengths[row]), 1)
        alone = Queries(
            user_ids=queries.user_ids[row : row + 1],
            at=queries.at[row : row + 1],
            history=queries.history[row : row + 1, :length],
            history_time=queries.history_time[row : row + 1, :length],
            history_value=queries.history_value[row : row + 1, :length],
            history_type=queries.history_type[row : row + 1, :length],
            seen=queries.seen[row : row + 1],
            user=queries.user[row : row + 1],
            context=queries.context[row : row + 1],
            profile=queries.profile[row : row + 1],
            searches=queries.searches[row : row + 1],
        )
        one = build(
            alone,
            items,
            catalogue,
            candidates[row : row + 1],
            {name: values[row : row + 1] for name, values in scores.items()},
            {name: values[row : row + 1] for name, values in ranks.items()},
        )
        np.testing.assert_allclose(one[0], together[row], rtol=1e-5, atol=1e-6)


def test_the_order_of_the_candidates_decides_nothing(items, catalogue):
    queries, candidates, scores, ranks = random_batch(np.random.default_rng(1), n=3, width=6)
    x = build(queries, items, catalogue, candidates, scores, ranks)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = build(
        queries,
        items,
        catalogue,
        candidates[:, order],
        {name: values[:, order] for name, values in scores.items()},
        {name: values[:, order] for name, values in ranks.items()},
    )
    np.testing.assert_allclose(shuffled, x[:, order], rtol=1e-5, atol=1e-6)


def test_other_and_later_requests_do_not_affect_a_request(items, catalogue):
    """The features of a request don't depend on other or later requests in the batch."""
    queries, candidates, scores, ranks = random_batch(np.random.default_rng(2), n=4, width=5)
    x = build(queries, items, catalogue, candidates, scores, ranks)
    later = dataclasses.replace(
        queries,
        user_ids=["u0"] * 4,
        at=queries.at + np.array([0, 1, 2, 3]) * MICROSECONDS_PER_DAY,
        history=np.vstack([queries.history[:1], queries.history[:0:-1]]),
        history_value=np.vstack([queries.history_value[:1], queries.history_value[1:] + 1]),
        user=np.vstack([queries.user[:1], queries.user[1:] + 1]),
        searches=[queries.searches[0], *queries.searches[:0:-1]],
    )
    factor = np.array([1, 2, 3, 4], dtype=np.float32)[:, None]
    again = build(
        later,
        items,
        catalogue,
        candidates[[0, 3, 2, 1]],
        {name: values * factor for name, values in scores.items()},
        {name: values * factor for name, values in ranks.items()},
    )
    np.testing.assert_array_equal(again[0], x[0])
    for changed in (1, 2, 3):
        assert (again[changed] != x[changed]).any()


def test_schema_round_trip_and_refusal():
    data = SCHEMA.to_json()
    assert RankingSchema.from_json(data) == SCHEMA
    codes = {"profile_gender": 3, "request_surface": 1, "request_device": 1}
    assert SCHEMA.categorical == codes
    assert len(set(SCHEMA.names)) == len(SCHEMA)
    assert SCHEMA.names.index("item_events_log") == SCHEMA.names.index(ITEM_FEATURES[0])
    old = data | {"names": ["item_clicks", *data["names"][1:]]}
    with pytest.raises(SchemaError, match=r"user_events_log.*item_clicks"):
        RankingSchema.from_json(old)
