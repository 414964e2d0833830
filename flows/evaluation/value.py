"""Value of ranked lists: what users did with the items, weighted by the run's `[value]`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.evaluation.judge import Lists
from flows.training.assemble import EvaluationBatch
from models.data import mean_over_users
from models.queries import pad_lists
from models.ranking.value_heads import ValueHeads
from models.recommend.chain import Chain
from shortlist.behaviour.value import NAMES, amounts_at, discounted, value_of
from shortlist.metrics import bootstrap_mean, paired_difference

MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the value formula in the curve; the rest is the first outcome alone."""
DRAWS = 500


def value_figures(
    methods: Mapping[str, Lists],
    ticks: list[EvaluationBatch],
    weights: Mapping[str, float],
    *,
    k: int,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the value of each method's first k items, and the chain's lead in value.

    Means are over users, with 95% intervals.

    Returns:
        {method: {"value@k", and the sum of each outcome}}, and {method: {"value@k": paired
        difference, chain minus method}}.
    """
    users = [user for tick in ticks for user in tick.queries.user_ids]
    outcomes = [pair for tick in ticks for pair in tick.outcomes or []]
    of_method = {
        name: amounts_at(lists.item_idx[:, :k], outcomes) for name, lists in methods.items()
    }
    values = {name: discounted(value_of(amounts, weights)) for name, amounts in of_method.items()}
    out: dict[str, dict[str, Any]] = {}
    ahead: dict[str, dict[str, Any]] = {}
    for name, amounts in of_method.items():
        rng = np.random.default_rng(seed)
        out[name] = {f"value@{k}": bootstrap_mean(users, values[name], rng=rng, draws=DRAWS)}
        for outcome in weights:
            of_outcome = amounts[..., NAMES.index(outcome)]
            out[name][f"{outcome}@{k}"] = bootstrap_mean(
                users, of_outcome.sum(1).astype(np.float64), rng=rng, draws=DRAWS
            )
        if name != "chain":
            rng = np.random.default_rng(seed)
            lead = paired_difference(users, values["chain"], values[name], rng=rng, draws=DRAWS)
            ahead[name] = {f"value@{k}": lead}
    return out, ahead


def value_curve(
    chain: Chain,
    ticks: list[EvaluationBatch],
    weights: Mapping[str, float],
    *,
    k: int,
    window: str = "validation",
) -> dict[str, Any]:
    """Return what is gained and lost between the first outcome alone and the value formula.

    Each point orders the lists by a mix of the two, on the window of `ticks` with a chain that was
    fitted before it.

    Returns:
        {"window", "outcome": the first outcome, "curve": points with "share" of the formula,
        "value@k" and the amount of the outcome}; an empty curve if the ranker isn't `value`.
    """
    first = next(iter(weights))
    points = []
    if isinstance(chain.ranker, ValueHeads):
        users = [user for tick in ticks for user in tick.queries.user_ids]
        outcomes = [pair for tick in ticks for pair in tick.outcomes or []]
        for share in MIXES:
            mixed = {name: share * weight for name, weight in weights.items()}
            mixed[first] += 1 - share
            mixing = chain.with_ranker(chain.ranker.with_weights(mixed))
            ranked = [tick.over(mixing).rank(tick.queries, tick.items, k=k) for tick in ticks]
            lists = np.concatenate([pad_lists(each.item_idx, k) for each in ranked])
            amounts = amounts_at(lists, outcomes)
            value = discounted(value_of(amounts, weights))
            of_first = amounts[..., NAMES.index(first)].sum(1).astype(np.float64)
            points.append(
                {
                    "share": share,
                    f"value@{k}": round(mean_over_users(users, value), 4),
                    f"{first}@{k}": round(mean_over_users(users, of_first), 4),
                }
            )
    return {"window": window, "outcome": first, "curve": points}
