"""Calibration, and the vectors of MMR: results by hand, prefixes for all k, batch equals single."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.recommend.chain import ChainConfig
from models.recommend.rerank.apply import Reranker
from models.recommend.rerank.calibration import (
    HALF_LIFE,
    SMOOTHING,
    calibrate,
    category_shares,
    divergence,
    interests,
)
from models.recommend.rerank.config import CalibrationConfig, MmrConfig
from models.recommend.rerank.item_vectors import ItemVectors
from models.recommend.rerank.mmr import mmr
from tests.models.small_data import catalogue_of, queries_of

ROMANCE, ACTION = [1.0, 0.0], [0.0, 1.0]


def test_interests_are_weighted_by_recency_and_split_over_an_items_categories():
    matrix = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=np.float32)
    old = 2 ** (-1 / HALF_LIFE)
    mix = interests(np.array([1, 2, 0, 0]), matrix)
    np.testing.assert_allclose(mix, np.array([old, 0.5, 0.5]) / (old + 1))
    # Item 3 has no category. It makes the other events older by one, so their mix is the same.
    np.testing.assert_allclose(interests(np.array([1, 2, 3]), matrix), mix)
    assert interests(np.array([3, 0]), matrix).tolist() == [0, 0, 0]
    assert interests(np.array([0]), matrix).tolist() == [0, 0, 0]


def test_divergence_by_hand():
    wanted = np.array([0.7, 0.3])
    assert divergence(np.array([ROMANCE] * 7 + [ACTION] * 3), wanted) == pytest.approx(0)
    only = SMOOTHING * 0.3  # the list has no item of the second category
    expected = 0.7 * np.log(0.7 / (1 - SMOOTHING + SMOOTHING * 0.7)) + 0.3 * np.log(0.3 / only)
    assert divergence(np.array([ROMANCE] * 10), wanted) == pytest.approx(expected)
    assert np.isnan(divergence(np.array([ROMANCE]), np.zeros(2)))


def test_a_list_by_score_shows_only_the_main_interest_and_calibration_shows_both():
    """Steck's example: 70 romances and 30 action films seen, and romances have the best scores."""
    shares = np.array([ROMANCE] * 30 + [ACTION] * 30)
    scores = np.linspace(1, 0, 60)
    wanted = np.array([0.7, 0.3])
    plain = calibrate(scores, shares, wanted, k=10, strength=0)
    assert plain.tolist() == list(range(10))
    strong = calibrate(scores, shares, wanted, k=10, strength=0.99)
    assert (strong >= 30).sum() == 3
    # Within a category, items stay in the order of their scores.
    assert strong[strong < 30].tolist() == list(range(7))
    assert strong[strong >= 30].tolist() == [30, 31, 32]


def test_each_pick_maximises_the_objective_of_the_list_so_far():
    rng = np.random.default_rng(1)
    shares = category_shares((rng.random((12, 4)) < 0.4).astype(float))
    scores, wanted = rng.normal(size=12), np.array([0.5, 0.3, 0.0, 0.2])
    unit = (scores - scores.min()) / (scores.max() - scores.min())
    strength = 0.4

    def worth(items: list[int]) -> float:
        return (1 - strength) * unit[items].sum() - strength * divergence(shares[items], wanted)

    picked: list[int] = []
    for _ in range(6):
        picked.append(
            max(set(range(12)) - set(picked), key=lambda item: (worth([*picked, item]), -item))
        )
    assert calibrate(scores, shares, wanted, k=6, strength=strength).tolist() == picked


def test_without_interests_or_categories_the_scores_decide():
    scores = np.array([1.0, 3.0, 2.0])
    assert calibrate(scores, np.eye(3), np.zeros(3), k=3, strength=0.9).tolist() == [1, 2, 0]
    assert calibrate(np.ones(3), np.zeros((3, 2)), np.ones(2) / 2, k=3, strength=0.9).tolist() == [
        0,
        1,
        2,
    ]


CATALOGUE = catalogue_of([["abcd"[i % 4], "xy"[i % 2]] for i in range(40)])
CONFIGS = (
    MmrConfig(strength=0.4, pool=15),
    CalibrationConfig(strength=0.4, pool=15),
)


@st.composite
def batches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(0, 25), min_size=1, max_size=4))
    item_idx = np.zeros((len(sizes), 25), dtype=np.int64)
    score = np.full((len(sizes), 25), -np.inf, dtype=np.float32)
    for row, size in enumerate(sizes):
        item_idx[row, :size] = rng.permutation(np.arange(1, 41))[:size]
        score[row, :size] = -np.sort(rng.normal(size=size))
    histories = [rng.permutation(np.arange(1, 41))[: rng.integers(0, 8)].tolist() for _ in sizes]
    return queries_of(histories), item_idx, score


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@given(batch=batches(), k=st.integers(1, 30))
def test_short_lists_start_long_ones_nothing_is_lost_and_a_batch_is_its_rows(config, batch, k):
    queries, item_idx, score = batch
    reranker = Reranker(config, CATALOGUE)
    full = reranker.order(queries, item_idx, score, k=25)
    for row, places in enumerate(full):
        assert sorted(places.tolist()) == list(range(25))
        assert places[15:].tolist() == list(range(15, 25)), "the rest follows by score"
        one = queries.take(slice(row, row + 1))
        alone = reranker.order(one, item_idx[row : row + 1], score[row : row + 1], k=25)
        assert alone[0].tolist() == places.tolist()
    short = reranker.order(queries, item_idx, score, k=k)
    assert short[:, :k].tolist() == full[:, :k].tolist()
    assert (np.sort(short, axis=1) == np.arange(25)).all()


def test_new_items_get_the_mean_vector_of_their_categories():
    catalogue = catalogue_of([["a"], ["a"], ["b"], ["a", "b"], [], ["c"]])
    known = np.array([[0, 0], [1, 0], [3, 0], [0, 2]], dtype=np.float32)
    vectors = ItemVectors(known, catalogue, new=None)
    rows = vectors(np.array([2, 4, 5, 6]))
    overall = [4 / 3, 2 / 3]
    np.testing.assert_allclose(rows, [[3, 0], [1, 1], overall, overall], rtol=1e-6)
    given_ = ItemVectors(known, catalogue, new=np.full((3, 2), 7.0))
    assert given_(np.array([1, 6])).tolist() == [[1, 0], [7, 7]]


def test_mmr_compares_the_vectors_that_were_chosen():
    catalogue = catalogue_of([["a"], ["b"], ["a"]])
    source = np.array([[0, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    vectors = ItemVectors(source, catalogue, new=None)
    config = MmrConfig(strength=0.5)
    asked = (queries_of([[]]), np.array([[1, 2, 3]]), np.array([[1.0, 0.9, 0.8]]))
    by_category = Reranker(config, catalogue).order(*asked, k=3)
    by_vector = Reranker(config, catalogue, vectors).order(*asked, k=3)
    assert by_category.tolist() == [[0, 1, 2]]  # item 2 has another category than item 1
    assert by_vector.tolist() == [[0, 2, 1]]  # but the same vector as item 1
    assert mmr(asked[2][0], source[1:], k=3, strength=0.5).tolist() == [0, 2, 1]


def test_saved_releases_with_mmr_strength_still_load():
    old = {"candidate_sources": ["ease"], "score_sources": ["ease"], "mmr_strength": 0.3}
    assert ChainConfig.model_validate(old).rerank == MmrConfig(strength=0.3)
    assert ChainConfig.model_validate(old | {"mmr_strength": 0.0}).rerank is None
    with pytest.raises(ValidationError, match=r"mmr_strength = 0.3 and rerank are both set"):
        ChainConfig.model_validate(old | {"rerank": {"kind": "calibration", "strength": 0.1}})
    with pytest.raises(ValidationError, match="vectors"):  # calibration has no vectors
        ChainConfig.model_validate(
            {k: v for k, v in old.items() if k != "mmr_strength"}
            | {"rerank": {"kind": "calibration", "strength": 0.1, "vectors": "content"}}
        )
