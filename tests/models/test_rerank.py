"""Maximal marginal relevance (MMR); expected orders are computed by hand."""

import numpy as np
import pytest

from models.recommend.rerank.mmr import mmr

SCORES = np.array([3.0, 2.8, 1.0])
VECTORS = np.array([[1.0, 0], [2.0, 0], [0, 1.0]])  # the first two have the same direction


def test_strength_zero_keeps_the_order_of_the_scores():
    scores = np.array([0.1, 5.0, -3.0, 5.0, 2.0])
    vectors = np.ones((5, 2))
    assert mmr(scores, vectors, k=5, strength=0).tolist() == [1, 3, 4, 0, 2]
    assert mmr(scores, vectors, k=2, strength=0).tolist() == [1, 3]


def test_by_hand():
    # Scaled scores are 1, 0.9, 0. After item 0, the gain of item 1 is 0.5 * 0.9 - 0.5 * 1, and that
    # of item 2 is 0 - 0.
    assert mmr(SCORES, VECTORS, k=3, strength=0.5).tolist() == [0, 2, 1]
    # With a small strength, the gain of item 1 is 0.8 * 0.9 - 0.2 * 1 = 0.52, more than 0.
    assert mmr(SCORES, VECTORS, k=3, strength=0.2).tolist() == [0, 1, 2]


def test_similarity_is_to_the_nearest_picked():
    scores = np.array([4.0, 3.0, 2.0, 1.9])
    half = 0.5**0.5
    vectors = np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0], [0.5, 0.5, half]])
    # Scaled scores are 1, 0.52, 0.05, 0. After items 0 and 1, the gain of item 2 is 0.02 - 0.5 * 1,
    # because its vector equals that of item 0. The gain of item 3 is 0 - 0.5 * 0.5.
    assert mmr(scores, vectors, k=4, strength=0.5).tolist() == [0, 1, 3, 2]


def test_full_strength_starts_at_the_best_and_looks_at_difference_only():
    picked = mmr(np.array([1.0, 9.0, 8.0]), VECTORS, k=2, strength=1)
    assert picked.tolist() == [0, 2]  # all gains are 0, so item 0 is first; item 1 equals it


def test_padding_is_never_picked_and_k_may_exceed():
    scores = np.array([1.0, -np.inf, 0.5])
    for strength in (0, 0.5, 1):
        assert sorted(mmr(scores, VECTORS, k=10, strength=strength).tolist()) == [0, 2]
    assert mmr(np.full(3, -np.inf), VECTORS, k=2, strength=0.5).tolist() == []


def test_equal_scores_and_zero_vectors():
    assert mmr(np.ones(3), np.zeros((3, 2)), k=3, strength=0.7).tolist() == [0, 1, 2]


def test_more_strength_never_gives_a_less_diverse_list():
    rng = np.random.default_rng(0)
    scores, vectors = rng.normal(size=200), rng.normal(size=(200, 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def similarity(strength: float) -> float:
        picked = unit[mmr(scores, vectors, k=10, strength=strength)]
        return float((picked @ picked.T).sum() - 10)

    assert similarity(0.0) > similarity(0.5) > similarity(1.0)


def test_a_strength_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"strength is 1.5, want 0 to 1"):
        mmr(SCORES, VECTORS, k=1, strength=1.5)
