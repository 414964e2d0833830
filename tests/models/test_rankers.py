"""Every ranker learns an obvious order, scores a request alone as in a batch, and can be saved."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.ranking.blend import Blend, BlendConfig, fit_blend
from models.ranking.neural.dcnv2 import Dcnv2Config
from models.ranking.neural.deepfm import DeepfmConfig
from models.ranking.neural.din import DinConfig
from models.ranking.neural.fit import draw_candidates
from models.ranking.neural.quantiles import Quantiles
from models.ranking.neural.ranker import NeuralRanker
from models.ranking.neural.transformer import TransformerConfig
from models.ranking.neural.wide_deep import WideDeepConfig
from models.ranking.protocol import (
    Ranker,
    RankingData,
    RankingError,
    ndcg_of,
    pad_groups,
    scores_of,
)
from models.ranking.registry import KINDS, RankerConfig, fit_ranker, load_ranker
from models.ranking.schema import RankingSchema
from models.ranking.stack import StackConfig
from models.ranking.trees.lambdamart import Lambdamart, LambdamartConfig, fit_lambdamart
from models.ranking.value_heads import ValueHeadsConfig
from models.training import OptimiserConfig, TrainingOptions
from shortlist.behaviour.value import NAMES
from shortlist.config import Config

SCHEMA = RankingSchema(("ease",), (("gender", 3),))
SIGNAL = SCHEMA.names.index("ease:score_z")
GENDER = SCHEMA.names.index("profile_gender")
QUICK: dict[str, Any] = {
    "hidden_dims": (32,),
    "num_candidates": 20,
    "batch_size": 8,
    "optimiser": OptimiserConfig(learning_rate=1e-2, warmup_steps=5, num_epochs=12),
}
TREES = LambdamartConfig(num_rounds=40, min_data_in_leaf=10, learning_rate=0.2)
CONFIGS = {
    "lambdamart": TREES,
    "wide_deep": WideDeepConfig(**QUICK),
    "deepfm": DeepfmConfig(**QUICK),
    "dcnv2": Dcnv2Config(**QUICK, rank=8),
    "din": DinConfig(**QUICK),
    "transformer": TransformerConfig(**QUICK, model_dim=16),
    "value": ValueHeadsConfig(
        weights={"click": 1.0}, num_rounds=60, min_data_in_leaf=10, learning_rate=0.2
    ),
    "blend": BlendConfig(),
    "stack": StackConfig(members=("deepfm",), folds=2, trees=TREES),
}
LISTWISE = ("transformer",)
OPTIONS = TrainingOptions(seed=3, num_threads=1)


def make_data(seed: int, *, requests: int = 200) -> RankingData:
    """Draw requests with 12 to 24 candidates; the two with the highest EASE score are relevant."""
    rng = np.random.default_rng(seed)
    width = 24
    candidates = np.stack([rng.permutation(60)[:width] + 1 for _ in range(requests)])
    candidates[np.arange(width) >= rng.integers(12, width + 1, size=requests)[:, None]] = 0
    x = np.zeros((requests, width, len(SCHEMA)), dtype=np.float32)
    noise = [0, 5, 12, 20, 25]
    x[..., [SIGNAL, *noise]] = rng.normal(size=(requests, width, 1 + len(noise)))
    x[..., GENDER] = rng.integers(0, 3, size=(requests, 1))
    signal = np.where(candidates > 0, x[..., SIGNAL], -np.inf)
    best = np.argsort(-signal, axis=1)[:, :2]
    relevant = list(np.take_along_axis(candidates, best, axis=1))
    users = [f"u{i % 40}" for i in range(requests)]
    clicked = np.stack(
        [np.isin(row, wanted) for row, wanted in zip(candidates, relevant, strict=True)]
    )
    return RankingData.from_requests(
        x,
        candidates,
        relevant,
        users=users,
        schema=SCHEMA,
        outcomes=np.where(np.arange(len(NAMES)) == NAMES.index("click"), clicked[..., None], 0),
    )


@pytest.fixture(scope="module")
def train() -> RankingData:
    return make_data(0)


@pytest.fixture(scope="module")
def validation() -> RankingData:
    return make_data(1, requests=60)


@pytest.fixture(scope="module")
def rankers(train, validation) -> dict[str, Ranker]:
    fitted: dict[str, Ranker] = {}
    for kind, config in CONFIGS.items():
        fitted[kind] = fit_ranker(config, train, validation, OPTIONS, fitted=fitted)
    return fitted


def test_every_kind_is_tested():
    assert set(CONFIGS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_learns_an_obvious_signal(kind, rankers):
    unseen = make_data(2, requests=80)
    chance = unseen.mean_ndcg(np.random.default_rng(0).random(len(unseen.x)), k=5)
    assert chance < 0.35
    assert ndcg_of(rankers[kind], unseen, k=5) > 0.9
    assert isinstance(rankers[kind], Ranker)
    assert rankers[kind].name == kind


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_keep_the_scores(kind, rankers, validation, tmp_path):
    rankers[kind].save(tmp_path)
    loaded = load_ranker(kind, tmp_path)
    np.testing.assert_array_equal(
        scores_of(loaded, validation),
        scores_of(rankers[kind], validation),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_alone_scores_as_in_a_batch(kind, rankers, validation):
    together = scores_of(rankers[kind], validation)
    assert together.dtype == np.float32
    assert together.shape == (len(validation.x),)
    for request in (0, len(validation) - 1):
        rows = validation.rows[request]
        rows = rows[rows >= 0]
        alone = scores_of(rankers[kind], validation.take(np.array([request])))
        np.testing.assert_allclose(alone, together[rows], rtol=1e-4, atol=1e-5)
        if kind not in LISTWISE:
            half = rows[::2]
            requests = replace(
                validation.take(np.array([request])).requests, group=np.array([len(half)])
            )
            fewer = rankers[kind].predict(validation.x[half], validation.item_idx[half], requests)
            np.testing.assert_allclose(fewer, together[half], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_candidates_and_items_newer_than_the_training(kind, rankers):
    width = len(SCHEMA)
    empty = np.zeros(0, dtype=np.int64)
    assert rankers[kind].predict(np.zeros((0, width), dtype=np.float32), empty).shape == (0,)
    scores = rankers[kind].predict(np.zeros((2, width), dtype=np.float32), np.array([0, 10**6]))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", ["lambdamart", "deepfm", "stack"])
def test_the_seed_decides(kind, train, validation):
    def scores(seed: int) -> np.ndarray:
        options = TrainingOptions(seed=seed, num_threads=1)
        ranker = fit_ranker(CONFIGS[kind], train, validation, options)
        return ranker.predict(validation.x, validation.item_idx)

    first = scores(5)
    np.testing.assert_array_equal(scores(5), first)
    assert not np.array_equal(scores(6), first)


@pytest.mark.parametrize("kind", ["lambdamart", "deepfm"])
def test_nothing_to_learn_from_is_refused(kind, train, validation):
    hopeless = train.take(np.arange(3))
    hopeless.label[:] = 0
    with pytest.raises(RankingError, match="none of 3 requests"):
        fit_ranker(CONFIGS[kind], hopeless, validation, OPTIONS)


def test_models_are_averaged_and_saved_one_by_one(train, validation, tmp_path):
    config = CONFIGS["lambdamart"].model_copy(update={"num_models": 2})
    ranker = fit_ranker(config, train, validation, OPTIONS)
    alone = [
        Lambdamart(booster).predict(validation.x, validation.item_idx)
        for booster in ranker.boosters
    ]
    assert not np.array_equal(alone[0], alone[1])
    mean = ranker.predict(validation.x, validation.item_idx)
    np.testing.assert_allclose(mean, np.mean(alone, axis=0), rtol=1e-5)
    ranker.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    again = Lambdamart.load(tmp_path)
    np.testing.assert_array_equal(again.predict(validation.x, validation.item_idx), mean)
    with pytest.raises(FileNotFoundError, match="no model-"):
        Lambdamart.load(tmp_path.parent)


def test_leaves_grow_with_the_data(train, validation):
    """The minimum leaf size is a share of the training rows."""
    options = TrainingOptions(seed=3, num_threads=1)
    small = fit_lambdamart(LambdamartConfig(num_models=1, num_rounds=2), train, validation, options)
    text = small.boosters[0].model_to_string()
    assert f"[min_data_in_leaf: {len(train.learnable().label) // 150}]" in text


def test_the_importance_names_the_signal(rankers):
    ranker = rankers["lambdamart"]
    assert isinstance(ranker, Lambdamart)
    importance = ranker.importance(SCHEMA)
    assert next(iter(importance)) == "ease:score_z"
    assert sum(importance.values()) == pytest.approx(1)


def test_the_blend_leaves_out_a_useless_member(rankers, validation):
    class Coin:
        name = "deepfm"

        def predict(self, x, item_idx, requests=None):
            return np.random.default_rng(0).random(len(x)).astype(np.float32)

        def save(self, folder):
            raise NotImplementedError

    blend = fit_blend({"lambdamart": rankers["lambdamart"], "deepfm": Coin()}, validation)
    assert blend.factors["lambdamart"] > blend.factors["deepfm"]
    both = rankers["blend"]
    assert isinstance(both, Blend)
    members = [ndcg_of(member, validation) for member in both.members.values()]
    assert ndcg_of(both, validation) >= max(members)


def test_deepfm_is_refused_under_another_schema(rankers, tmp_path):
    rankers["deepfm"].save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["schema"]["names"][0] = "something_else"
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="something_else"):
        NeuralRanker.load(tmp_path)


def test_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'forest' is unknown, want one of lambdamart, wide_deep"):
        load_ranker("forest", tmp_path)


def test_the_config_union_goes_by_kind():
    class Rankers(Config):
        rankers: tuple[RankerConfig, ...]

    parsed = Rankers.model_validate({"rankers": [{"kind": "deepfm", "embedding_dim": 4}]})
    assert parsed.rankers == (DeepfmConfig(embedding_dim=4),)


def test_ndcg_counts_what_no_source_found():
    # One request with candidates 1, 2, 3. Relevant are 2, which is ranked second, and 9, which no
    # source found.
    x = np.zeros((1, 3, len(SCHEMA)), dtype=np.float32)
    data = RankingData.from_requests(
        x, np.array([[1, 2, 3]]), [np.array([2, 9])], users=["u"], schema=SCHEMA
    )
    scores = np.array([3.0, 2.0, 1.0])
    assert data.ndcg(scores)[0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))
    assert np.isnan(
        RankingData.from_requests(
            x, np.array([[1, 2, 3]]), [np.array([], dtype=np.int64)], users=["u"], schema=SCHEMA
        ).ndcg(scores)[0]
    )


def test_concat_and_take_keep_requests_together():
    one, two = make_data(5, requests=3), make_data(6, requests=2)
    both = RankingData.concat([one, two])
    assert len(both) == 5
    again = both.take(np.array([3, 4]))
    np.testing.assert_array_equal(again.x, two.x)
    np.testing.assert_array_equal(again.group, two.group)
    assert pad_groups(np.array([2, 1])).tolist() == [[0, 1], [2, -1]]


def test_user_weights_make_users_count_alike():
    data = make_data(7, requests=41)  # u0 has two requests, the others one
    weights = data.user_weights()
    assert weights[0] * 2 == pytest.approx(weights[1])
    assert weights.mean() == pytest.approx(1)


def test_drawn_candidates_keep_half_for_comparison():
    """At most half of the drawn candidates are relevant, so that pairs can be compared."""
    data = make_data(8, requests=4)
    data.label[:] = 0
    data.label[data.rows[0][:8]] = 1  # eight relevant in the first request
    rows = draw_candidates(data, np.arange(4), count=6, rng=np.random.default_rng(0))
    assert rows.shape == (4, 6)
    assert data.label[rows[0]].sum() == 3
    assert len(np.unique(rows)) == 24
    for drawn, own in zip(rows, data.rows, strict=True):
        assert set(drawn) <= set(own[own >= 0])


def test_quantiles_put_ties_in_their_middle():
    """Equal values get the middle of their quantiles; values beyond the fit are clipped."""
    rng = np.random.default_rng(0)
    x = np.column_stack([np.arange(1001.0), np.where(np.arange(1001) < 900, 0, 5)])
    quantiles = Quantiles.fit(x.astype(np.float32), rng=rng)
    z = quantiles.transform(np.array([[500, 0], [0, 5], [2000, 99]], dtype=np.float32))
    assert z[:, 0] == pytest.approx([0, -1, 1], abs=1e-6)
    assert -0.2 < z[0, 1] < 0 < z[1, 1] < 1
    assert z[2, 1] == z[1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_deepfm_is_trained_on_the_device_and_predicts_on_the_cpu(train, validation):
    options = TrainingOptions(device="cuda", seed=3)
    ranker = fit_ranker(CONFIGS["deepfm"], train, validation, options)
    assert torch.cuda.max_memory_allocated() > 0
    assert ranker.predict(validation.x, validation.item_idx).shape == (len(validation.x),)
