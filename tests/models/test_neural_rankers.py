"""Each neural ranker learns a structure that neither popularity nor one feature shows."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.ranking.neural.dcnv2 import CrossLayer, Dcnv2Config
from models.ranking.neural.deepfm import DeepfmConfig
from models.ranking.neural.din import DinConfig
from models.ranking.neural.ranker import NETWORKS, NeuralRanker
from models.ranking.neural.transformer import TransformerConfig
from models.ranking.neural.wide_deep import WideDeepConfig
from models.ranking.protocol import RankingData, RankingError, ndcg_of, scores_of
from models.ranking.registry import fit_ranker
from models.ranking.requests import History, Requests
from models.ranking.schema import Columns
from models.ranking.stack import NeuralKind, StackConfig, folds_of
from models.training import OptimiserConfig, TrainingOptions
from tests.models import rule_shop

OPTIONS = TrainingOptions(seed=1, num_threads=1)
SCHEMA = Columns(("first", "second", "group"), (("group", 3),))
LIST, ITEMS = 10, 400
CLICK, VIEW = 2, 1
QUICK: dict[str, Any] = {
    "hidden_dims": (32,),
    "batch_size": 16,
    "dropout": 0.0,
    "min_item_rows": 50,  # no item has as many, so that ids aren't memorised
    "optimiser": OptimiserConfig(learning_rate=1e-2, warmup_steps=5, num_epochs=15, patience=15),
}
ONE_EPOCH: dict[str, Any] = {"optimiser": OptimiserConfig(num_epochs=1)}


def few(min_item_rows: int) -> dict[str, Any]:
    """Return the settings of one epoch in which items with so many rows have an embedding."""
    return QUICK | ONE_EPOCH | {"min_item_rows": min_item_rows}


def lists(seed: int, *, requests: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Return random candidates (G, LIST) and features (G, LIST, F)."""
    rng = np.random.default_rng(seed)
    candidates = np.stack([rng.permutation(ITEMS)[:LIST] + 1 for _ in range(requests)])
    x = rng.normal(size=(requests, LIST, len(SCHEMA))).astype(np.float32)
    x[..., 2] = rng.integers(1, 3, size=(requests, 1))
    return candidates, x


def as_data(candidates: np.ndarray, x: np.ndarray, best: np.ndarray) -> RankingData:
    """Return the data in which the candidate in column `best` (G,) is relevant."""
    relevant = list(np.take_along_axis(candidates, best[:, None], axis=1))
    users = [f"u{i % 60}" for i in range(len(candidates))]
    return RankingData.from_requests(x, candidates, relevant, users=users, schema=SCHEMA)


def by_group(seed: int) -> RankingData:
    """The first group wants the largest value of a feature, the second the smallest."""
    candidates, x = lists(seed)
    return as_data(candidates, x, (x[..., 0] * np.where(x[..., 2] == 1, 1, -1)).argmax(1))


def by_history(seed: int) -> RankingData:
    """The relevant candidate was clicked recently; others were viewed, or clicked long ago."""
    candidates, x = lists(seed)
    rng = np.random.default_rng([seed, 1])
    place = np.stack([rng.permutation(LIST)[:4] for _ in candidates])
    told = np.take_along_axis(candidates, place, axis=1)
    seconds = np.tile([86400 * 300, 3600, 60, 60], (len(told), 1)).astype(np.float32)
    kinds = np.tile([CLICK, VIEW, CLICK, VIEW], (len(told), 1))
    return replace(as_data(candidates, x, place[:, 2]), history=History(told, seconds, kinds))


def by_list(seed: int) -> RankingData:
    """Lists with a high mean of one feature want the largest value of another, others the smallest.

    A single candidate hardly shows which mean its list has.
    """
    candidates, x = lists(seed)
    high = np.random.default_rng([seed, 2]).random(len(x)) < 0.5
    x[..., 1] += np.where(high, 0.7, -0.7)[:, None]
    x[..., 2] = 0
    return as_data(candidates, x, (x[..., 0] * np.where(high, 1, -1)[:, None]).argmax(1))


@pytest.mark.parametrize(
    ("config", "structure", "at_least"),
    [
        (WideDeepConfig(**QUICK), by_group, 0.85),
        (DeepfmConfig(**QUICK), by_group, 0.85),
        (Dcnv2Config(**QUICK), by_group, 0.85),
        (Dcnv2Config(**QUICK, loss="pointwise"), by_group, 0.85),
        (DinConfig(**QUICK), by_history, 0.85),
        (TransformerConfig(**QUICK), by_list, 0.75),
        (StackConfig(members=("deepfm",), folds=2), by_group, 0.85),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_learns_a_structure(config, structure, at_least):
    train, validation, unseen = structure(0), structure(1), structure(2)
    fitted = {}
    if isinstance(config, StackConfig):
        fitted["deepfm"] = fit_ranker(DeepfmConfig(**QUICK), train, validation, OPTIONS)
    ranker = fit_ranker(config, train, validation, OPTIONS, fitted=fitted)
    popularity = np.bincount(train.item_idx, weights=train.label, minlength=ITEMS + 1)
    assert unseen.mean_ndcg(popularity[unseen.item_idx].astype(np.float32)) < 0.55
    assert ndcg_of(ranker, unseen) > at_least


def test_a_history_is_cut_to_its_newest_events():
    history = History(
        np.array([[3, 4, 5], [6, 0, 0]]), np.ones((2, 3), np.float32), np.ones((2, 3))
    )
    assert history.newest(2).item_idx.tolist() == [[4, 5], [6, 0]]
    assert history.newest(4).item_idx.tolist() == [[3, 4, 5, 0], [6, 0, 0, 0]]
    both = History.concat([history, History.empty(1)])
    assert both.item_idx.tolist() == [[3, 4, 5], [6, 0, 0], [0, 0, 0]]


def test_a_request_alone_has_the_scores_of_a_batch_with_histories():
    train, data = by_history(0), by_history(1)
    config = DinConfig(**QUICK | ONE_EPOCH)
    ranker = fit_ranker(config, train, data, OPTIONS)
    together = scores_of(ranker, data)
    alone = scores_of(ranker, data.take(np.array([3])))
    np.testing.assert_allclose(alone, together[data.rows[3]], rtol=1e-4, atol=1e-5)
    without = ranker.predict(data.x[:LIST], data.item_idx[:LIST], Requests.alone([LIST]))
    assert not np.allclose(without, together[:LIST])
    empty = ranker.predict(data.x[:0], data.item_idx[:0], Requests.alone([0]))
    assert empty.shape == (0,)


def test_a_listwise_ranker_ignores_padding_and_order():
    data = by_list(0)
    config = TransformerConfig(**QUICK | ONE_EPOCH)
    ranker = fit_ranker(config, data, data, OPTIONS)
    rows = data.rows[0]
    expected = scores_of(ranker, data)[rows]
    order = np.random.default_rng(0).permutation(LIST)
    shuffled = ranker.predict(data.x[rows][order], data.item_idx[rows][order])
    np.testing.assert_allclose(shuffled, expected[order], rtol=1e-4, atol=1e-5)
    # The second list is longer, so the first is padded.
    x, items = (
        np.concatenate([data.x[rows][:4], data.x]),
        np.concatenate([rows[:4] + 1, data.item_idx]),
    )
    groups = Requests.alone([4, *data.group])
    padded = ranker.predict(x, items, groups)[:4]
    np.testing.assert_allclose(padded, ranker.predict(x[:4], items[:4]), rtol=1e-4, atol=1e-5)


def test_rare_items_share_the_embedding_of_unknown_items():
    data = by_group(0)
    config = DeepfmConfig(**few(8))
    ranker = fit_ranker(config, data, data, OPTIONS)
    assert isinstance(ranker, NeuralRanker)
    counts = np.bincount(data.item_idx)
    rows = ranker.encoder.item_rows
    assert (rows[counts < 8] == 0).all()
    assert sorted(rows[counts >= 8]) == list(range(1, (counts >= 8).sum() + 1))


def test_files_of_a_former_version_are_read(tmp_path):
    """Files from before 2026-11-30 have no table of rows: each item has its embedding."""
    data = by_group(0)
    config = DeepfmConfig(**few(1))
    ranker = fit_ranker(config, data, data, OPTIONS)
    assert isinstance(ranker, NeuralRanker)
    count = len(ranker.encoder.item_rows)
    assert ranker.encoder.item_rows.tolist() == list(range(count)), "each item is a candidate"
    ranker.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["item_rows"]
    save_file(tensors, tmp_path / "model.safetensors")
    about = (tmp_path / "model.json").read_text()
    about = about.replace('"num_types": 1', f'"num_items": {count - 1}')
    (tmp_path / "model.json").write_text(about)
    again = NeuralRanker.load(tmp_path)
    np.testing.assert_array_equal(scores_of(again, data), scores_of(ranker, data))


def test_a_cross_layer_multiplies_features():
    layer = CrossLayer(2, rank=None)
    linear = layer.product
    assert isinstance(linear, torch.nn.Linear)
    linear.weight.data = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    linear.bias.data = torch.tensor([0.5, 0.0])
    x0, x = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])
    # x0 * (W x + b) + x with W x + b = (2.5, 2)
    assert layer(x0, x).tolist() == [3 * 2.5 + 1, 4 * 2 + 2]


def test_folds_keep_users_together():
    users = [f"u{i % 7}" for i in range(30)]
    fold = folds_of(users, 3, rng=np.random.default_rng(0))
    assert set(fold) == {0, 1, 2}
    assert all(
        len({f for f, u in zip(fold, users, strict=True) if u == user}) == 1 for user in users
    )
    with pytest.raises(RankingError, match="2 users for 3 folds"):
        folds_of(["a", "b"], 3, rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["blend", "lambdamart"])
def test_a_stack_takes_neural_members_only(kind):
    with pytest.raises(ValueError, match="members"):
        StackConfig.model_validate({"members": [kind]})


def test_a_served_request_gives_its_history_to_the_ranker():
    recommender = rule_shop.make()
    told = []

    class Spy(rule_shop.ByNumber):
        def predict(self, x, item_idx, requests=None):
            told.append((len(x), requests))
            return super().predict(x, item_idx)

    recommender.view.chain.ranker = Spy()
    rule_shop.ask(recommender, user="u")
    rows, requests = told[0]
    assert requests.group.tolist() == [rows]
    assert requests.history.item_idx.tolist() == [[1, 2]]
    assert requests.history.type_code.tolist() == [[1, 1]]
    assert requests.history.seconds[0] == pytest.approx([2e-6, 1e-6])
    rule_shop.ask(recommender)
    assert told[-1][1].history.item_idx.tolist() == [[0]]


def test_a_stack_may_have_every_neural_ranker_as_a_member():
    assert get_args(NeuralKind) == tuple(NETWORKS)
