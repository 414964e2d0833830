"""From ranked lists to figures with intervals: quality, beyond accuracy, and slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.training.assemble import JudgedTick
from shortlist.catalogue import Catalogue
from shortlist.metrics import (
    bootstrap_mean,
    coverage_interval,
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
    """recall, precision and nDCG at each k over the next 24 h, MRR of the whole list over the next
    set, with intervals.
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
    """Coverage, diversity within lists (by categories), novelty, popularity bias of the first k."""
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
    """What counts as wanted in one slice; a request outside it wants nothing."""

    relevant: list[np.ndarray]  # of the next 24 h
    next_set: list[np.ndarray]


def slices_of(ticks: list[JudgedTick], item_counts: np.ndarray) -> dict[str, Slice]:
    """Requests by how much is known of the user, wanted items by their popularity."""
    by_popularity = np.argsort(item_counts[1:], kind="stable") + 1
    tail = np.zeros(len(item_counts), dtype=bool)
    tail[by_popularity[: int(TAIL_SHARE * len(by_popularity))]] = True
    everything = np.ones(len(item_counts), dtype=bool)
    events = [len(seen) for tick in ticks for seen in tick.queries.seen]
    new = [n == 0 for n in events]
    light = [0 < n < LIGHT_HISTORY for n in events]
    regular = [n >= LIGHT_HISTORY for n in events]
    all_requests = [True] * len(events)

    def cut(requests: list[bool], items: np.ndarray) -> Slice:
        nothing = np.empty(0, dtype=np.int64)

        def of(all_wanted: list[np.ndarray]) -> list[np.ndarray]:
            pairs = zip(requests, all_wanted, strict=True)
            return [wanted[items[wanted]] if inside else nothing for inside, wanted in pairs]

        return Slice(
            of([wanted for tick in ticks for wanted in tick.relevant]),
            of([wanted for tick in ticks for wanted in tick.next_set]),
        )

    return {
        "new_users": cut(new, everything),
        "light_users": cut(light, everything),
        "regular_users": cut(regular, everything),
        "tail_items": cut(all_requests, tail),
        "head_items": cut(all_requests, ~tail),
    }


def filled(lists: Lists, fallback: Lists) -> Lists:
    """Lists whose empty places are taken by the fallback's items, in its order, none twice.

    A source that learns from histories has nothing to say to a user without one; in a product the
    popular items would stand there. So they do in the table, for every method alike.
    """
    out = lists.item_idx.copy()
    width = out.shape[1]
    for row in np.flatnonzero((out == 0).any(1)):
        own = out[row][out[row] > 0]
        other = fallback.item_idx[row]
        more = other[(other > 0) & ~np.isin(other, own)]
        both = np.concatenate([own, more])[:width]
        out[row] = 0
        out[row, : len(both)] = both
    return Lists(out)
