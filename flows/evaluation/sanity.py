"""Compares a release's refitted models with the backtest's models, for the sanity gates.

A release's models are refitted on all data, with the test window; the backtest's were fitted before
it. Both should give similar lists and scores. Quality is not compared: the refitted models have
seen the relevant items of the test window.
"""

from typing import Any

import numpy as np

from flows.training.assemble import EvaluationBatch
from models.recommend.chain import Chain
from shortlist.metrics import coverage

NEWEST_REQUESTS = 500
SMALLEST_SPREAD = 1e-9
"""Added to standard deviations, so that ratios are finite for a source with constant scores."""


def compare_refit(refit: Chain, backtest: Chain, ticks: list[EvaluationBatch]) -> dict[str, Any]:
    """Compare the refitted chain with the backtest's chain on the newest requests.

    Returns:
        Overlap and coverage of the lists of ten, and the change of each source's scores.
    """
    now, before, scores_now, scores_before = [], [], [], []
    for tick in newest(ticks):
        new, old = tick.over(refit), tick.over(backtest)
        now += [row[row > 0] for row in new.rank(tick.queries, tick.items, k=10).item_idx]
        before += [row[row > 0] for row in old.rank(tick.queries, tick.items, k=10).item_idx]
        shortlist = old.shortlist(tick.queries, tick.items)
        scores_now.append(new.source_scores(tick.queries, tick.items, shortlist))
        scores_before.append(old.source_scores(tick.queries, tick.items, shortlist))
    num_items = backtest.catalogue.num_items
    return {
        "overlap@10": float(np.mean([jaccard(a, b) for a, b in zip(now, before, strict=True)])),
        "coverage@10": coverage(np.concatenate(now)[:, None], num_items=num_items),
        "backtest_coverage@10": coverage(np.concatenate(before)[:, None], num_items=num_items),
        "scores": {
            name: score_shift(pooled(scores_now, name), pooled(scores_before, name))
            for name in backtest.config.score_sources
        },
    }


def newest(ticks: list[EvaluationBatch]) -> list[EvaluationBatch]:
    """Return the last batches that together have at least NEWEST_REQUESTS requests, or all."""
    requests = np.cumsum([len(tick.queries) for tick in reversed(ticks)])
    wanted = int(np.searchsorted(requests, NEWEST_REQUESTS)) + 1
    return ticks[-wanted:]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Jaccard similarity of two lists of items; 1 if both are empty."""
    together = len(np.union1d(a, b))
    return len(np.intersect1d(a, b)) / together if together else 1.0


def pooled(parts: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """Concatenate a source's finite scores. Scores of empty positions aren't finite."""
    every = np.concatenate([part[name].ravel() for part in parts])
    return every[np.isfinite(every)].astype(np.float64)


def score_shift(now: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Compare two samples of a source's scores.

    Returns:
        {"mean_shift": shift of the mean, in standard deviations of `before`, "std_ratio": ratio of
        the standard deviations}.
    """
    spread = float(before.std()) + SMALLEST_SPREAD
    return {
        "mean_shift": float(now.mean() - before.mean()) / spread,
        "std_ratio": (float(now.std()) + SMALLEST_SPREAD) / spread,
    }
