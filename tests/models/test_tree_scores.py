"""TreeScores and LightGBM's own predict give equal scores."""

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ranking.trees.kernel import BLOCK
from models.ranking.trees.lambdamart import Lambdamart
from models.ranking.trees.scores import TreeScores, UnsupportedTreeError

CATEGORICAL = 5
KNOWN_CATEGORIES = 40


def fit(*, seed=0, rows=1_500, rounds=30, missing=0.0, **params) -> lgb.Booster:
    """Return a model of 6 features. Feature 5 has category codes up to KNOWN_CATEGORIES."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).round(1)
    x[:, CATEGORICAL] = rng.integers(KNOWN_CATEGORIES, size=rows)
    y = x[:, 0] * (x[:, 1] > 0) + (x[:, CATEGORICAL] % 3) + 0.1 * rng.normal(size=rows)
    x[rng.random(x.shape) < missing] = np.nan
    given = {"objective": "regression", "verbosity": -1, "seed": seed, "num_leaves": 7}
    given |= {"min_data_in_leaf": 5, "cat_smooth": 1.0, "min_data_per_group": 5} | params
    data = lgb.Dataset(x, label=y, categorical_feature=[CATEGORICAL])
    return lgb.train(given, data, rounds)


def requests(booster: lgb.Booster, rows: int, *, seed: int = 1) -> np.ndarray:
    """Rows with values at and beside each threshold, missing values and unknown categories."""
    scores = TreeScores.parse([booster.model_to_string()])
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    for column in range(6):
        limits = scores.threshold[scores.feature == column]
        limits = limits[np.abs(limits) > 1e-30]  # LightGBM reads these from text less exactly
        if len(limits):
            near = rng.choice(limits, rows)
            step = rng.choice(np.array([-np.inf, np.inf], dtype=np.float32), rows)
            near = np.where(rng.random(rows) < 0.5, near, np.nextafter(near, step))
            x[:, column] = np.where(rng.random(rows) < 0.8, near, x[:, column])
    x[:, CATEGORICAL] = rng.integers(-2, KNOWN_CATEGORIES + 100, size=rows)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x


def assert_equal(booster: lgb.Booster, x: np.ndarray) -> None:
    ours = TreeScores.parse([booster.model_to_string()])(x)
    np.testing.assert_array_equal(ours, booster.predict(x, raw_score=True))


@given(
    seed=st.integers(0, 10_000),
    leaves=st.sampled_from([2, 3, 7, 31, 32, 33, 64]),
    missing=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=15, deadline=None)
def test_scores_equal_those_of_lightgbm_bit_by_bit(seed, leaves, missing) -> None:
    booster = fit(seed=seed, rounds=10, num_leaves=leaves, missing=missing)
    assert_equal(booster, requests(booster, 400, seed=seed))


@pytest.mark.parametrize("rows", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_any_number_of_candidates(rows) -> None:
    booster = fit()
    x = requests(booster, max(rows, 1))[:rows]
    if rows == 0:  # LightGBM refuses an empty matrix
        assert TreeScores.parse([booster.model_to_string()])(x).shape == (0,)
    else:
        assert_equal(booster, x)


def test_categories_decide_in_the_model() -> None:
    scores = TreeScores.parse([fit().model_to_string()])
    assert (scores.words[:, 1] > scores.words[:, 0]).any()


def test_a_model_that_learned_nothing_gives_its_constant() -> None:
    booster = fit(rows=60, rounds=3, min_data_in_leaf=100)
    assert_equal(booster, requests(booster, 5))


def test_several_models_are_averaged_and_saved(tmp_path) -> None:
    boosters = [fit(seed=seed, rounds=rounds) for seed, rounds in enumerate((60, 45, 80))]
    ranker = Lambdamart(*boosters)
    x = requests(boosters[0], 300)
    expected = np.mean([booster.predict(x, raw_score=True) for booster in boosters], axis=0)
    found = ranker.predict(x, np.arange(300))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    ranker.save(tmp_path)
    np.testing.assert_array_equal(Lambdamart.load(tmp_path).predict(x, np.arange(300)), found)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"num_leaves": 65, "rows": 5_000, "min_data_in_leaf": 1}, "65 leaves.*at most 64"),
        ({"zero_as_missing": True}, "treats 0 as missing"),
        ({"linear_tree": True, "boost_from_average": False}, "linear models"),
    ],
)
def test_trees_that_cannot_be_scored_are_refused(params, says) -> None:
    model = fit(**params).model_to_string()
    with pytest.raises(UnsupportedTreeError, match=says):
        TreeScores.parse([model])


def test_other_features_than_in_training_are_refused() -> None:
    scores = TreeScores.parse([fit().model_to_string()])
    with pytest.raises(ValueError, match="5 features, the model wants 6"):
        scores(np.zeros((3, 5), dtype=np.float32))
