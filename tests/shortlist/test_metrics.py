"""Metrics with expected values written as arithmetic."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.metrics import (
    bootstrap_mean,
    coverage,
    coverage_interval,
    gini,
    hits,
    intra_list_diversity,
    mrr,
    ndcg,
    novelty,
    paired_difference,
    popularity_bias,
    precision,
    recall,
)

RANKED = np.array([[3, 1, 5, 2], [4, 0, 0, 0], [1, 2, 3, 4]])
RELEVANT = [np.array([1, 2, 9]), np.array([7]), np.array([], dtype=np.int64)]


def test_recall():
    assert recall(RANKED, RELEVANT, k=4)[:2] == pytest.approx([2 / 3, 0 / 1])
    assert recall(RANKED, RELEVANT, k=2)[0] == pytest.approx(1 / 3)


def test_precision_counts_empty_places_as_misses():
    assert precision(RANKED, RELEVANT, k=4)[:2] == pytest.approx([2 / 4, 0 / 4])
    assert precision(np.array([[1, 0]]), [np.array([1])], k=2)[0] == pytest.approx(1 / 2)


def test_ndcg():
    dcg = 1 / log2(3) + 1 / log2(5)  # hits at ranks 2 and 4
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)  # three relevant items at ranks 1 to 3
    assert ndcg(RANKED, RELEVANT, k=4)[0] == pytest.approx(dcg / ideal)
    ideal_of_two = 1 / log2(2) + 1 / log2(3)  # k = 2 allows only two hits
    assert ndcg(RANKED, RELEVANT, k=2)[0] == pytest.approx((1 / log2(3)) / ideal_of_two)


def test_ndcg_of_a_list_shorter_than_k():
    assert ndcg(np.array([[1]]), [np.array([1, 2])], k=10)[0] == pytest.approx(
        1 / (1 / log2(2) + 1 / log2(3))
    )


def test_mrr_is_of_the_first_hit():
    assert mrr(RANKED, RELEVANT, k=4)[:2] == pytest.approx([1 / 2, 0])
    assert mrr(RANKED, RELEVANT, k=1)[0] == 0


@pytest.mark.parametrize("metric", [recall, precision, ndcg, mrr])
def test_nothing_relevant_is_nan(metric):
    assert np.isnan(metric(RANKED, RELEVANT, k=4)[2])


LISTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 12), min_size=3, max_size=3),
        st.sets(st.integers(1, 30), max_size=8),
    ),
    max_size=6,
)


@given(LISTS)
def test_a_hit_is_membership_in_the_set_of_its_own_list(rows):
    ranked = np.array([places for places, _ in rows], dtype=np.int64).reshape(len(rows), 3)
    relevant = [np.array(sorted(wanted), dtype=np.int64) for _, wanted in rows]
    expected = [[item > 0 and item in wanted for item in places] for places, wanted in rows]
    assert hits(ranked, relevant).tolist() == expected


def test_lists_without_their_relevant_items_are_refused():
    with pytest.raises(ValueError, match="1 sets of relevant items for 2 lists"):
        hits(np.array([[1], [2]]), [np.array([1])])


def test_padding_is_never_a_hit():
    assert not hits(np.array([[0, 0]]), [np.array([0])]).any()


def test_coverage_counts_distinct_items():
    assert coverage(np.array([[1, 2], [2, 0]]), num_items=8) == 2 / 8


def test_diversity_is_the_mean_distance_of_pairs():
    vectors = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=float)
    pairs = [1 - 0, 1 - 1 / 2**0.5, 1 - 1 / 2**0.5]  # (1, 2), (1, 3), (2, 3)
    figure = intra_list_diversity(np.array([[1, 2, 3], [1, 0, 0]]), vectors)
    assert figure[0] == pytest.approx(sum(pairs) / 3)
    assert np.isnan(figure[1])


def test_novelty_is_self_information_with_one_added_to_each_count():
    counts = np.array([0, 3, 1])  # shares (3 + 1) / (4 + 2) and (1 + 1) / (4 + 2)
    assert novelty(np.array([[1, 2]]), counts)[0] == pytest.approx((-log2(4 / 6) - log2(2 / 6)) / 2)


def test_popularity_bias_is_the_mean_percentile():
    counts = np.array([0, 5, 1, 9, 2])  # percentiles: 3/4, 1/4, 4/4, 2/4
    assert popularity_bias(np.array([[3, 2, 0]]), counts)[0] == pytest.approx((4 / 4 + 1 / 4) / 2)


def test_gini():
    assert gini(np.array([[1, 2, 3, 4]]), num_items=4) == pytest.approx(0)
    # one of four items gets all impressions: (2 * 4 - 4 - 1) * 2 / (4 * 2)
    assert gini(np.array([[1], [1]]), num_items=4) == pytest.approx(3 * 2 / (4 * 2))


def test_bootstrap_is_over_users_and_leaves_nan_out():
    users = ["a", "a", "b", "c"]
    values = np.array([1.0, 0.0, 1.0, np.nan])
    figure = bootstrap_mean(users, values, rng=np.random.default_rng(0), draws=200)
    assert figure["mean"] == pytest.approx(((1 + 0) / 2 + 1) / 2)
    assert figure["users"] == 2
    assert figure["low"] == pytest.approx(0.5)
    assert figure["high"] == pytest.approx(1.0)


def test_bootstrap_of_nothing_is_nan():
    figure = bootstrap_mean(["a"], np.array([np.nan]), rng=np.random.default_rng(0))
    assert np.isnan(figure["mean"])
    assert figure["users"] == 0


def test_coverage_counts_distinct_items_and_its_interval_holds_the_figure():
    shown = np.array([[1, 2], [2, 0], [3, 0]])
    figure = coverage_interval(shown, ["a", "a", "b"], num_items=10)
    assert figure["mean"] == 3 / 10
    # Jackknife: without user a, only item 3 is shown (coverage .1); without b, items 1 and 2 (.2).
    # The mean is .15, and each deviates by .05.
    error = np.sqrt((2 - 1) / 2 * 2 * 0.05**2)
    assert figure["high"] == pytest.approx(0.3 + 1.96 * error)
    assert figure["low"] == pytest.approx(0.3 - 1.96 * error)


@given(st.integers(0, 2**32 - 1))
def test_the_coverage_of_fresh_users_lies_in_the_interval(seed):
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 30, size=(12, 4))
    figure = coverage_interval(shown, [f"u{i // 2}" for i in range(12)], num_items=30)
    assert 0 <= figure["low"] <= figure["mean"] <= figure["high"] <= 1


def test_a_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(0)
    users = [f"u{i}" for i in range(200)]
    luck = rng.random(200)
    better, worse = 0.5 * luck + 0.1, 0.5 * luck
    figure = paired_difference(users, better, worse, rng=rng, draws=100)
    assert figure["mean"] == pytest.approx(0.1)
    assert figure["low"] == pytest.approx(0.1)
    alone = bootstrap_mean(users, better, rng=rng, draws=100)
    assert alone["high"] - alone["low"] > 0.02
    # a request with NaN for one of the methods is left out of both means
    figure = paired_difference(
        ["a", "b"], np.array([1.0, np.nan]), np.array([0.5, 0.0]), rng=rng, draws=10
    )
    assert figure["users"] == 1
