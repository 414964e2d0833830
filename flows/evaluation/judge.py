"""Computes figures with intervals from ranked lists: accuracy, diversity, coverage, slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.runtime.configuration import EvaluateConfig
from flows.training.assemble import EvaluationBatch
from shortlist.items.catalogue import Catalogue
from shortlist.metrics import (
    bootstrap_mean,
    coverage_interval,
    intra_list_diversity,
    mrr,
    ndcg,
    novelty,
    paired_difference,
    popularity_bias,
    precision,
    recall,
)
from shortlist.splits import LIGHT_HISTORY

TAIL_SHARE = 0.8
"""Share of the catalogue that counts as tail items: the least popular ones."""
USER_GROUPS = ("new_users", "light_users", "regular_users")
ITEM_SLICES = ("tail_items", "head_items", "cold_items")


@dataclass(frozen=True)
class Lists:
    """Lists of one method for all requests: (B, K) item_idx, best first, 0 for empty positions."""

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
    """Return recall, precision and nDCG at each k, and MRR of the whole list, with intervals.

    Args:
        users: user of each request.
        relevant: item_idx that the user chose in the next 24 h, for recall, precision and nDCG.
        next_set: item_idx that the user chose on the requested page, for MRR.
    """
    depth = lists.item_idx.shape[1]
    per_request = {f"mrr@{depth}": mrr(lists.item_idx, next_set, k=depth)}
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
    """Return coverage, intra-list diversity, novelty and popularity bias of the first k items."""
    shown = lists.item_idx[:, :k]
    per_request = {
        f"diversity@{k}": intra_list_diversity(shown, catalogue.category_matrix),
        f"novelty@{k}": novelty(shown, item_counts),
        f"popularity_bias@{k}": popularity_bias(shown, item_counts),
    }
    return {f"coverage@{k}": coverage_interval(shown, users, num_items=catalogue.num_items)} | {
        name: bootstrap_mean(users, values, rng=rng, draws=draws)
        for name, values in per_request.items()
    }


@dataclass(frozen=True)
class Slice:
    """Relevant items of each request in one slice (a part of the requests or of the items).

    Requests outside the slice have no relevant items.
    """

    relevant: list[np.ndarray]  # item_idx that the user chose in the next 24 h
    next_set: list[np.ndarray]  # item_idx that the user chose on the requested page


def user_groups(ticks: list[EvaluationBatch]) -> np.ndarray:
    """Return (B,) the group of each request's user, by the length of the history."""
    # Where repeats are allowed, `seen` lacks what may be shown again; histories are cut.
    events = np.array(
        [
            max(len(seen), int((history > 0).sum()))
            for tick in ticks
            for seen, history in zip(tick.queries.seen, tick.queries.history, strict=True)
        ]
    )
    groups = [events == 0, events < LIGHT_HISTORY]
    return np.select(groups, USER_GROUPS[:2], default=USER_GROUPS[2])


def slices_of(
    ticks: list[EvaluationBatch], item_counts: np.ndarray, *, known: np.ndarray
) -> dict[str, Slice]:
    """Return slices of requests by the length of the user's history, and of relevant items by their
    popularity.

    Args:
        item_counts: (N + 1,) number of events of each item before validation.
        known: (N + 1,) bool, whether an item has events before the test window; others are cold.
    """
    by_popularity = np.argsort(item_counts[1:], kind="stable") + 1
    tail = np.zeros(len(item_counts), dtype=bool)
    tail[by_popularity[: int(TAIL_SHARE * len(by_popularity))]] = True
    every_item = np.ones(len(item_counts), dtype=bool)
    groups = user_groups(ticks)
    every_request = np.ones(len(groups), dtype=bool)

    def cut(requests: np.ndarray, items: np.ndarray) -> Slice:
        nothing = np.empty(0, dtype=np.int64)

        def of(all_wanted: list[np.ndarray]) -> list[np.ndarray]:
            pairs = zip(requests, all_wanted, strict=True)
            return [wanted[items[wanted]] if inside else nothing for inside, wanted in pairs]

        return Slice(
            of([wanted for tick in ticks for wanted in tick.relevant]),
            of([wanted for tick in ticks for wanted in tick.next_set]),
        )

    return {group: cut(groups == group, every_item) for group in USER_GROUPS} | {
        "tail_items": cut(every_request, tail),
        "head_items": cut(every_request, ~tail),
        "cold_items": cut(every_request, ~known),
    }


def filled(lists: Lists, fallback: Lists) -> Lists:
    """Fill empty positions with the fallback's items in their order, without duplicates.

    A source that needs a history returns no items for a new user; the service then shows popular
    items. For a fair comparison, all methods are filled in the same way.
    """
    out = lists.item_idx.copy()
    width = out.shape[1]
    for row in np.flatnonzero((out == 0).any(1)):
        items = out[row][out[row] > 0]
        other = fallback.item_idx[row]
        more = other[(other > 0) & ~np.isin(other, items)]
        both = np.concatenate([items, more])[:width]
        out[row] = 0
        out[row, : len(both)] = both
    return Lists(out)


def evaluation(
    methods: dict[str, Lists],
    ticks: list[EvaluationBatch],
    catalogue: Catalogue,
    item_counts: np.ndarray,
    config: EvaluateConfig,
    *,
    slices: dict[str, Slice],
    seed: int,
) -> dict[str, Any]:
    """Return metrics with bootstrap intervals over users, per method and per slice.

    A slice is a subset of requests or items, such as new users. The result also has the paired
    difference in nDCG on the same requests, chain minus each other method.

    Args:
        item_counts: (N + 1,) number of events of each item before validation.
    """
    users = [user for tick in ticks for user in tick.queries.user_ids]
    relevant = [wanted for tick in ticks for wanted in tick.relevant]
    next_set = [wanted for tick in ticks for wanted in tick.next_set]
    metrics, by_slice, recalls, ahead = {}, {name: {} for name in slices}, {}, {}
    k = config.list_size
    of_chain = ndcg(methods["chain"].item_idx, relevant, k=k)
    for name, lists in methods.items():
        rng = np.random.default_rng(seed)  # the same draws of users for every method
        metrics[name] = quality(
            lists, users, relevant, next_set, ks=config.ks, rng=rng, draws=config.bootstrap_draws
        ) | beyond_accuracy(lists, users, catalogue, item_counts, k=k, rng=rng, draws=200)
        if name != "chain":
            ahead[name] = {
                f"ndcg@{k}": paired_difference(
                    users,
                    of_chain,
                    ndcg(lists.item_idx, relevant, k=k),
                    rng=np.random.default_rng(seed),
                    draws=config.bootstrap_draws,
                )
            }
        for slice_name, wanted in slices.items():
            by_slice[slice_name][name] = quality(
                lists,
                users,
                wanted.relevant,
                wanted.next_set,
                ks=(k,),
                rng=np.random.default_rng(seed),
                draws=200,
            )
        recalls[name] = {f"recall@{k}": metrics[name][f"recall@{k}"]["mean"] for k in config.ks}
    return {
        "n_requests": len(users),
        "n_users": len(set(users)),
        "reachable_coverage": min(1.0, len(set(users)) * k / catalogue.num_items),
        "metrics": metrics,
        "chain_ahead": ahead,
        "slices": by_slice,
        "candidates": recalls,
    }
