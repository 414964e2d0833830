"""Metrics of ranked lists. Each is a function over a batch and returns one value a list.

Shapes: `ranked` (B, K) item_idx, best first, 0 for an empty place; `relevant` B arrays of item_idx.
A list with nothing relevant is NaN: left out of every mean, and counted.
Definitions: Järvelin & Kekäläinen 2002 (nDCG, binary gain), Castells, Hurley & Vargas 2015
(novelty, diversity).
"""

from collections.abc import Callable, Sequence

import numpy as np


def hits(ranked: np.ndarray, relevant: Sequence[np.ndarray]) -> np.ndarray:
    """(B, K) bool: the item in this place is relevant. Place 0 (padding) never is."""
    if len(relevant) != len(ranked):
        raise ValueError(f"{len(relevant)} sets of relevant items for {len(ranked)} lists")
    wanted = np.concatenate([np.empty(0, dtype=np.int64), *relevant]).astype(np.int64)
    row = np.repeat(np.arange(len(ranked)), [len(items) for items in relevant])
    # One number for each (list, item): a single look-up instead of one a list.
    width = max(ranked.max(initial=0), wanted.max(initial=0)) + 1
    places = np.arange(len(ranked))[:, None] * width + ranked
    return np.isin(places, row * width + wanted) & (ranked > 0)


def _counts(relevant: Sequence[np.ndarray]) -> np.ndarray:
    counts = np.array([len(wanted) for wanted in relevant], dtype=np.float64)
    counts[counts == 0] = np.nan
    return counts


def recall(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Share of the relevant items among the first k."""
    return hits(ranked[:, :k], relevant).sum(1) / _counts(relevant)


def precision(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Share of the first k places that are relevant; empty places count as misses."""
    return hits(ranked[:, :k], relevant).sum(1) / k + 0 * _counts(relevant)


def ndcg(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """DCG of the first k with gain 1, over the best DCG that min(k, relevant) hits could reach."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = hits(ranked[:, :k], relevant)
    counts = _counts(relevant)
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])
    best = ideal[np.minimum(np.nan_to_num(counts), k).astype(int)]
    return (found * discount[: found.shape[1]]).sum(1) / best


def mrr(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """1 / rank of the first relevant item among the first k, 0 if there is none."""
    found = hits(ranked[:, :k], relevant)
    first = found.argmax(1) + 1
    return np.where(found.any(1), 1 / first, 0) + 0 * _counts(relevant)


RANKING_METRICS: dict[str, Callable[..., np.ndarray]] = {
    "recall": recall,
    "precision": precision,
    "ndcg": ndcg,
    "mrr": mrr,
}


def coverage(ranked: np.ndarray, *, num_items: int) -> float:
    """Share of the catalogue that appears in at least one list."""
    return len(np.unique(ranked[ranked > 0])) / num_items


def intra_list_diversity(ranked: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean of 1 - cosine over a list's pairs, by item vectors (N + 1, D). NaN under two items, or
    if the vectors have no dimension (a catalogue without categories).
    """
    if vectors.shape[1] == 0:
        return np.full(len(ranked), np.nan)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros(vectors.shape), where=norms > 0)
    out = np.full(len(ranked), np.nan)
    for row, places in enumerate(ranked):
        items = places[places > 0]
        if len(items) < 2:
            continue
        similarity = unit[items] @ unit[items].T
        n = len(items)
        out[row] = 1 - (similarity.sum() - np.trace(similarity)) / (n * (n - 1))
    return out


def novelty(ranked: np.ndarray, item_counts: np.ndarray) -> np.ndarray:
    """Mean self-information, -log2 of an item's share of the events (add-one smoothed). NaN if
    empty.
    """
    share = (item_counts + 1) / (item_counts[1:].sum() + len(item_counts) - 1)
    return _mean_of_places(ranked, -np.log2(share))


def popularity_bias(ranked: np.ndarray, item_counts: np.ndarray) -> np.ndarray:
    """Mean popularity percentile of a list's items: 1 the most popular item, 0.5 the median. NaN if
    empty.
    """
    order = np.argsort(np.argsort(item_counts[1:], kind="stable"), kind="stable")
    percentile = np.concatenate([[0.0], (order + 1) / len(order)])
    return _mean_of_places(ranked, percentile)


def gini(ranked: np.ndarray, *, num_items: int) -> float:
    """Inequality of exposure over the catalogue: 0 all alike, near 1 a few take everything."""
    shown = np.sort(np.bincount(ranked[ranked > 0], minlength=num_items + 1)[1:])
    total = shown.sum()
    if total == 0:
        return float("nan")
    n = len(shown)
    return float((2 * np.arange(1, n + 1) - n - 1) @ shown / (n * total))


def _mean_of_places(ranked: np.ndarray, per_item: np.ndarray) -> np.ndarray:
    filled = ranked > 0
    count = filled.sum(1)
    total = (per_item[ranked] * filled).sum(1)
    return np.divide(total, count, out=np.full(len(ranked), np.nan), where=count > 0)


def bootstrap_mean(
    users: Sequence[str], values: np.ndarray, *, rng: np.random.Generator, draws: int = 1000
) -> dict[str, float]:
    """Mean per user, then over users, with a 95% percentile interval by bootstrap over users.

    Returns `{"mean", "low", "high", "users"}`; NaN values are left out, and a user with none left
    too.
    """
    kept = ~np.isnan(values)
    if not kept.any():
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "users": 0}
    _, rows = np.unique(np.asarray(users)[kept], return_inverse=True)
    per_user = np.bincount(rows, weights=values[kept]) / np.bincount(rows)
    n = len(per_user)
    means = np.array([per_user[rng.integers(n, size=n)].mean() for _ in range(draws)])
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(per_user.mean()), "low": float(low), "high": float(high), "users": n}


def paired_difference(
    users: Sequence[str],
    values: np.ndarray,
    others: np.ndarray,
    *,
    rng: np.random.Generator,
    draws: int = 1000,
) -> dict[str, float]:
    """Mean of `values - others` over the same requests, with its own bootstrap over users.

    Two methods judged on the same users share their luck: this interval is the one that says
    whether one is better, not the overlap of their own two. Requests that either leaves NaN are
    left out.
    """
    return bootstrap_mean(users, values - others, rng=rng, draws=draws)


def coverage_interval(
    ranked: np.ndarray, users: Sequence[str], *, num_items: int
) -> dict[str, float]:
    """Coverage of all lists, with a 95% interval by the jackknife over users.

    A bootstrap would not do: resampled users are fewer distinct ones, so their lists cover less
    than the figure itself. The jackknife asks what each user adds: the items that nobody else was
    shown (Efron & Stein 1981; its variance errs to the wide side).
    """
    mean = coverage(ranked, num_items=num_items)
    names, row = np.unique(np.asarray(users), return_inverse=True)
    n = len(names)
    row = np.repeat(row, ranked.shape[1])
    real = ranked.ravel() > 0
    shown_to = np.unique(np.column_stack([row[real], ranked.ravel()[real]]), axis=0)
    owners = np.bincount(shown_to[:, 1], minlength=num_items + 1)
    alone = np.bincount(shown_to[owners[shown_to[:, 1]] == 1, 0], minlength=n)
    without = mean - alone / num_items
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()) if n > 1 else np.nan
    half = 1.96 * float(error)
    return {"mean": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "users": n}
