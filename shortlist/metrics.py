"""Metrics of ranked lists. Most functions take a batch of lists and return one value per list.

Shapes: `ranked` (B, K) item_idx, best first, 0 for an empty position; `relevant` B arrays of
item_idx; N items. A list without relevant items gives NaN and is excluded from means.
Definitions: Järvelin & Kekäläinen 2002 (nDCG, binary gain), Castells, Hurley & Vargas 2015
(novelty, diversity).
"""

from collections.abc import Callable, Sequence

import numpy as np


def hits(ranked: np.ndarray, relevant: Sequence[np.ndarray]) -> np.ndarray:
    """Return (B, K) bool: whether the item at each position is relevant; padding never is."""
    if len(relevant) != len(ranked):
        raise ValueError(f"{len(relevant)} sets of relevant items for {len(ranked)} lists")
    wanted = np.concatenate([np.empty(0, dtype=np.int64), *relevant]).astype(np.int64)
    row = np.repeat(np.arange(len(ranked)), [len(items) for items in relevant])
    # Encode each (list, item) pair as one number, so that a single look-up serves all lists.
    width = max(ranked.max(initial=0), wanted.max(initial=0)) + 1
    cells = np.arange(len(ranked))[:, None] * width + ranked
    return np.isin(cells, row * width + wanted) & (ranked > 0)


def _counts(relevant: Sequence[np.ndarray]) -> np.ndarray:
    counts = np.array([len(wanted) for wanted in relevant], dtype=np.float64)
    counts[counts == 0] = np.nan
    return counts


def recall(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Return the share of the relevant items among the first k."""
    return hits(ranked[:, :k], relevant).sum(1) / _counts(relevant)


def precision(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Return the share of relevant items in the first k; empty positions count as misses."""
    return hits(ranked[:, :k], relevant).sum(1) / k + 0 * _counts(relevant)


def ndcg(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Return the DCG of the first k with binary gain, divided by the DCG of an ideal list of min(k,
    number of relevant items) hits.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = hits(ranked[:, :k], relevant)
    counts = _counts(relevant)
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])
    best = ideal[np.minimum(np.nan_to_num(counts), k).astype(int)]
    return (found * discount[: found.shape[1]]).sum(1) / best


def mrr(ranked: np.ndarray, relevant: Sequence[np.ndarray], *, k: int) -> np.ndarray:
    """Return 1 / rank of the first relevant item among the first k; 0 if there is none."""
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
    """Return the share of the catalogue that appears in at least one list."""
    return len(np.unique(ranked[ranked > 0])) / num_items


def intra_list_diversity(ranked: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the mean of 1 - cosine similarity over all pairs of items of a list.

    NaN for lists with fewer than two items, or if D is 0 (a catalogue without categories).

    Args:
        vectors: (N + 1, D) item vectors.
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
    """Return the mean self-information: -log2 of each item's share of all events, with add-one
    smoothing.

    NaN for an empty list.

    Args:
        item_counts: (N + 1,) number of events of each item.
    """
    share = (item_counts + 1) / (item_counts[1:].sum() + len(item_counts) - 1)
    return _mean_of_places(ranked, -np.log2(share))


def popularity_bias(ranked: np.ndarray, item_counts: np.ndarray) -> np.ndarray:
    """Return the mean popularity percentile of a list's items: 1 is the most popular item, 0.5 the
    median.

    NaN for an empty list.

    Args:
        item_counts: (N + 1,) number of events of each item.
    """
    order = np.argsort(np.argsort(item_counts[1:], kind="stable"), kind="stable")
    percentile = np.concatenate([[0.0], (order + 1) / len(order)])
    return _mean_of_places(ranked, percentile)


def gini(ranked: np.ndarray, *, num_items: int) -> float:
    """Return the Gini coefficient of exposure over the catalogue: 0 if all items are shown equally
    often, near 1 if a few items get all exposure.
    """
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
    """Return the mean per user, then over users, with a 95% percentile bootstrap interval over
    users.

    NaN values are excluded, and so are users with only NaN values.

    Args:
        users: user of each value.
        draws: number of bootstrap draws.

    Returns:
        {"mean", "low", "high", "users": number of users}.
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
    """Return the mean of `values - others` over the same requests, with a paired bootstrap over
    users.

    Use this interval to decide whether one method is better than another on the same users. The
    overlap of their separate intervals is too conservative, because their errors are correlated.
    Requests with NaN in either method are excluded.
    """
    return bootstrap_mean(users, values - others, rng=rng, draws=draws)


def coverage_interval(
    ranked: np.ndarray, users: Sequence[str], *, num_items: int
) -> dict[str, float]:
    """Return the coverage of all lists, with a 95% jackknife interval over users.

    A bootstrap is biased here: a resample has fewer distinct users, so its lists cover fewer items
    than the full set. The jackknife leaves out one user at a time, and so the items that were shown
    to no other user (Efron & Stein 1981; its variance estimate is conservative).
    """
    mean, without = _coverage_without_each(ranked, users, num_items=num_items)
    interval = _jackknife(mean, without)
    return interval | {"low": max(0.0, interval["low"]), "high": min(1.0, interval["high"])}


def coverage_difference(
    ranked: np.ndarray, others: np.ndarray, users: Sequence[str], *, num_items: int
) -> dict[str, float]:
    """Return the coverage of `ranked` minus that of `others`, with a paired jackknife interval.

    Args:
        ranked, others: (B, K) and (B, K') lists of two methods for the same requests.
        users: user of each request.
    """
    mean, without = _coverage_without_each(ranked, users, num_items=num_items)
    other, other_without = _coverage_without_each(others, users, num_items=num_items)
    return _jackknife(mean - other, without - other_without)


def _coverage_without_each(
    ranked: np.ndarray, users: Sequence[str], *, num_items: int
) -> tuple[float, np.ndarray]:
    """Return the coverage of all lists, and (n,) the coverage without each of the n users."""
    mean = coverage(ranked, num_items=num_items)
    names, row = np.unique(np.asarray(users), return_inverse=True)
    row = np.repeat(row, ranked.shape[1])
    real = ranked.ravel() > 0
    shown_to = np.unique(np.column_stack([row[real], ranked.ravel()[real]]), axis=0)
    owners = np.bincount(shown_to[:, 1], minlength=num_items + 1)
    alone = np.bincount(shown_to[owners[shown_to[:, 1]] == 1, 0], minlength=len(names))
    return mean, mean - alone / num_items


def _jackknife(figure: float, without: np.ndarray) -> dict[str, float]:
    """Return a figure with its 95% interval.

    Args:
        without: (n,) the figure without each of the n users.
    """
    n = len(without)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()) if n > 1 else np.nan
    half = 1.96 * float(error)
    return {"mean": figure, "low": figure - half, "high": figure + half, "users": n}
