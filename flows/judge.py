"""From ranked lists to figures with intervals: quality, beyond accuracy, and slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.assemble import JudgedTick
from shortlist.catalogue import Catalogue
from shortlist.metrics import (
    bootstrap_mean,
    coverage,
    intra_list_diversity,
    mrr,
    ndcg,
    novelty,
    popularity_bias,
    precision,
    recall,
)
from shortlist.splits import LIGHT_HISTORY

TAIL_SHARE = 0.8
"""Tail items: the least popular items, this share of the catalogue."""


@dataclass(frozen=True)
class Lists:
    """One method's lists for all requests: (B, K) item_idx, best first, 0 for an empty place."""

    item_idx: np.ndarray

    @classmethod
    def of(cls, parts: list[np.ndarray]) -> "Lists":
        return cls(np.concatenate(parts))


def quality(
    lists: Lists,
    users: Sequence[str],
    relevant: Sequence[np.ndarray],
    next_set: Sequence[np.ndarray],
    *,
    ks: Sequence[int],
    rng: np.random.Generator,
    draws: int,
) -> dict[str, dict[str, float]]:
    """recall, precision and nDCG at each k over the next 24 h, MRR over the next set, with
    intervals.
    """
    per_request = {f"mrr@{max(ks)}": mrr(lists.item_idx, next_set, k=max(ks))}
    for k in ks:
        per_request[f"ndcg@{k}"] = ndcg(lists.item_idx, relevant, k=k)
        per_request[f"recall@{k}"] = recall(lists.item_idx, relevant, k=k)
        per_request[f"precision@{k}"] = precision(lists.item_idx, relevant, k=k)
    return {
        name: bootstrap_mean(users, values, rng=rng, draws=draws)
        for name, values in per_request.items()
    }


def beyond_accuracy(
    lists: Lists,
    users: Sequence[str],
    catalogue: Catalogue,
    item_counts: np.ndarray,
    *,
    k: int,
    rng: np.random.Generator,
    draws: int,
) -> dict[str, dict[str, float]]:
    """Coverage, diversity within lists (by categories), novelty, popularity bias of the first k."""
    shown = lists.item_idx[:, :k]
    per_request = {
        f"diversity@{k}": intra_list_diversity(shown, catalogue.category_matrix),
        f"novelty@{k}": novelty(shown, item_counts),
        f"popularity_bias@{k}": popularity_bias(shown, item_counts),
    }
    return {
        f"coverage@{k}": coverage_interval(
            shown, users, num_items=catalogue.num_items, rng=rng, draws=draws
        )
    } | {
        name: bootstrap_mean(users, values, rng=rng, draws=draws)
        for name, values in per_request.items()
    }


def coverage_interval(
    shown: np.ndarray,
    users: Sequence[str],
    *,
    num_items: int,
    rng: np.random.Generator,
    draws: int,
) -> dict[str, float]:
    """Coverage over all lists; its interval comes from resampled users, so it lies lower."""
    names, row = np.unique(np.asarray(users), return_inverse=True)
    saw = np.zeros((len(names), num_items + 1), dtype=bool)
    saw[np.repeat(row, shown.shape[1]), shown.ravel()] = True
    saw = saw[:, 1:]
    n = len(names)
    drawn = [saw[rng.integers(n, size=n)].any(0).mean() for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "mean": coverage(shown, num_items=num_items),
        "low": float(low),
        "high": float(high),
        "users": n,
    }


def slices_of(ticks: list[JudgedTick], item_counts: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What counts as relevant in each slice; a request outside it has nothing relevant."""
    nothing = np.empty(0, dtype=np.int64)
    by_popularity = np.argsort(item_counts[1:], kind="stable") + 1
    tail = np.zeros(len(item_counts), dtype=bool)
    tail[by_popularity[: int(TAIL_SHARE * len(by_popularity))]] = True
    out: dict[str, list[np.ndarray]] = {
        "new_users": [],
        "light_users": [],
        "regular_users": [],
        "tail_items": [],
        "head_items": [],
    }
    for tick in ticks:
        for seen, wanted in zip(tick.queries.seen, tick.relevant, strict=True):
            events = len(seen)
            out["new_users"].append(wanted if events == 0 else nothing)
            out["light_users"].append(wanted if 0 < events < LIGHT_HISTORY else nothing)
            out["regular_users"].append(wanted if events >= LIGHT_HISTORY else nothing)
            out["tail_items"].append(wanted[tail[wanted]])
            out["head_items"].append(wanted[~tail[wanted]])
    return out
