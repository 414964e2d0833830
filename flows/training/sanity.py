"""Figures that compare a release's refitted models with the backtest's, for the sanity gates.

They need no answers: the refitted models have seen what users did in the test window, so their
quality there says nothing.
"""

from typing import Any

import numpy as np

from flows.training.assemble import JudgedTick
from models.recommend.chain import Chain
from shortlist.metrics import coverage

NEWEST_REQUESTS = 500
SMALLEST_SPREAD = 1e-9
"""Keeps the ratio finite for a source that scores everything alike."""


def compare_refit(refit: Chain, backtest: Chain, ticks: list[JudgedTick]) -> dict[str, Any]:
    """Overlap of lists, coverage, and how each source's scores moved, on the newest requests."""
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
            name: moved(pooled(scores_now, name), pooled(scores_before, name))
            for name in backtest.config.score_sources
        },
    }


def newest(ticks: list[JudgedTick]) -> list[JudgedTick]:
    """The last ticks with NEWEST_REQUESTS requests or a few more."""
    requests = np.cumsum([len(tick.queries) for tick in reversed(ticks)])
    wanted = int(np.searchsorted(requests, NEWEST_REQUESTS)) + 1
    return ticks[-wanted:]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the items of either list that both have; 1 for two empty lists."""
    together = len(np.union1d(a, b))
    return len(np.intersect1d(a, b)) / together if together else 1.0


def pooled(parts: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """A source's scores of real candidates."""
    every = np.concatenate([part[name].ravel() for part in parts])
    return every[np.isfinite(every)].astype(np.float64)


def moved(now: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Shift of the mean in standard deviations of `before`, and the ratio of both deviations."""
    spread = float(before.std()) + SMALLEST_SPREAD
    return {
        "mean_shift": float(now.mean() - before.mean()) / spread,
        "std_ratio": (float(now.std()) + SMALLEST_SPREAD) / spread,
    }
