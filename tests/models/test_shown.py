"""Training on shown lists: the position explains a part of the clicks, the item the rest."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from flows.runtime.configuration import TrainConfig
from models.ranking.protocol import RankingData, ndcg_of, scores_of
from models.ranking.registry import fit_ranker
from models.ranking.shown import inverse_propensities, position_bias
from models.ranking.stack import StackConfig
from models.ranking.trees.lambdamart import LambdamartConfig
from models.ranking.value_heads import ValueHeadsConfig, fit_value_heads
from shortlist.behaviour.value import NAMES
from tests.models.test_rankers import CONFIGS, OPTIONS, SCHEMA, SIGNAL

OLD = 0
"""Column of the score by which the earlier ranker ordered the lists. Users don't care for it."""
WIDTH = 10


def shown_lists(seed: int, *, requests: int, biased: bool) -> RankingData:
    """Draw lists that are ordered by the column OLD; users click on items with a high SIGNAL.

    Args:
        biased: whether users overlook later positions. If not, clicks show what they want.
    """
    rng = np.random.default_rng(seed)
    x = np.zeros((requests, WIDTH, len(SCHEMA)), dtype=np.float32)
    x[..., [SIGNAL, OLD]] = rng.normal(size=(requests, WIDTH, 2))
    x = np.take_along_axis(x, np.argsort(-x[..., OLD], axis=1)[..., None], axis=1)
    position = np.tile(np.arange(1, WIDTH + 1), (requests, 1))
    examined = rng.random(position.shape) < 1 / position if biased else True
    clicked = examined & (rng.random(position.shape) < 1 / (1 + np.exp(1 - 1.5 * x[..., SIGNAL])))
    items = np.stack([rng.permutation(60)[:WIDTH] + 1 for _ in range(requests)])
    data = RankingData.from_requests(
        x,
        items,
        [row[is_clicked] for row, is_clicked in zip(items, clicked, strict=True)],
        users=[f"u{i}" for i in range(requests)],
        schema=SCHEMA,
        outcomes=np.where(np.arange(len(NAMES)) == NAMES.index("click"), clicked[..., None], 0),
    )
    return replace(data, position=position.ravel()) if biased else data


@pytest.mark.parametrize("kind", ["lambdamart", "deepfm", "value"])
def test_a_ranker_does_not_learn_the_order_in_which_items_were_shown(kind):
    train = shown_lists(0, requests=800, biased=True)
    validation = shown_lists(1, requests=200, biased=False)
    config = CONFIGS[kind]
    without = fit_ranker(config, replace(train, position=None), validation, OPTIONS)
    corrected = fit_ranker(config, train, validation, OPTIONS)
    assert ndcg_of(corrected, validation) > ndcg_of(without, validation) + 0.01
    old = validation.x[:, OLD]
    follows = [
        np.corrcoef(scores_of(ranker, validation), old)[0, 1] for ranker in (corrected, without)
    ]
    assert abs(follows[0]) < follows[1] - 0.1


def test_an_amount_after_a_probability_does_not_learn_the_positions_of_the_latter():
    train = shown_lists(0, requests=800, biased=True)
    validation = shown_lists(1, requests=200, biased=False)
    minutes = NAMES.index("watch_minutes")
    for data in (train, validation):  # an amount that no feature and no position explains
        assert data.outcomes is not None
        data.outcomes[:, minutes] = np.random.default_rng(2).normal(size=len(data.label))
    config = ValueHeadsConfig(weights={"click": 1.0, "watch_minutes": 1.0}, num_rounds=60)
    alone = ValueHeadsConfig(weights={"watch_minutes": 1.0}, num_rounds=60)
    both = fit_value_heads(config, train, validation, OPTIONS).heads[1]
    single = fit_value_heads(alone, train, validation, OPTIONS).heads[0]
    assert both.text == single.text


def test_settings_without_effect_are_refused():
    for config in (LambdamartConfig, ValueHeadsConfig):
        with pytest.raises(ValidationError, match="max_propensity_weight weighs shown lists"):
            config(max_propensity_weight=10)
    with pytest.raises(ValidationError, match="a stack learns from candidates"):
        StackConfig(trees=LambdamartConfig(labels="shown"))
    rankers = [{"kind": "din", "labels": "shown"}, {"kind": "stack", "members": ["din"]}]
    with pytest.raises(ValidationError, match="the stack reads din"):
        TrainConfig.model_validate({"sources": [{"kind": "ease"}], "rankers": rankers})


def test_a_rare_outcome_has_no_head_if_its_scale_is_unknown(capsys):
    train = shown_lists(0, requests=300, biased=True)
    validation = shown_lists(1, requests=60, biased=False)
    for data, rows in ((train, 40), (validation, 5)):
        assert data.outcomes is not None
        data.outcomes[:rows, NAMES.index("purchase")] = 1
    config = ValueHeadsConfig(weights={"click": 1.0, "purchase": 1.0}, num_rounds=20)
    ranker = fit_value_heads(config, train, validation, OPTIONS)
    assert [head.name for head in ranker.heads] == ["click"]
    assert "no head of purchase" in capsys.readouterr().out
    from_candidates = fit_value_heads(config, replace(train, position=None), validation, OPTIONS)
    assert [head.name for head in from_candidates.heads] == ["click", "purchase"]


def test_the_bias_of_positions_is_what_the_items_do_not_explain():
    rng = np.random.default_rng(0)
    position = rng.integers(1, 4, size=60_000)
    margin = rng.normal(size=len(position))
    true = np.array([0, 0.0, -1.0, -2.0])
    label = (rng.random(len(position)) < 1 / (1 + np.exp(-margin - true[position]))).astype(float)
    found = position_bias(margin, label, position)
    rate = np.log(label.mean() / (1 - label.mean()))
    np.testing.assert_allclose(found[1:] - rate, true[1:], atol=0.08)


def test_inverse_propensities_are_relative_to_the_median_and_clipped():
    given = np.array([0.5, 0.25, 0.25, 0.001, np.nan, 0.0], dtype=np.float32)
    # The inverses 2, 4, 4 and 1000 have the median 4.
    expected = [0.5, 1, 1, 10, 1, 1]
    np.testing.assert_allclose(inverse_propensities(given, clip=10), expected)
    assert inverse_propensities(given, clip=None) is None
    assert inverse_propensities(np.array([1.0, 1.0, np.nan]), clip=10) is None  # no exploration
    assert inverse_propensities(np.array([np.nan]), clip=10) is None
    assert inverse_propensities(None, clip=10) is None


def test_requests_and_shown_lists_are_joined():
    shown = shown_lists(0, requests=3, biased=True)
    plain = shown_lists(1, requests=2, biased=False)
    both = RankingData.concat([plain, replace(shown, propensity=np.ones(30, dtype=np.float32))])
    assert both.position is not None
    assert both.propensity is not None
    assert both.position.tolist() == [0] * 20 + list(range(1, 11)) * 3
    assert np.isnan(both.propensity).sum() == 20
    taken = both.take(np.array([4, 0]))
    assert taken.position is not None
    assert taken.position.tolist() == [*range(1, 11), *[0] * 10]
