"""Baselines: checkerboard data, small cases computed by hand, and the protocol of sources."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_array

from models.baselines.ease import Ease, EaseConfig, fit_ease, solve
from models.baselines.ials import Ials, IalsConfig, fit_ials, solve_side
from models.baselines.item_knn import ItemKNN, ItemKnnConfig, fit_item_knn, keep_largest
from models.baselines.popularity import (
    Popularity,
    PopularityConfig,
    RecentPopularityConfig,
    fit_popularity,
    fit_recent_popularity,
)
from models.data import Validation
from models.training import TrainingOptions
from tests.models.small_data import catalogue_of, queries_of, state_of, training_data

LEARNED = {
    "item_knn": (ItemKnnConfig(shrinkage=(1.0,)), fit_item_knn, ItemKNN),
    "ease": (EaseConfig(l2=(1.0,)), fit_ease, Ease),
    "ials": (IalsConfig(embedding_dim=8, l2=(0.01,)), fit_ials, Ials),
}
ALL = LEARNED | {
    "popularity": (PopularityConfig(), fit_popularity, Popularity),
    "recent_popularity": (RecentPopularityConfig(), fit_recent_popularity, Popularity),
}


@pytest.fixture(scope="module")
def fitted(checkerboard):
    data, validation = checkerboard
    return {
        name: fit(config, data, validation, TrainingOptions(seed=0))
        for name, (config, fit, _) in ALL.items()
    }


@pytest.mark.parametrize("name", LEARNED)
def test_learns_the_checkerboard(fitted, checkerboard, name):
    assert checkerboard[1].ndcg(fitted[name]) == pytest.approx(1.0)


@pytest.mark.parametrize("name", LEARNED)
def test_a_history_tells_more_than_popularity_does(small_world, name):
    data, validation = small_world
    config, fit, _ = ALL[name]
    popular = validation.ndcg(Popularity("popularity", days=None))
    assert validation.ndcg(fit(config, data, validation, TrainingOptions())) > 1.2 * popular


@pytest.mark.parametrize("name", ALL)
def test_what_was_seen_never_comes_back(fitted, checkerboard, name):
    queries, items, _ = checkerboard[1].ticks[0]
    found = fitted[name].retrieve(queries, items, k=30).item_idx
    for row, seen in zip(found, queries.seen, strict=True):
        assert not set(row[row > 0]) & set(seen)


@pytest.mark.parametrize("name", ALL)
def test_one_query_alone_gets_what_it_gets_in_a_batch(fitted, checkerboard, name):
    queries, items, _ = checkerboard[1].ticks[0]
    together = fitted[name].retrieve(queries, items, k=5)
    alone = fitted[name].retrieve(
        queries_of([[int(i) for i in queries.history[3] if i]]), items, k=5
    )
    assert alone.item_idx[0].tolist() == together.item_idx[3].tolist()
    np.testing.assert_allclose(alone.score[0], together.score[3], rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_score_agrees_with_retrieve(fitted, checkerboard, name):
    queries, items, _ = checkerboard[1].ticks[0]
    found = fitted[name].retrieve(queries, items, k=3)
    scores = fitted[name].score(queries, items, found.item_idx)
    np.testing.assert_allclose(scores, found.score, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_saved_and_loaded_it_scores_the_same(fitted, checkerboard, name, tmp_path):
    queries, items, _ = checkerboard[1].ticks[0]
    fitted[name].save(tmp_path)
    again = ALL[name][2].load(tmp_path, checkerboard[0].catalogue)
    before, after = (m.retrieve(queries, items, k=10) for m in (fitted[name], again))
    assert np.array_equal(before.item_idx, after.item_idx)
    assert np.array_equal(before.score, after.score)


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_user_gets_finite_scores(fitted, checkerboard, name):
    items = checkerboard[1].ticks[0][1]
    found = fitted[name].retrieve(queries_of([[]]), items, k=5)
    assert np.isfinite(found.score[found.item_idx > 0]).all()
    if name in LEARNED:
        assert not found.item_idx.any()  # no history, so no candidates
    else:
        assert found.item_idx.all()


def test_popularity_orders_by_count_and_recent_popularity_breaks_ties_by_all_time():
    counts = np.array([0, 1, 3, 2])
    items = state_of(counts)
    queries = queries_of([[]])
    assert Popularity("popularity", days=None).retrieve(queries, items, k=3).item_idx.tolist() == [
        [2, 3, 1]
    ]
    items.state["item_day_counts"][:] = 0
    items.state["item_day_counts"][[1, 2, 3], [-1, -8, -1]] = 1  # item 2 has its event a week ago
    recent = Popularity("recent_popularity", days=7).retrieve(queries, items, k=3)
    assert recent.item_idx.tolist() == [[3, 1, 2]]


def test_cosine_by_hand():
    # item 1 has the users a and b, item 2 has a, b and c, item 3 has c
    data = training_data(catalogue_of([["x"]] * 3), [[1, 2], [1, 2], [2, 3]])
    validation = one_question(data, [1], [2])
    config = ItemKnnConfig(neighbours=(10,), shrinkage=(0.0,), decay=(1.0,))
    model = fit_item_knn(config, data, validation, TrainingOptions())
    similarity = model.similarity.toarray()
    assert similarity[1, 2] == pytest.approx(2 / np.sqrt(2 * 3))
    assert similarity[2, 3] == pytest.approx(1 / np.sqrt(3 * 1))
    assert similarity[1, 3] == 0
    assert similarity[1, 1] == 0


def test_history_fades_by_its_place_and_contributions_add_up_to_the_score():
    similarity = np.zeros((4, 4), dtype=np.float32)
    similarity[1, 3], similarity[2, 3] = 0.5, 0.2
    model = ItemKNN(csr_array(similarity), decay=0.9, chosen={})
    queries = queries_of([[1, 2]])
    (score,) = model.score(queries, state_of(np.zeros(4)), np.array([[3]]))[0]
    assert score == pytest.approx(0.9 * 0.5 + 1 * 0.2)
    (parts,) = model.contributions(queries.history[0], np.array([3]))
    assert parts[:2].tolist() == pytest.approx([0.9 * 0.5, 0.2])
    assert parts.sum() == pytest.approx(score)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_what_comes_twice_counts_once_at_its_newest_place(decay):
    weights = np.zeros((4, 4), dtype=np.float32)
    weights[1, 3], weights[2, 3] = 0.5, 0.2
    queries = queries_of([[1, 2, 1, 2, 2]])
    # Newest first: 2, 2, 1, 2, 1. The newest 2 is at place 0, the newest 1 at place 2.
    expected = decay**2 * 0.5 + 1 * 0.2
    item_knn = ItemKNN(csr_array(weights), decay=decay, chosen={})
    for model in (item_knn, Ease(weights, decay=decay, chosen={})):
        (score,) = model.score(queries, state_of(np.zeros(4)), np.array([[3]]))[0]
        assert score == pytest.approx(expected)
    (parts,) = item_knn.contributions(queries.history[0], np.array([3]))
    assert parts[:5].tolist() == pytest.approx([0, 0, decay**2 * 0.5, 0, 0.2])
    assert parts.sum() == pytest.approx(expected)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_a_single_query_gets_the_scores_that_it_gets_in_a_batch(decay):
    rng = np.random.default_rng(0)
    weights = rng.random((41, 41), dtype=np.float32) * (rng.random((41, 41)) < 0.3)
    weights[0] = weights[:, 0] = 0
    histories = [[], [7], rng.integers(1, 41, size=60).tolist()]
    items, candidates = state_of(np.zeros(41)), np.arange(41)[None]
    for model in (
        ItemKNN(csr_array(weights), decay=decay, chosen={}),
        Ease(weights, decay=decay, chosen={}),
    ):
        together = model.score(queries_of(histories), items, np.repeat(candidates, 3, axis=0))
        for row, history in enumerate(histories):
            alone = model.score(queries_of([history]), items, candidates)
            np.testing.assert_allclose(alone[0], together[row], rtol=1e-6)


def test_contributions_are_the_weighted_similarities():
    rng = np.random.default_rng(0)
    similarity = rng.random((41, 41), dtype=np.float32) * (rng.random((41, 41)) < 0.3)
    model = ItemKNN(csr_array(similarity), decay=0.8, chosen={})
    history, shown = rng.permutation(40)[:12] + 1, rng.permutation(40)[:9] + 1
    ages = np.arange(11, -1, -1)
    expected = similarity[np.ix_(history, shown)].T * 0.8**ages
    np.testing.assert_allclose(model.contributions(history, shown), expected, rtol=1e-6)


def test_similar_items_come_best_first_without_the_item_itself():
    weights = np.zeros((4, 4), dtype=np.float32)
    weights[1, 2], weights[1, 3], weights[2, 1] = 0.2, 0.5, 0.3
    model = ItemKNN(csr_array(weights), decay=1.0, chosen={})
    found = model.similar(np.array([1, 2, 3]), 3)
    assert found.item_idx.tolist() == [[3, 2, 0], [1, 0, 0], [0, 0, 0]]
    assert found.score[0, :2].tolist() == pytest.approx([0.5, 0.2])


def test_ease_is_the_ridge_regression_of_each_item_on_the_others():
    rng = np.random.default_rng(0)
    x = np.zeros((40, 4))
    x[:, 1:] = rng.random((40, 3)) < 0.4
    weights = solve(x.T @ x, 2.0)
    for item in (1, 2, 3):
        others = [j for j in (1, 2, 3) if j != item]
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + 2.0 * np.eye(2), a.T @ x[:, item])
        np.testing.assert_allclose(weights[others, item], expected, rtol=1e-5)


def test_a_half_step_of_ials_solves_each_row_exactly():
    rng = np.random.default_rng(0)
    weights = (rng.random((7, 12)) < 0.3) * rng.choice([0.25, 1.0], size=(7, 12))
    weights[4] = 0  # a user without a history
    other = rng.normal(size=(12, 4))
    solution = solve_side(csr_array(weights), other, l2=0.1, unseen_weight=0.2, steps=30)
    for row, weight in enumerate(weights):
        penalty = 0.1 * (weight.sum() + 0.2 * 12) * np.eye(4)
        system = 0.2 * other.T @ other + other.T @ (weight[:, None] * other) + penalty
        np.testing.assert_allclose(
            solution[row], np.linalg.solve(system, weight @ other), atol=1e-9
        )


@pytest.mark.parametrize("most", [1, 5, 17])
def test_ials_solves_in_blocks_what_it_solves_at_once(monkeypatch, most):
    rng = np.random.default_rng(1)
    matrix = csr_array((rng.random((9, 12)) < 0.4).astype(np.float32))
    other = rng.normal(size=(12, 4))
    start = rng.normal(size=(9, 4))
    settings = {"l2": 0.1, "unseen_weight": 0.2, "steps": 3, "start": start}
    whole = solve_side(matrix, other, **settings)
    monkeypatch.setattr("models.baselines.ials.MAX_ENTRIES", most)
    np.testing.assert_allclose(solve_side(matrix, other, **settings), whole, rtol=1e-10)


def test_keep_largest_keeps_k_of_each_row():
    matrix = csr_array(np.array([[0, 3, 1, 2], [0, 0, 0, 5]], dtype=np.float32))
    assert keep_largest(matrix, 2).toarray().tolist() == [[0, 3, 0, 2], [0, 0, 0, 5]]


def test_ease_refuses_a_catalogue_too_large_for_its_inverse(monkeypatch, checkerboard):
    monkeypatch.setattr("models.baselines.ease.MAX_ITEMS", 10)
    with pytest.raises(ValueError, match="30 items, want at most 10"):
        fit_ease(EaseConfig(), *checkerboard, TrainingOptions())


@pytest.mark.parametrize("name", LEARNED)
def test_another_catalogue_is_refused(fitted, name, tmp_path):
    fitted[name].save(tmp_path)
    with pytest.raises(ValueError, match="fitted on 30 items, this catalogue has 7"):
        ALL[name][2].load(tmp_path, catalogue_of([["x"]] * 7))


def test_the_best_of_the_grid_is_chosen_and_saved(small_world, tmp_path):
    data, validation = small_world
    model = fit_ease(EaseConfig(), data, validation, TrainingOptions())
    figures = {
        (l2, decay): validation.ndcg(
            fit_ease(EaseConfig(l2=(l2,), decay=(decay,)), data, validation, TrainingOptions())
        )
        for l2 in EaseConfig().l2
        for decay in EaseConfig().decay
    }
    best = (model.chosen["l2"], model.chosen["decay"])
    assert figures[best] == max(figures.values())
    assert len(set(figures.values())) > 1
    model.save(tmp_path)
    assert Ease.load(tmp_path, data.catalogue).chosen == model.chosen


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (EaseConfig, "l2", ()),
        (EaseConfig, "l2", (0.0,)),
        (EaseConfig, "decay", (1.5,)),
        (ItemKnnConfig, "neighbours", (0,)),
        (ItemKnnConfig, "shrinkage", (-1.0,)),
        (IalsConfig, "decay", (0.0,)),
        (RecentPopularityConfig, "days", ()),
        (RecentPopularityConfig, "days", (0,)),
        (RecentPopularityConfig, "days", (31,)),
    ],
)
def test_a_grid_that_cannot_be_tried_names_its_key(config, key, value):
    with pytest.raises(ValidationError) as error:
        config.model_validate({key: value})
    assert error.value.errors()[0]["loc"][0] == key


def one_question(data, history, wanted):
    return Validation([(queries_of([history]), state_of(data.item_counts), [np.array(wanted)])])
