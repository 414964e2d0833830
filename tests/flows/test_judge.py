"""Figures over lists, by hand: slices, coverage with its interval, quality per user."""

import numpy as np
import pytest

from flows.judge import Lists, coverage_interval, quality, slices_of
from models.queries import Queries


class Tick:
    """The part of a JudgedTick that slices read."""

    def __init__(self, seen, relevant):
        self.queries = Queries(
            user_ids=[str(i) for i in range(len(seen))],
            at=np.zeros(len(seen), dtype=np.int64),
            history=np.zeros((len(seen), 1), dtype=np.int64),
            history_time=np.zeros((len(seen), 1), dtype=np.int64),
            history_value=np.zeros((len(seen), 1), dtype=np.float32),
            seen=[np.array(s, dtype=np.int64) for s in seen],
            user=np.zeros((len(seen), 0), dtype=np.float32),
            context=np.zeros((len(seen), 0), dtype=np.float32),
            profile=np.zeros((len(seen), 0), dtype=np.int64),
        )
        self.relevant = [np.array(r, dtype=np.int64) for r in relevant]


def test_quality_is_the_mean_per_user_and_then_over_users():
    lists = Lists(np.array([[1, 2], [3, 1], [4, 5]]))
    users = ["a", "a", "b"]
    relevant = [np.array([1]), np.array([9]), np.array([5, 4])]
    figures = quality(
        lists, users, relevant, relevant, ks=(2,), rng=np.random.default_rng(0), draws=50
    )
    # user a: (1 + 0) / 2; user b: 2 of 2
    assert figures["recall@2"]["mean"] == pytest.approx(((1 + 0) / 2 + 1) / 2)
    # user a: (1/2 + 0) / 2; user b: 2/2
    assert figures["precision@2"]["mean"] == pytest.approx(((1 / 2 + 0) / 2 + 1) / 2)
    assert figures["mrr@2"]["mean"] == pytest.approx(((1 + 0) / 2 + 1) / 2)
    assert figures["ndcg@2"]["low"] <= figures["ndcg@2"]["mean"] <= figures["ndcg@2"]["high"]


def test_slices_split_requests_by_history_and_items_by_popularity():
    counts = np.array([0, 1, 1, 1, 1, 9])  # item 5 is the head: the tail is 80% of five items
    ticks = [Tick(seen=[[], [1] * 3, [1] * 20], relevant=[[1, 5], [5], [2]])]
    slices = {
        name: [w.tolist() for w in wanted] for name, wanted in slices_of(ticks, counts).items()
    }
    assert slices["new_users"] == [[1, 5], [], []]
    assert slices["light_users"] == [[], [5], []]
    assert slices["regular_users"] == [[], [], [2]]
    assert slices["tail_items"] == [[1], [], [2]]
    assert slices["head_items"] == [[5], [5], []]


def test_coverage_counts_distinct_items_and_never_padding():
    shown = np.array([[1, 2], [2, 0], [3, 0]])
    figure = coverage_interval(
        shown, ["a", "a", "b"], num_items=10, rng=np.random.default_rng(0), draws=100
    )
    assert figure["mean"] == 3 / 10
    assert 1 / 10 <= figure["low"] <= figure["high"] <= 3 / 10
