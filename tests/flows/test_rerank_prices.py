"""The table of re-ranking's price, on a world of users who each prefer one category."""

from typing import Any

import numpy as np
import pytest
import torch

from cli import show_rerank
from flows.evaluation.rerank_prices import STRENGTHS, candidate_settings, rerank_prices
from flows.training.assemble import EvaluationBatch
from models import registry
from models.index.faiss_index import VectorIndex
from models.queries import Queries
from models.recommend.chain import Chain, ChainConfig
from models.recommend.rerank.config import CalibrationConfig, MmrConfig
from models.retrieval.two_tower import TwoTowerConfig
from models.training import TrainingOptions
from models.vector_source import VectorSource
from shortlist.features.profiles import ProfileEncoder
from shortlist.metrics import ndcg
from tests.models.conftest import TASTES, make_small_world


class Fixed:
    """A model with given item vectors; re-ranking reads nothing else."""

    def __init__(self, vectors: np.ndarray):
        self.vectors = torch.from_numpy(vectors)

    def encode(self, queries: Queries) -> torch.Tensor:
        return torch.zeros(len(queries), self.vectors.shape[1])

    def item_vectors(self) -> torch.Tensor:
        return self.vectors

    def sizes(self) -> dict[str, Any]:
        return {}

    def one_query(self) -> None:
        return None


@pytest.fixture(scope="module")
def judged() -> tuple[Chain, list[EvaluationBatch]]:
    data, validation = make_small_world()
    item_knn = registry.parse_source('{"kind": "item_knn"}')
    vectors = np.random.default_rng(0).normal(size=(data.num_items + 1, 8)).astype(np.float32)
    sources = {
        "item_knn": registry.fit(item_knn, data, validation, TrainingOptions()),
        "two_tower": VectorSource(
            "two_tower",
            config=TwoTowerConfig(),
            model=Fixed(vectors),
            item_vectors=vectors,
            index=VectorIndex.build(vectors),
        ),
    }
    chain = Chain(
        ChainConfig(
            candidate_sources=("item_knn",),
            score_sources=("item_knn",),
            rerank=MmrConfig(strength=0.2),
        ),
        sources=sources,
        ranker=None,
        catalogue=data.catalogue,
        profiles=ProfileEncoder.fit([{"group": taste} for taste in TASTES * 30]),
    )
    ticks = [
        EvaluationBatch(
            queries=queries, items=items, relevant=wanted, next_set=wanted, context_ids=[]
        )
        for queries, items, wanted in validation.ticks
    ]
    return chain, ticks


def test_each_setting_has_its_figures(judged):
    chain, ticks = judged
    result = rerank_prices(chain, ticks, k=10, seed=0)
    rows = result["settings"]
    assert result["requests"] == sum(len(tick.queries) for tick in ticks)
    assert rows[0]["rerank"] is None
    # By category and by two-tower vectors; there is no content source; the chain's own comes last.
    assert len(rows) == 1 + len(STRENGTHS) * 3 + 1
    assert [row["rerank"]["strength"] for row in rows if row["served"]] == [0.2]
    assert rows[0]["difference"]["mean"] == 0
    for row in rows:
        np.testing.assert_allclose(
            row["difference"]["mean"], row["ndcg@10"] - rows[0]["ndcg@10"], atol=1e-9
        )
    settings = [(row["rerank"] or {}, row) for row in rows]
    diverse = [row for own, row in settings if own.get("vectors") == "categories"]
    assert diverse[2]["diversity@10"] > rows[0]["diversity@10"]
    calibrated = [row for own, row in settings if own.get("kind") == "calibration"]
    assert calibrated[2]["divergence@10"] < rows[0]["divergence@10"]


def test_the_served_row_is_what_the_chain_serves(judged):
    chain, ticks = judged
    (row,) = [row for row in rerank_prices(chain, ticks, k=10, seed=0)["settings"] if row["served"]]
    lists = [tick.over(chain).rank(tick.queries, tick.items, k=10).item_idx for tick in ticks]
    values = np.concatenate(
        [ndcg(shown, tick.relevant, k=10) for shown, tick in zip(lists, ticks, strict=True)]
    )
    users = np.array([user for tick in ticks for user in tick.queries.user_ids])
    means = [np.nanmean(values[users == user]) for user in np.unique(users)]
    assert row["ndcg@10"] == pytest.approx(np.nanmean(means))


def test_settings_need_categories_or_vectors(judged):
    chain, _ = judged
    kinds = {(each.kind, getattr(each, "vectors", None)) for each in candidate_settings(chain)}
    assert kinds == {("mmr", "categories"), ("mmr", "collaborative"), ("calibration", None)}


def test_the_table_names_each_setting(judged, capsys):
    chain, ticks = judged
    show_rerank.rerank_prices(rerank_prices(chain, ticks, k=10, seed=0))
    printed = capsys.readouterr().out
    for text in ("none", "mmr 0.3 on collaborative", "calibration 0.1", "divergence@10"):
        assert text in printed
    assert show_rerank.setting_text(CalibrationConfig(strength=0.5).model_dump()) == (
        "calibration 0.5"
    )
