"""Outcomes of recommendations, and the ranker with a head per outcome."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.head_metrics import auc, calibration_error, grouped_auc, platt, sigmoid
from models.ranking.protocol import RankingData, RankingError
from models.ranking.registry import fit_ranker, load_ranker
from models.ranking.value_heads import ValueHeads, ValueHeadsConfig, fit_value_heads
from models.training import TrainingOptions
from shortlist.behaviour.value import NAMES, Reactions, amounts_at, discounted, value_of
from tests.models.test_rankers import make_data

OPTIONS = TrainingOptions(num_threads=1)
QUICK = {"num_rounds": 60, "min_data_in_leaf": 20, "feature_fraction": 1.0}


def reactions(*rows: tuple) -> Reactions:
    """Return events from (user, item_idx, event_type, time, value)."""
    ordered = sorted(rows, key=lambda row: (row[0], row[3]))
    user, item, kind, time, value = zip(*ordered, strict=True)
    return Reactions(
        np.array(user), np.array(item), np.array(kind), np.array(time), np.array(value, dtype=float)
    )


EVENTS = reactions(
    ("a", 1, "click", 10, np.nan),
    ("a", 1, "click", 11, np.nan),
    ("a", 1, "purchase", 12, 4.5),
    ("a", 2, "watch", 13, 90.0),
    ("a", 2, "watch", 14, 30.0),
    ("a", 3, "rating", 15, 5.0),
    ("a", 3, "return", 99, np.nan),
    ("b", 1, "rating", 10, 1.0),
    ("b", 0, "click", 10, np.nan),
)
SOME = ("click", "revenue", "watch_minutes", "rating", "return")
COLUMNS = [NAMES.index(name) for name in SOME]


def test_gauc_is_the_auc_within_requests_weighted_by_their_candidates():
    label = np.array([1, 0, 0, 1, 0, 0, 0])
    score = np.array([3.0, 2.0, 4.0, 9.0, 1.0, 5.0, 6.0])
    # First request: 1 of 2 pairs; second: 1 of 1; the third has no positive.
    group = np.array([3, 2, 2])
    assert grouped_auc(score, label, group) == pytest.approx((3 * 0.5 + 2 * 1) / 5)
    assert np.isnan(grouped_auc(score[5:], label[5:], np.array([2])))


def test_an_id_that_begins_like_another_has_its_own_outcomes():
    found = reactions(("u1", 1, "click", 5, 0.0)).outcomes(
        ["u12", "u1"], np.array([0, 0]), until=np.array([9, 9])
    )
    assert [items.tolist() for items, _ in found] == [[], [1]]


def test_outcomes_are_read_by_user_item_and_time():
    at, until = np.array([10, 12, 10, 10]), np.array([99, 14, 99, 99])
    found = EVENTS.outcomes(["a", "a", "b", "nobody"], at, until=until)
    items, amounts = found[0]
    assert items.tolist() == [1, 2, 3]
    assert amounts[:, COLUMNS].tolist() == [[1, 4.5, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 2, 0]]
    assert found[1][0].tolist() == [1, 2]
    assert found[1][1][:, COLUMNS[2]].tolist() == [0, 1.5]
    assert found[2][0].tolist() == [1]  # the click on an unknown item is left out
    assert found[2][1][0, COLUMNS].tolist() == [0, 0, 0, -2, 0]
    assert len(found[3][0]) == 0


def test_amounts_of_lists_and_their_discounted_value():
    outcomes = EVENTS.outcomes(["a"], np.array([10]), until=np.array([99]))
    amounts = amounts_at(np.array([[3, 9, 1, 0]]), outcomes)
    weights = {"click": 0.1, "revenue": 1.0, "watch_minutes": 5.0, "rating": 0.5, "return": -1.0}
    value = value_of(amounts, weights)
    assert value[0] == pytest.approx([1.0, 0, 4.6, 0])
    assert discounted(value) == pytest.approx([1.0 + 4.6 / 2])


WEIGHTS = {"click": 0.1, "purchase": 1.0, "watch_minutes": 0.05}
USED = [NAMES.index(name) for name in WEIGHTS]


def with_outcomes(seed: int) -> RankingData:
    """Return data in which column 0 shows clicks, and column 5 purchases and minutes."""
    data = make_data(seed)
    rng = np.random.default_rng(seed)
    clicks = rng.random(len(data.x)) < sigmoid(3 * data.x[:, 0] - 1)
    bought = rng.random(len(data.x)) < sigmoid(3 * data.x[:, 5] - 2)
    minutes = np.where(rng.random(len(data.x)) < 0.5, 5 * np.maximum(data.x[:, 5], 0), 0)
    outcomes = np.zeros((len(data.x), len(NAMES)), dtype=np.float32)
    outcomes[:, USED] = np.stack([clicks, bought, minutes], axis=1)
    return replace(data, outcomes=outcomes)


@pytest.fixture(scope="module")
def fitted() -> tuple[ValueHeads, RankingData]:
    config = ValueHeadsConfig(weights=WEIGHTS, **QUICK)
    ranker = fit_ranker(config, with_outcomes(1), with_outcomes(2), OPTIONS)
    assert isinstance(ranker, ValueHeads)
    return ranker, with_outcomes(3)


def test_the_score_is_the_expected_value(fitted):
    ranker, data = fitted
    value = value_of(data.outcomes, WEIGHTS)
    scores = ranker.predict(data.x, data.item_idx)
    assert scores.mean() == pytest.approx(value.mean(), rel=0.1)
    assert np.corrcoef(scores, value)[0, 1] > 0.4
    for head, column in zip(ranker.heads[:2], data.outcomes[:, USED].T, strict=False):
        assert calibration_error(head.expected(data.x), column) < 0.05
        assert ranker.figures[head.name]["auc"] > 0.75
        assert ranker.figures[head.name]["ece"] < 0.05


def test_other_weights_give_another_order_without_a_new_training(fitted):
    ranker, data = fitted
    for name, column in (("click", 0), ("purchase", 5)):
        scores = ranker.with_weights({name: 1.0}).predict(data.x, data.item_idx)
        of_other = data.x[:, 5 - column]
        own = np.corrcoef(scores, data.x[:, column])[0, 1]
        assert own > np.corrcoef(scores, of_other)[0, 1] + 0.3
    negative = ranker.with_weights({"click": -1.0}).predict(data.x, data.item_idx)
    assert np.array_equal(
        negative, -ranker.with_weights({"click": 1.0}).predict(data.x, data.item_idx)
    )


def test_a_saved_ranker_scores_alike(fitted, tmp_path):
    ranker, data = fitted
    ranker.save(tmp_path)
    loaded = load_ranker("value", tmp_path)
    assert np.array_equal(
        loaded.predict(data.x, data.item_idx), ranker.predict(data.x, data.item_idx)
    )
    assert loaded.figures == ranker.figures


def test_outcomes_that_hardly_happen_get_no_head():
    train = with_outcomes(1)
    train = replace(train, outcomes=np.where(np.arange(len(NAMES)) == USED[1], 0, train.outcomes))
    ranker = fit_value_heads(
        ValueHeadsConfig(weights=WEIGHTS, **QUICK), train, with_outcomes(2), OPTIONS
    )
    assert [head.name for head in ranker.heads] == ["click", "watch_minutes"]
    assert ranker.figures["purchase"] == {"training_events": 0, "head": False}
    none = replace(train, outcomes=np.zeros_like(train.outcomes))
    with pytest.raises(RankingError, match="none of click, purchase, watch_minutes happened"):
        fit_value_heads(ValueHeadsConfig(weights=WEIGHTS), none, with_outcomes(2), OPTIONS)
    with pytest.raises(RankingError, match=r"needs \[value\]"):
        fit_value_heads(ValueHeadsConfig(), train, train, OPTIONS)


def test_values_of_requests_follow_the_order():
    data = with_outcomes(1)
    value = value_of(data.outcomes, WEIGHTS)
    best = data.value(value, WEIGHTS)
    assert (best >= data.value(-value, WEIGHTS) - 1e-6).all()
    first = slice(0, data.group[0])
    expected = np.sort(value[first])[::-1][:10]
    assert best[0] == pytest.approx(discounted(expected[None])[0], rel=1e-5)


@given(slope=st.floats(0.3, 3), offset=st.floats(-2, 2), seed=st.integers(0, 5))
def test_platts_scaling_finds_slope_and_offset(slope, offset, seed):
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=20_000)
    label = (rng.random(20_000) < sigmoid(slope * margin + offset)).astype(float)
    found = platt(margin, label)
    assert found == pytest.approx((slope, offset), abs=0.25)
    assert calibration_error(sigmoid(found[0] * margin + found[1]), label) < 0.02


def test_auc_by_hand():
    assert auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])) == 1.0
    assert auc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([1, 1])))
