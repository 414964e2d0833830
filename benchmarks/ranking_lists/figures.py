"""Figures of methods that order shown lists: reciprocal rank, nDCG and bootstrap intervals.

Shapes: G lists, R hotels of all lists.
"""

from typing import Any

import numpy as np

from models.ranking.protocol import RankingData
from shortlist.metrics import bootstrap_mean

DEPTH = 25
METRICS = ("mrr", f"ndcg@{DEPTH}")


def values_of(data: RankingData, scores: np.ndarray) -> np.ndarray:
    """Return reciprocal rank and nDCG@25 of each list: (2, G). Ties keep the shown order."""
    padded = np.append(scores.astype(np.float64), -np.inf)[data.rows]
    order = np.argsort(-padded, axis=1, kind="stable")
    clicked = np.append(data.label, 0)[np.take_along_axis(data.rows, order, axis=1)] > 0
    # One hotel is clicked; a list without it, because it wasn't shown, counts as missed.
    rank = np.where(clicked.any(1), clicked.argmax(1) + 1, np.inf)
    return np.stack([1 / rank, np.where(rank <= DEPTH, 1 / np.log2(rank + 1), 0)])


def interval(values: np.ndarray, lists: list[str]) -> dict[str, float]:
    """Return mean, low and high of (G,) values, by a bootstrap over lists.

    Args:
        lists: name of each list, or of its session for a bootstrap over sessions.
    """
    found = bootstrap_mean(lists, values, rng=np.random.default_rng(0))
    return {name: round(float(found[name]), 5) for name in ("mean", "low", "high")}


def figures(values: np.ndarray) -> dict[str, Any]:
    """Return {metric: interval} of (2, G) values."""
    lists = [str(number) for number in range(values.shape[1])]
    return {metric: interval(values[row], lists) for row, metric in enumerate(METRICS)}
