"""Chooses, on validation, how many events a history needs before the ranker orders the list.

Most training requests of a ranker come from users with long histories. New users can get worse
lists from it than recent popularity (docs/cold-start.md). Requests are compared in groups by the
length of their history, shortest first. Recent popularity answers a group of users without a
history unless the chain is significantly better; it answers another group only if the chain is
significantly worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flows.training.assemble import EvaluationBatch
from models.queries import Queries
from models.recommend.chain import Chain
from models.recommend.cold_start.short_history import FALLBACK
from shortlist.features.pack import ItemState
from shortlist.metrics import ndcg, paired_difference

GROUPS = ((0, 0), (1, 1), (2, 2), (3, 4))
"""Shortest and longest history of each group."""
FEW_USERS = 20
"""A group with fewer users is not compared."""
K = 10


@dataclass
class FallbackChoice:
    """Number of events below which recent popularity answers, with the figures behind it."""

    min_history: int
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.min_history == 0:
            return "the ranker also orders the lists of users without a history"
        return f"{FALLBACK} answers requests with fewer than {self.min_history} events"


@dataclass
class _Group:
    users: list[str] = field(default_factory=list)
    chain: list[float] = field(default_factory=list)
    fallback: list[float] = field(default_factory=list)


def choose_min_history(chain: Chain, ticks: Sequence[EvaluationBatch]) -> FallbackChoice:
    """Compare the chain with FALLBACK on the validation requests with short histories.

    Args:
        chain: the chosen sources and ranker, with `min_history` 0.
        ticks: requests of validation.
    """
    if FALLBACK not in chain.config.candidate_sources:
        return FallbackChoice(0)
    groups = [_Group() for _ in GROUPS]
    for tick in ticks:
        then = tick.over(chain)
        for row, length in enumerate(tick.queries.lengths.tolist()):
            for group, (shortest, longest) in zip(groups, GROUPS, strict=True):
                if shortest <= length <= longest:
                    query = tick.queries.take(slice(row, row + 1))
                    _compare(group, then, query, tick.items, tick.relevant[row])
    return decided([(group.users, group.chain, group.fallback) for group in groups])


def _compare(
    group: _Group, chain: Chain, query: Queries, items: ItemState, relevant: np.ndarray
) -> None:
    ranked = chain.rank(query, items, k=K).item_idx
    popular = chain.sources[FALLBACK].retrieve(query, items, k=K).item_idx
    group.users.append(query.user_ids[0])
    group.chain.append(float(ndcg(ranked, [relevant], k=K)[0]))
    group.fallback.append(float(ndcg(popular, [relevant], k=K)[0]))


def decided(groups: Sequence[tuple[list[str], list[float], list[float]]]) -> FallbackChoice:
    """Return the choice from the (users, nDCG of the chain, nDCG of FALLBACK) of each of GROUPS."""
    choice = FallbackChoice(0)
    for (shortest, longest), (users, of_chain, of_fallback) in zip(GROUPS, groups, strict=True):
        enough = len(set(users)) >= FEW_USERS
        interval: dict[str, Any] = {"mean": None, "low": None, "high": None}
        if enough:
            interval = paired_difference(
                users, np.array(of_chain), np.array(of_fallback), rng=np.random.default_rng(0)
            )
        if shortest == 0:
            falls_back = not enough or not interval["low"] > 0
        else:
            falls_back = enough and interval["high"] < 0
        choice.figures.append(
            {
                "events": [shortest, longest],
                "users": len(set(users)),
                "chain": round(float(np.mean(of_chain)), 4) if enough else None,
                FALLBACK: round(float(np.mean(of_fallback)), 4) if enough else None,
                "chain_ahead": {name: interval[name] for name in ("mean", "low", "high")},
            }
        )
        if not falls_back:
            break
        choice.min_history = longest + 1
    return choice
