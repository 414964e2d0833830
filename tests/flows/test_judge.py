"""Metrics of recommendation lists, with expected values written as arithmetic."""

from dataclasses import replace

import numpy as np
import pytest

from flows.evaluation.judge import Lists, filled, quality, slices_of
from models.queries import Queries
from shortlist.features.searches import NO_SEARCHES


class Tick:
    """Stand-in for an EvaluationBatch, with only the fields that `slices_of` reads."""

    def __init__(self, seen, relevant):
        self.queries = Queries(
            user_ids=[str(i) for i in range(len(seen))],
            at=np.zeros(len(seen), dtype=np.int64),
            history=np.zeros((len(seen), 1), dtype=np.int64),
            history_time=np.zeros((len(seen), 1), dtype=np.int64),
            history_value=np.zeros((len(seen), 1), dtype=np.float32),
            history_type=np.zeros((len(seen), 1), dtype=np.int64),
            seen=[np.array(s, dtype=np.int64) for s in seen],
            user=np.zeros((len(seen), 0), dtype=np.float32),
            context=np.zeros((len(seen), 0), dtype=np.float32),
            profile=np.zeros((len(seen), 0), dtype=np.int64),
            searches=[NO_SEARCHES] * len(seen),
        )
        self.relevant = [np.array(r, dtype=np.int64) for r in relevant]
        self.next_set = [wanted[:1] for wanted in self.relevant]


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
    counts = np.array([0, 1, 1, 1, 1, 9])  # the tail is 80% of five items, so only item 5 is head
    ticks = [Tick(seen=[[], [1] * 3, [1] * 20], relevant=[[1, 5], [5], [2]])]
    known = np.array([True, True, False, True, True, True])  # item 2 is cold
    of_slices = slices_of(ticks, counts, known=known)
    slices = {name: [w.tolist() for w in cut.relevant] for name, cut in of_slices.items()}
    assert slices["new_users"] == [[1, 5], [], []]
    assert slices["light_users"] == [[], [5], []]
    assert slices["regular_users"] == [[], [], [2]]
    assert slices["tail_items"] == [[1], [], [2]]
    assert slices["head_items"] == [[5], [5], []]
    assert slices["cold_items"] == [[], [], [2]]
    # Slices also select from the next sets (items 1, 5 and 2), which MRR uses.
    assert [w.tolist() for w in of_slices["new_users"].next_set] == [[1], [], []]
    assert [w.tolist() for w in of_slices["tail_items"].next_set] == [[1], [], [2]]


def test_users_who_may_get_everything_again_are_no_new_users():
    tick = Tick(seen=[[], []], relevant=[[1], [1]])  # with repeats allowed, nothing is blocked
    history = np.array([[0] * 30, [4] * 30])
    tick.queries = replace(tick.queries, history=history)
    slices = slices_of([tick], np.array([0, 1]), known=np.array([True, True]))
    assert [w.tolist() for w in slices["new_users"].relevant] == [[1], []]
    assert [w.tolist() for w in slices["regular_users"].relevant] == [[], [1]]


def test_empty_places_are_filled_with_the_fallback_in_its_order_and_nothing_twice():
    own = Lists(np.array([[0, 0, 0], [7, 0, 0], [7, 8, 9]]))
    popular = Lists(np.array([[1, 7, 2], [1, 7, 2], [1, 7, 2]]))
    assert filled(own, popular).item_idx.tolist() == [[1, 7, 2], [7, 1, 2], [7, 8, 9]]
    short = Lists(np.array([[7, 0, 0], [7, 0, 0], [7, 0, 0]]))
    assert filled(own, short).item_idx.tolist() == [[7, 0, 0], [7, 0, 0], [7, 8, 9]]
