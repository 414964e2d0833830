"""Evaluates re-ranking settings: accuracy, diversity and calibration of their lists.

They are evaluated on the validation window, with sources and ranker fitted before it. The test
window is reserved for the final figures. Each request is ranked once, and each setting re-orders
the same list.
"""

from typing import Any

import numpy as np

from flows.training.assemble import EvaluationBatch
from models.recommend.chain import Chain
from models.recommend.rerank.apply import reranker_of
from models.recommend.rerank.calibration import category_shares, divergence, interests
from models.recommend.rerank.config import (
    POOL,
    VECTOR_SOURCE,
    CalibrationConfig,
    MmrConfig,
    Vectors,
)
from models.recommend.tiers import Ranked
from shortlist.metrics import bootstrap_mean, intra_list_diversity, ndcg, paired_difference

STRENGTHS = (0.1, 0.3, 0.5)
MAX_REQUESTS = 500
DRAWS = 200

Setting = MmrConfig | CalibrationConfig


def rerank_prices(
    chain: Chain, ticks: list[EvaluationBatch], *, k: int, seed: int, window: str = "validation"
) -> dict[str, Any]:
    """Return the figures of each setting. The first row is the list without re-ranking.

    Args:
        chain: chain fitted before the window of `ticks`; its configured re-ranking is evaluated
            too.
        ticks: requests of `window`; about MAX_REQUESTS of them are used.
        k: length of the evaluated lists.

    Returns:
        {"window", "requests", "settings": rows with "rerank" (None or the config), "served"
        (whether the chain is configured so), ndcg@k, "difference" (nDCG, setting minus no
        re-ranking: mean, low, high), diversity@k, divergence@k}.
    """
    configured = chain.config.rerank
    settings = candidate_settings(chain)
    if configured is not None and configured not in settings:
        settings.append(configured)
    pool = max(k, *(setting.pool for setting in settings)) if settings else max(k, POOL)
    some = _some(ticks, rng=np.random.default_rng(seed))
    plain = chain.with_rerank(None)
    ranked = [tick.over(plain).rank(tick.queries, tick.items, k=pool) for tick in some]
    users = [user for tick in some for user in tick.queries.user_ids]
    rows, of_plain = [], np.empty(0)
    for setting in (None, *settings):
        figures = _figures(chain, some, ranked, setting, k=k)
        if setting is None:
            of_plain = figures["ndcg"]
        rows.append(
            {
                "rerank": None if setting is None else setting.model_dump(mode="json"),
                "served": setting == configured,
                f"ndcg@{k}": _mean(users, figures["ndcg"]),
                "difference": paired_difference(
                    users,
                    figures["ndcg"],
                    of_plain,
                    rng=np.random.default_rng(seed),
                    draws=DRAWS,
                ),
                f"diversity@{k}": _mean(users, figures["diversity"]),
                f"divergence@{k}": _mean(users, figures["divergence"]),
            }
        )
    return {"window": window, "requests": len(users), "settings": rows}


def candidate_settings(chain: Chain) -> list[Setting]:
    """Return the re-ranking settings that the chain has the categories or vectors for."""
    has_categories = chain.catalogue.category_matrix.shape[1] > 0
    vectors: list[Vectors] = [
        name for name, source in VECTOR_SOURCE.items() if source in chain.sources
    ]
    settings: list[Setting] = []
    for strength in STRENGTHS:
        if has_categories:
            settings.append(MmrConfig(strength=strength))
        settings += [MmrConfig(strength=strength, vectors=name) for name in vectors]
        if has_categories:
            settings.append(CalibrationConfig(strength=strength))
    return sorted(settings, key=lambda setting: (setting.kind, getattr(setting, "vectors", "")))


def _figures(
    chain: Chain,
    ticks: list[EvaluationBatch],
    ranked: list[Ranked],
    setting: Setting | None,
    *,
    k: int,
) -> dict[str, np.ndarray]:
    """Return "ndcg", "diversity" and "divergence" of each request, NaN where undefined.

    Divergence compares the categories of the shown list with those of the user's history.
    """
    parts: dict[str, list[np.ndarray]] = {"ndcg": [], "diversity": [], "divergence": []}
    for tick, plain in zip(ticks, ranked, strict=True):
        catalogue = tick.over(chain).catalogue
        item_idx = plain.item_idx
        reranker = reranker_of(setting, chain.sources, catalogue)
        if reranker is not None:
            order = reranker.order(tick.queries, item_idx, plain.score, k=k)
            item_idx = np.take_along_axis(item_idx, order, axis=1)
        shown, matrix = item_idx[:, :k], catalogue.category_matrix
        parts["ndcg"].append(ndcg(shown, tick.relevant, k=k))
        parts["diversity"].append(intra_list_diversity(shown, matrix))
        parts["divergence"].append(
            np.array(
                [
                    divergence(category_shares(matrix[row[row > 0]]), interests(history, matrix))
                    for row, history in zip(shown, tick.queries.history, strict=True)
                ]
            )
        )
    return {name: np.concatenate(values) for name, values in parts.items()}


def _some(ticks: list[EvaluationBatch], *, rng: np.random.Generator) -> list[EvaluationBatch]:
    """Return random batches with at least MAX_REQUESTS requests, or all if there are fewer."""
    some: list[EvaluationBatch] = []
    for number in rng.permutation(len(ticks)):
        if sum(len(tick.queries) for tick in some) >= MAX_REQUESTS:
            break
        some.append(ticks[number])
    return some


def _mean(users: list[str], values: np.ndarray) -> float:
    return bootstrap_mean(users, values, rng=np.random.default_rng(0), draws=1)["mean"]
