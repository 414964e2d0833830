"""The cascade: the full ranker scores the best candidates by a rough score, the others follow."""

import lightgbm as lgb
import numpy as np
import pytest

from models.ranking.blend import Blend
from models.ranking.cascade import cascade, cascade_all
from models.ranking.gbdt import Lambdamart
from models.ranking.protocol import RankingData
from models.ranking.trees import MIN_ROUGH_TREES, ROUGH_SHARE


@pytest.fixture(scope="module")
def boosters() -> list[lgb.Booster]:
    """Three models of different sizes with a categorical column."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 6))
    x[:, 5] = rng.integers(4, size=len(x))
    y = x[:, 0] + x[:, 1] * (x[:, 5] == 2) + 0.1 * rng.normal(size=len(x))
    params = {"objective": "regression", "verbosity": -1, "num_leaves": 7, "bagging_freq": 1}
    return [
        lgb.train(
            params | {"seed": seed, "bagging_fraction": 0.5, "bagging_seed": seed},
            lgb.Dataset(x, label=y, categorical_feature=[5]),
            rounds,
        )
        for seed, rounds in enumerate((60, 45, 80))
    ]


def rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, 5] = rng.integers(5, size=n)
    return x, np.arange(1, n + 1)


def test_merged_models_score_like_the_mean_of_their_parts(boosters, tmp_path) -> None:
    x, item_idx = rows()
    expected = np.mean([booster.predict(x) for booster in boosters], axis=0)
    ranker = Lambdamart(*boosters)
    np.testing.assert_allclose(ranker.predict(x, item_idx), expected, rtol=1e-5, atol=1e-6)
    ranker.save(tmp_path)
    again = Lambdamart.load(tmp_path)
    np.testing.assert_array_equal(again.predict(x, item_idx), ranker.predict(x, item_idx))


def test_the_rough_score_is_the_first_trees_of_every_model(boosters) -> None:
    x, item_idx = rows()
    num_trees = int(ROUGH_SHARE * sum(booster.num_trees() for booster in boosters))
    share = [len(range(n, num_trees, 3)) for n in range(3)]  # one of each in turn
    expected = sum(
        booster.predict(x, num_iteration=trees)
        for booster, trees in zip(boosters, share, strict=True)
    )
    rough = Lambdamart(*boosters).rough(x, item_idx)
    np.testing.assert_allclose(rough, expected, rtol=1e-5, atol=1e-6)


def test_the_best_get_the_full_score_and_the_rest_comes_after_them(boosters) -> None:
    x, item_idx = rows()
    ranker = Lambdamart(*boosters)
    scores, full = cascade(ranker, x, item_idx, full=100), ranker.predict(x, item_idx)
    rough = ranker.rough(x, item_idx)
    assert rough is not None
    best = np.argsort(-rough)[:100]
    rest = np.setdiff1d(np.arange(len(x)), best)
    np.testing.assert_array_equal(scores[best], full[best])
    assert scores[rest].max() < scores[best].min()
    order = rest[np.argsort(-scores[rest], kind="stable")]
    assert (np.diff(rough[order]) <= 1e-6).all()


def test_few_candidates_or_few_trees_all_get_the_full_score(boosters) -> None:
    x, item_idx = rows()
    ranker = Lambdamart(*boosters)
    full = ranker.predict(x, item_idx)
    np.testing.assert_array_equal(cascade(ranker, x, item_idx, full=400), full)
    assert int(ROUGH_SHARE * 45) < MIN_ROUGH_TREES
    small = Lambdamart(boosters[1])
    assert small.rough(x, item_idx) is None
    np.testing.assert_array_equal(cascade(small, x, item_idx, full=10), small.predict(x, item_idx))


def test_a_blend_is_rough_by_its_trees(boosters) -> None:
    class Constant:
        name = "deepfm"

        def predict(self, x, item_idx):
            return np.full(len(x), 2.0, dtype=np.float32)

    x, item_idx = rows()
    trees = Lambdamart(*boosters)
    blend = Blend({"deepfm": Constant(), "lambdamart": trees}, {"deepfm": 0.5, "lambdamart": 1.0})
    np.testing.assert_array_equal(blend.rough(x, item_idx), trees.rough(x, item_idx))
    alone = Blend({"deepfm": Constant(), "lambdamart": trees}, {"deepfm": 0.5, "lambdamart": 0.0})
    assert alone.rough(x, item_idx) is None
    assert (cascade(alone, x, item_idx, full=10) == 1).all()


def test_every_request_is_its_own_cascade(boosters) -> None:
    x, item_idx = rows(90)
    ranker = Lambdamart(*boosters)
    group = np.array([20, 0, 50, 20])
    data = RankingData(
        x=x,
        item_idx=item_idx,
        label=np.zeros(90, dtype=np.float32),
        group=group,
        users=["a", "b", "c", "d"],
        num_relevant=np.ones(4, dtype=np.int64),
        schema=None,  # pyright: ignore[reportArgumentType]
    )
    scores = cascade_all(ranker, data, full=30)
    full = ranker.predict(x, item_idx)
    np.testing.assert_array_equal(scores[:20], full[:20])
    np.testing.assert_array_equal(scores[70:], full[70:])
    assert (scores[20:70] == full[20:70]).sum() == 30
