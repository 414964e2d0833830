"""Computes the figures of the benchmark from the lists of all requests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.cold.judge import CUTS, FULL, K, Lists
from benchmarks.cold.requests import Request
from models.data import mean_over_users
from shortlist.metrics import ndcg, paired_difference, recall

SHOWN = 10
"""Length of the shown list, for impressions and nDCG."""
RECALL, NDCG = f"recall@{K}", f"ndcg@{SHOWN}"


def figures_of(lists: Lists, hidden: np.ndarray, methods: Sequence[str]) -> dict[str, Any]:
    """Return the figures of one seed: {part: {method: value}}.

    Args:
        hidden: (N,) bool by item row.
    """
    users = [str(request.user) for request in lists.requests]
    relevant = [request.relevant + 1 for request in lists.requests]
    cold = [items[hidden[items - 1]] for items in relevant]
    warm = [items[~hidden[items - 1]] for items in relevant]
    out: dict[str, Any] = {"cold": {RECALL: {}, NDCG: {}}, "warm": {RECALL: {}, NDCG: {}}}
    out |= {"all": {RECALL: {}, NDCG: {}}, "new_users": {}, "first_visits": {}, "impressions": {}}
    for method in methods:
        ranked = padded(lists.of[FULL, method])
        for part, wanted in (("cold", cold), ("warm", warm), ("all", relevant)):
            out[part][RECALL][method] = mean_over_users(users, recall(ranked, wanted, k=K))
            out[part][NDCG][method] = mean_over_users(users, ndcg(ranked, wanted, k=SHOWN))
        shown = ranked[:, :SHOWN]
        impressions = float(hidden[shown[shown > 0] - 1].mean())
        relevance = sum(map(len, cold)) / sum(map(len, relevant))
        out["impressions"][method] = {
            "impression_share": impressions,
            "relevance_share": relevance,
            "ratio": impressions / relevance,
        }
    some = [users[row] for row in lists.cut]
    wanted = [relevant[row] for row in lists.cut]
    for name in (*map(str, CUTS), FULL):
        out["new_users"][name] = {
            method: mean_over_users(
                some,
                ndcg(
                    padded([found[row] for row in lists.cut] if name == FULL else found),
                    wanted,
                    k=SHOWN,
                ),
            )
            for (cut, method), found in lists.of.items()
            if cut == name
        }
    first = [
        items if known == 0 else items[:0]
        for items, known in zip(relevant, lists.known_events, strict=True)
    ]
    for method in methods:
        values = ndcg(padded(lists.of[FULL, method]), first, k=SHOWN)
        out["first_visits"][method] = mean_over_users(users, values)
    out["first_visits"]["users"] = len(
        {u for u, items in zip(users, first, strict=True) if len(items)}
    )
    return out


def warm_values(lists: Lists, hidden: np.ndarray, method: str) -> dict[str, float]:
    """Return {user: nDCG@10 on warm items, mean over the user's requests}."""
    warm = [r.relevant[~hidden[r.relevant]] + 1 for r in lists.requests]
    values = ndcg(padded(lists.of[FULL, method]), warm, k=SHOWN)
    return _by_user(lists.requests, values)


def first_values(lists: Lists, method: str, cut: str) -> dict[str, float]:
    """Return {user: nDCG@10 with histories cut to `cut` events}."""
    requests = [lists.requests[row] for row in lists.cut]
    relevant = [r.relevant + 1 for r in requests]
    return _by_user(requests, ndcg(padded(lists.of[cut, method]), relevant, k=SHOWN))


def _by_user(requests: Sequence[Request], values: np.ndarray) -> dict[str, float]:
    of: dict[str, list[float]] = {}
    for request, value in zip(requests, values.tolist(), strict=True):
        if not np.isnan(value):
            of.setdefault(str(request.user), []).append(value)
    return {user: float(np.mean(each)) for user, each in of.items()}


def paired(treatment: list[dict[str, float]], baseline: list[dict[str, float]]) -> dict[str, float]:
    """Return treatment minus baseline, relative to the baseline, with a 95% interval over users.

    A user's values are averaged over seeds first, because seeds don't add users.
    """
    users = sorted(set().union(*baseline))

    def mean(seeds: list[dict[str, float]]) -> np.ndarray:
        return np.array([np.mean([s[u] for s in seeds if u in s]) for u in users])

    first, second = mean(treatment), mean(baseline)
    interval = paired_difference(users, first, second, rng=np.random.default_rng(0), draws=2000)
    base = float(second.mean())
    return {name: interval[name] / base for name in ("mean", "low", "high")} | {"of": base}


def over_seeds(seeds: list[Any]) -> Any:
    """Return the same structure with {"mean", "std"} over seeds in place of each number."""
    first = seeds[0]
    if isinstance(first, dict):
        return {name: over_seeds([seed[name] for seed in seeds]) for name in first}
    values = np.array(seeds, dtype=float)
    return {"mean": round(float(values.mean()), 5), "std": round(float(values.std()), 5)}


def padded(found: list[np.ndarray]) -> np.ndarray:
    """Return (R, K) item rows plus 1; 0 for an empty position."""
    out = np.zeros((len(found), K), dtype=np.int64)
    for row, items in zip(out, found, strict=True):
        row[: len(items)] = items[:K] + 1
    return out
