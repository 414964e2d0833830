"""Chooses the chain on validation: sources and ranker, by paired intervals over users.

Of two chains, the cheaper one is chosen unless it is worse: beyond chance, or by more than MAX_LOSS
on average. A chain with fewer sources is cheaper; rankers get more expensive in the order fusion,
then KINDS of the registry.

A probing ranker (small and fast) measures the importance of each source. Sources are tested for
removal in this order, least important first. Each smaller chain is compared with the chain of all
sources, so that small losses don't add up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flows.training.ranking_data import RankingWindow
from models.data import mean_over_users
from models.ranking.protocol import scores_of
from models.ranking.registry import KINDS
from models.recommend.chain import ChainConfig
from models.recommend.cold_start.short_history import FALLBACK
from shortlist.metrics import bootstrap_mean, paired_difference

MAX_LOSS = 0.005
"""Maximum loss of mean nDCG@10 of a cheaper chain if the interval is too wide to show the loss.
Without this limit, validation with few users would accept any chain (docs/decisions.md).
"""
RECALL_FLOOR = 0.95
"""Minimum share of the relevant candidates of all sources that the remaining sources must find.

The lower end of the share's interval must reach it. nDCG@10 hardly shows a loss of recall, but
later rankers and larger k depend on recall.
"""


def costs(users: Sequence[str], cheaper: np.ndarray, dearer: np.ndarray) -> dict[str, Any]:
    """Return the paired interval of nDCG@10, cheaper minus more expensive chain, and `costs`.

    The entry `costs` is True if the cheaper chain is worse: the upper end of the interval is below
    0, or the mean is below -MAX_LOSS.

    Args:
        users: user of each of G requests.
        cheaper, dearer: (G,) nDCG@10 of both chains.
    """
    interval = paired_difference(users, cheaper, dearer, rng=np.random.default_rng(0))
    return interval | {"costs": bool(interval["high"] < 0 or interval["mean"] < -MAX_LOSS)}


def as_text(interval: dict[str, Any]) -> str:
    return f"nDCG@10 {interval['mean']:+.4f} [{interval['low']:+.4f}, {interval['high']:+.4f}]"


@dataclass
class SourceChoice:
    """The sources that find candidates, and those whose scores the ranker reads.

    `verdict` has one line with the reason for each removal.
    """

    candidate_sources: tuple[str, ...]
    score_sources: tuple[str, ...]
    verdict: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def choose_sources(
    config: ChainConfig,
    valid: RankingWindow,
    scores: np.ndarray,
    usage: dict[str, float],
    *,
    probe_without: Callable[[tuple[str, ...]], np.ndarray],
) -> SourceChoice:
    """Remove each source without which the chain is not significantly worse.

    Args:
        config: the chain with all sources.
        valid: ranking data of validation for this chain; R candidates of G requests.
        scores: (R,) scores of a probing ranker that uses all sources.
        usage: source -> share of the probing ranker's gain that comes from its scores and ranks.
        probe_without: returns the (R,) scores of a probing ranker fitted without the features of
            the given sources.
    """
    names = config.candidate_sources
    by_usage = sorted(names, key=lambda name: usage.get(name, 0.0))
    everything = valid.data.ndcg(scores)
    remaining, loss_without, verdict = set(names), {}, []
    for name in by_usage:
        if name == FALLBACK:  # never removed, because it serves users without a history
            continue
        columns = [i for i, other in enumerate(names) if other in remaining - {name}]
        without = costs(valid.data.users, ndcg_of_candidates(valid, scores, columns), everything)
        if without["costs"] or recall_kept(valid, columns)["low"] < RECALL_FLOOR:
            loss_without[name] = round(-without["mean"], 4)
            continue
        remaining.discard(name)
        verdict.append(f"{name}: its candidates are left out, {as_text(without)} on validation")
    columns = [i for i, name in enumerate(names) if name in remaining]
    choice = SourceChoice(
        candidate_sources=tuple(name for name in names if name in remaining),
        score_sources=(),
        verdict=verdict,
        figures={
            "all_sources": round(float(valid.data.mean_ndcg(scores)), 4),
            "recall_kept": round(recall_kept(valid, columns)["mean"], 4),
            "worth": loss_without,
            "score_usage": {name: round(value, 4) for name, value in usage.items()},
        },
    )
    return choose_scores(config, choice, valid, scores, usage, probe_without=probe_without)


def ndcg_of_candidates(valid: RankingWindow, scores: np.ndarray, columns: list[int]) -> np.ndarray:
    """Return (G,) nDCG@10 if only the sources in these columns found candidates.

    Candidates that none of them finds are ranked last and count as not relevant.
    """
    found = valid.found_by[:, columns].any(1)
    data = replace(valid.data, label=np.where(found, valid.data.label, 0))
    return data.ndcg(np.where(found, scores, -np.inf))


def recall_kept(valid: RankingWindow, columns: list[int]) -> dict[str, float]:
    """Return the share of relevant candidates that the sources in these columns find.

    The result has the share's mean and its bootstrap interval over users (see `bootstrap_mean`).
    """
    owner = np.repeat(np.arange(len(valid.data)), valid.data.group)
    still = valid.data.label * valid.found_by[:, columns].any(1)
    found = np.bincount(owner, weights=valid.data.label, minlength=len(valid.data))
    kept = np.bincount(owner, weights=still, minlength=len(valid.data))
    share = np.divide(kept, found, out=np.full(len(found), np.nan), where=found > 0)
    return bootstrap_mean(valid.data.users, share, rng=np.random.default_rng(0))


def choose_scores(
    config: ChainConfig,
    choice: SourceChoice,
    valid: RankingWindow,
    scores: np.ndarray,
    usage: dict[str, float],
    *,
    probe_without: Callable[[tuple[str, ...]], np.ndarray],
) -> SourceChoice:
    """Choose the sources whose scores the ranker reads.

    A source whose candidates aren't used may still give useful scores. A probing ranker is trained
    without the scores of all such sources. While it is worse than the one with all scores, the
    scores that it would use most are added back, and it is trained again. Other arguments are those
    of `choose_sources`.

    Args:
        choice: the chosen candidate sources; it is completed in place and returned.
    """
    everything = valid.data.ndcg(scores)
    spare = [name for name in config.score_sources if name not in choice.candidate_sources]
    spare.sort(key=lambda name: usage.get(name, 0.0))
    while spare:
        without = costs(valid.data.users, valid.data.ndcg(probe_without(tuple(spare))), everything)
        if not without["costs"]:
            together = ", ".join(spare)
            choice.verdict.append(
                f"{together}: out of the chain, {as_text(without)} on validation without the scores"
            )
            choice.figures["without_scores"] = without
            break
        spare.pop()
    choice.score_sources = tuple(name for name in config.score_sources if name not in spare)
    return choice


def source_usage(importance: dict[str, float], sources: tuple[str, ...]) -> dict[str, float]:
    """Sum the importance of each source's features, which are named `<source>:...`."""
    return {
        source: sum(v for name, v in importance.items() if name.startswith(f"{source}:"))
        for source in sources
    }


def best_ranker(
    rankers: dict[str, Any], valid: RankingWindow, *, value: Mapping[str, float] = {}
) -> tuple[str | None, dict[str, float]]:
    """Choose a ranker on validation, going from cheap to expensive ones.

    A ranker replaces a cheaper one if it is better beyond chance, or, in nDCG, by more than
    MAX_LOSS.

    Args:
        value: the run's `[value]`. If it isn't empty, rankers are compared by the discounted value
            of their first 10 items, otherwise by nDCG@10.

    Returns:
        Type of the chosen ranker, None for reciprocal rank fusion; and {ranker type: its mean}.
    """
    data = valid.data

    def judge(scores: np.ndarray) -> np.ndarray:
        return data.value(scores, value) if value else data.ndcg(scores)

    by_cost = sorted(rankers, key=KINDS.index)
    best, of_best = "fusion", judge(valid.fused)
    figures = {best: mean_over_users(data.users, of_best)}
    for ranker_type in by_cost:
        found = judge(scores_of(rankers[ranker_type], data))
        figures[ranker_type] = mean_over_users(data.users, found)
        interval = costs(data.users, of_best, found)
        # MAX_LOSS is a limit in units of nDCG.
        if interval["high"] < 0 if value else interval["costs"]:
            best, of_best = ranker_type, found
    return (None if best == "fusion" else best), figures
