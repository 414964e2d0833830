"""Exploration: items are shown as often as their logged propensities say, and pass all filters.

Frequencies are compared with fixed seeds and a tolerance of 4 standard errors.
"""

import json
from collections import Counter
from functools import partial

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from models.recommend.explaining.explain import EXPLORE, EXPLORED
from models.recommend.exploring.exploration import Exploration, epsilon_greedy, plackett_luce
from models.recommend.recommender import Recommender
from services.serving_log import ServingLog, entry_of
from shortlist.config import EpsilonGreedy, Explore, Settings, Softmax
from shortlist.datasets.service.service_log import load_serving_log
from shortlist.http.api import Filters, RecommendRequest
from shortlist.ids import seed_of
from tests.models.recommenders import AT, Clicks, fitted, recommender_of

DRAWS = 20_000
UNFOUND = ("reciprocal_rank", "num_sources", "reciprocal_rank_sum")
"""Endings of the names of features that depend on which sources found the item."""
SEEN = ("i002", "i004", "i006")


def assert_frequency(count: int, probability: float, *, draws: int) -> None:
    error = 4 * np.sqrt(probability * (1 - probability) / draws)
    assert abs(count / draws - probability) <= error, (count / draws, probability)


def check_lists(drawn: list[tuple[tuple[int, ...], float]], *, possible: int) -> None:
    """Compare the frequency of each list with the product of its propensities."""
    counts = Counter(items for items, _ in drawn)
    chances = {items: {chance for other, chance in drawn if other == items} for items in counts}
    assert all(max(own) - min(own) < 1e-12 for own in chances.values())
    chance = {items: max(own) for items, own in chances.items()}
    if len(counts) == possible:
        assert sum(chance.values()) == pytest.approx(1)
    for items, count in counts.items():
        assert_frequency(count, chance[items], draws=len(drawn))
    tested = [items for items in counts if chance[items] * len(drawn) >= 5]
    expected = np.array([chance[items] * len(drawn) for items in tested])
    observed = np.array([counts[items] for items in tested])
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < len(tested) + 4 * np.sqrt(2 * len(tested))


def test_propensities_of_epsilon_greedy_are_the_frequencies_of_lists():
    rng = np.random.default_rng(0)
    top, free = np.array([1, 2, 3]), np.array([11, 12, 13, 14])
    drawn = []
    for _ in range(DRAWS):
        _, items, chance = epsilon_greedy(top, free, share=0.6, rng=rng)
        drawn.append((tuple(items.tolist()), float(chance.prod())))
    # Lists with 0, 1, 2 and 3 random items: 1, 3 * 4, 3 * (4 * 3) and 4 * 3 * 2.
    check_lists(drawn, possible=1 + 12 + 36 + 24)
    by_hand = 0.4 * (0.6 / 4) * (0.6 / 3)
    assert dict(drawn)[(1, 12, 11)] == pytest.approx(by_hand)


def test_epsilon_greedy_with_fewer_free_items_than_positions():
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        _, items, chance = epsilon_greedy(np.array([1, 2]), np.array([9]), share=0.3, rng=rng)
        drawn.append((tuple(items.tolist()), float(chance.prod())))
    check_lists(drawn, possible=2)
    _, items, chance = epsilon_greedy(np.array([1, 2]), np.empty(0, int), share=1.0, rng=rng)
    assert (items.tolist(), chance.tolist()) == ([1, 2], [1.0, 1.0])


@pytest.mark.parametrize(("pool", "possible"), [(50, 4 * 3 * 2), (2, 2)])
def test_propensities_of_softmax_are_the_frequencies_of_lists(pool, possible):
    rng = np.random.default_rng(0)
    setting = Softmax(temperature=0.7, pool=pool)
    score = np.array([2.0, 1.5, 1.0, -2.0])
    drawn = []
    for _ in range(DRAWS):
        places, chance = plackett_luce(score, k=3, setting=setting, rng=rng)
        drawn.append((tuple(places.tolist()), float(chance.prod())))
    check_lists(drawn, possible=possible)
    if pool == 50:  # scores scaled to [0, 1] and divided by the temperature
        e = np.exp(np.array([1, 3.5 / 4, 3 / 4, 0]) / 0.7)
        by_hand = e[1] / e.sum() * e[0] / (e.sum() - e[1]) * e[3] / (e[2] + e[3])
        assert dict(drawn)[(1, 0, 3)] == pytest.approx(by_hand)


def test_softmax_keeps_the_list_when_cold_and_is_uniform_when_hot():
    rng = np.random.default_rng(0)
    score = np.linspace(5, -5, 40).astype(np.float32)
    places, chance = plackett_luce(score, k=40, setting=Softmax(temperature=1e-5), rng=rng)
    assert places.tolist() == list(range(40))
    np.testing.assert_allclose(chance, 1)
    places, chance = plackett_luce(score, k=40, setting=Softmax(temperature=1e9), rng=rng)
    np.testing.assert_allclose(chance, 1 / np.arange(40, 0, -1))
    assert sorted(places.tolist()) == list(range(40))
    places, chance = plackett_luce(np.ones(3), k=3, setting=Softmax(temperature=0.01), rng=rng)
    np.testing.assert_allclose(chance, [1 / 3, 1 / 2, 1])
    places, chance = plackett_luce(np.empty(0), k=3, setting=Softmax(temperature=1), rng=rng)
    assert (len(places), len(chance)) == (0, 0)


@pytest.fixture(scope="module")
def models(checkerboard):
    data, validation = checkerboard
    names = ("item_knn", "popularity")
    return data.catalogue, fitted(names, data, validation)


def shop(models, **config) -> Recommender:
    clicks = [("u1", item, AT - 10 + i) for i, item in enumerate(SEEN)]
    return recommender_of(models, *models[1], reader=Clicks(clicks), **config)


@pytest.fixture(scope="module")
def recommender(models) -> Recommender:
    return shop(models)


def explored(recommender: Recommender, setting: Explore, seed: int, **asked):
    request = RecommendRequest(**({"user_id": "u1", "explain": False, "k": 4} | asked))
    return recommender.recommend(request, at=AT, exploration=Exploration(setting, seed))


def ids(slate) -> list[str]:
    return [item.item_id for item in slate.items]


SETTINGS = (EpsilonGreedy(share=0.5), Softmax(temperature=0.5, pool=20))


def by_kind(setting) -> str:
    return setting.kind


@pytest.mark.parametrize("setting", SETTINGS, ids=by_kind)
def test_propensities_of_answers_are_frequencies(recommender, setting):
    """Checks the first position, and the second position given the first item."""
    draws = 600
    firsts, seconds = Counter(), Counter()
    chance: dict[tuple[str, ...], float] = {}
    for number in range(draws):
        slate = explored(recommender, setting, seed_of(f"request {number}"), k=2)
        first, second = ids(slate)
        firsts[first] += 1
        seconds[first, second] += 1
        for key, value in zip([(first,), (first, second)], slate.propensities, strict=True):
            assert chance.setdefault(key, value) == pytest.approx(value)
    for item, count in firsts.items():
        assert_frequency(count, chance[(item,)], draws=draws)
    common = firsts.most_common(1)[0][0]
    for (first, second), count in seconds.items():
        if first == common:
            assert_frequency(count, chance[first, second], draws=firsts[common])


@pytest.mark.parametrize("setting", [EpsilonGreedy(share=1.0), SETTINGS[1]], ids=by_kind)
def test_drawn_items_pass_all_filters_and_come_once(recommender, setting):
    asked = {
        "filters": Filters(categories=["even"]),
        "exclude": ["i007", "i009"],
        "recent_items": ["i011"],
    }
    plain = recommender.recommend(RecommendRequest(user_id="u1", k=30, **asked), at=AT)
    allowed = set(ids(plain))
    names = dict(
        zip(recommender.catalogue.vocab.ids, recommender.catalogue.category_lists[1:], strict=True)
    )
    assert allowed == {i for i, own in names.items() if own == ["even"]} - {
        *SEEN,
        "i007",
        "i009",
        "i011",
    }
    for seed in range(60):
        for k in (5, len(allowed), 30):
            shown = ids(explored(recommender, setting, seed, k=k, **asked))
            assert len(set(shown)) == len(shown) == min(k, len(allowed))
            assert set(shown) <= allowed


@pytest.mark.parametrize("setting", SETTINGS, ids=by_kind)
def test_the_seed_reproduces_the_answer(recommender, setting):
    slates = [explored(recommender, setting, seed, k=10) for seed in (7, 7, 8)]
    assert slates[0].items == slates[1].items
    assert slates[0].propensities == slates[1].propensities
    assert ids(slates[0]) != ids(slates[2])
    assert [slate.seed for slate in slates] == [7, 7, 8]


def test_without_exploration_nothing_is_drawn(recommender):
    slate = recommender.recommend(RecommendRequest(user_id="u1"), at=AT)
    assert (slate.seed, slate.propensities) == (None, [1.0] * 10)
    assert all(item.source != EXPLORE for item in slate.items)


def test_random_items_say_so_and_have_the_scores_and_features_of_the_chain(recommender):
    slate = explored(recommender, EpsilonGreedy(share=0.5), 3, k=10, explain=True)
    assert slate.skipped_stages == []
    plain = recommender.recommend(RecommendRequest(user_id="u1", k=30), at=AT)
    random = [item.source == EXPLORE for item in slate.items]
    assert 0 < sum(random) < 10
    for item, drawn, row in zip(slate.items, random, slate.features, strict=True):
        assert (item.reason == EXPLORED) == drawn
        assert (item.sources == [EXPLORE]) == drawn
        assert len(row) == len(recommender.chain.schema)
    # All features equal those of the plain list, except those on the sources that found the item.
    of_item = dict(zip(ids(plain), plain.features, strict=True))
    names = recommender.chain.schema.names
    same = [number for number, name in enumerate(names) if not name.endswith(UNFOUND)]
    for item, row in zip(slate.items, slate.features, strict=True):
        np.testing.assert_allclose(
            np.array(row)[same], np.array(of_item[item.item_id])[same], rtol=1e-6
        )


def test_the_list_of_a_softmax_is_drawn_after_re_ranking(models):
    reranked = shop(models, rerank={"kind": "mmr", "strength": 0.6})
    plain = reranked.recommend(RecommendRequest(user_id="u1"), at=AT)
    assert ids(plain) != ids(shop(models).recommend(RecommendRequest(user_id="u1"), at=AT))
    cold = explored(reranked, Softmax(temperature=1e-9), 1, k=10)
    assert ids(cold)[:2] == ids(plain)[:2]


@pytest.mark.parametrize("setting", SETTINGS, ids=by_kind)
def test_pages_of_explored_lists_repeat_nothing_and_reach_everything(recommender, setting):
    shown, cursor, number = [], None, 0
    while True:
        slate = explored(recommender, setting, seed_of(f"page {number}"), k=6, cursor=cursor)
        shown += ids(slate)
        cursor, number = slate.next_cursor, number + 1
        if cursor is None:
            break
    assert len(shown) == len(set(shown)) == recommender.catalogue.num_items - len(SEEN)


def test_a_draw_that_fails_leaves_the_list_and_is_named(models, monkeypatch):
    recommender = shop(models)
    plain = recommender.recommend(RecommendRequest(user_id="u1"), at=AT)

    def broken(*_, **__):
        raise OSError("no entropy")

    monkeypatch.setattr(Exploration, "draw", broken)
    slate = explored(recommender, SETTINGS[0], 1, k=10)
    assert ids(slate) == ids(plain)
    assert (slate.skipped_stages, slate.seed, slate.propensities) == (["explore"], None, [1.0] * 10)


def test_the_log_has_seed_propensity_and_source(recommender, tmp_path):
    seed = seed_of("q1")
    slate = explored(recommender, EpsilonGreedy(share=0.5), seed, k=10)
    log = ServingLog(tmp_path)
    log.write(partial(entry_of, slate, request_id="q1", user_id="u1", clock="wall", seconds=0.01))
    log.close()
    rows = load_serving_log(tmp_path).to_pylist()
    assert {row["seed"] for row in rows} == {seed}
    assert [row["propensity"] for row in rows] == slate.propensities
    assert EXPLORE in [row["source"] for row in rows]


def test_seeds_fit_the_log_and_differ():
    seeds = [seed_of(f"q{i}") for i in range(1_000)]
    assert len(set(seeds)) == 1_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("q1") == seed_of("q1")


def test_the_setting_is_off_by_default_and_read_from_the_environment(monkeypatch):
    assert Settings().explore is None
    monkeypatch.setenv("SHORTLIST_EXPLORE", json.dumps({"kind": "softmax", "temperature": 0.2}))
    assert Settings().explore == Softmax(temperature=0.2)
    for wrong in (
        {"kind": "epsilon", "share": 0},
        {"kind": "epsilon", "share": 1.5},
        {"kind": "softmax", "temperature": 0},
        {"kind": "epsilon", "share": 0.1, "temperature": 1},
    ):
        with pytest.raises(ValidationError):
            TypeAdapter(Explore).validate_python(wrong)
