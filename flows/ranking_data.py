"""What rankers learn from, and the choice of the chain on validation.

A model that does not pay stays out of the chain: a source whose candidates can be left out without
loss finds no more candidates, and one whose scores the ranker hardly uses is not computed at all.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flows.assemble import JudgedTick
from models.queries import Candidates
from models.ranking.protocol import RankingData, ndcg_of
from models.recommend.chain import Chain, ChainConfig, fused_score
from models.recommend.merge import Shortlist, merge

TOLERANCE = 0.0005
"""Validation nDCG@10 that a source may be worth and still be left out."""
RECALL_FLOOR = 0.95
"""Share of the relevant items that all sources find together which the kept ones must still find:
the ranker of tomorrow, and every k above ten, can only order what was found.
"""
FALLBACK = "recent_popularity"
"""Never left out: it answers for those about whom nothing is known."""


@dataclass(frozen=True)
class Assembled:
    """Ranking data of one window, with what the rankers do not read but the choice does."""

    data: RankingData
    found_by: np.ndarray  # (R, S) bool, in the order of the chain's candidate sources
    fused: np.ndarray  # (R,) float32: reciprocal rank fusion, the order without a ranker


@dataclass(frozen=True)
class Gathered:
    """What every source found and scored for one tick: a smaller chain is a selection of it."""

    found: dict[str, Candidates]
    shortlist: Shortlist  # of all sources together; item_idx ascending in each row
    scores: dict[str, np.ndarray]

    def of(self, config: ChainConfig) -> tuple[Shortlist, dict[str, np.ndarray]]:
        """Shortlist and scores of a chain with some of the sources; nothing is computed anew."""
        kept = merge({name: self.found[name] for name in config.candidate_sources})
        places = np.zeros(kept.item_idx.shape, dtype=np.int64)
        for row, (items, everything) in enumerate(
            zip(kept.item_idx, self.shortlist.item_idx, strict=True)
        ):
            real = everything[everything > 0]
            places[row] = np.minimum(np.searchsorted(real, items), max(len(real) - 1, 0))
        scores = {
            name: np.where(
                kept.item_idx > 0,
                np.take_along_axis(self.scores[name], places, axis=1),
                np.float32(-np.inf),
            )
            for name in config.score_sources
        }
        return kept, scores


def gather(chain: Chain, ticks: list[JudgedTick]) -> list[Gathered]:
    """Ask every source of the chain once about every request."""
    gathered = []
    for tick in ticks:
        found = chain.retrieve(tick.queries, tick.items)
        shortlist = merge(found)
        scores = chain.source_scores(tick.queries, tick.items, shortlist)
        gathered.append(Gathered(found, shortlist, scores))
    return gathered


def assemble_ranking(chain: Chain, ticks: list[JudgedTick], gathered: list[Gathered]) -> Assembled:
    """Candidates, features and labels of every request of a window."""
    parts, found_by, fused = [], [], []
    for tick, answers in zip(ticks, gathered, strict=True):
        shortlist, scores = answers.of(chain.config)
        parts.append(
            RankingData.from_requests(
                chain.features(tick.queries, tick.items, shortlist, scores),
                shortlist.item_idx,
                tick.relevant,
                users=tick.queries.user_ids,
                schema=chain.schema,
            )
        )
        real = shortlist.item_idx > 0
        found_by.append(shortlist.found_by()[real])
        fused.append(fused_score(shortlist)[real])
    return Assembled(RankingData.concat(parts), np.concatenate(found_by), np.concatenate(fused))


@dataclass
class SourceChoice:
    """Which sources stay, and one line of reason for each that goes."""

    candidate_sources: tuple[str, ...]
    score_sources: tuple[str, ...]
    verdict: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def choose_sources(
    config: ChainConfig, valid: Assembled, scores: np.ndarray, usage: dict[str, float]
) -> SourceChoice:
    """Leave out what does not pay, judged by one ranker that has seen everything.

    Args:
        valid: the validation window under the chain with all sources.
        scores: (R,) scores of the probing ranker.
        usage: share of the probing ranker's gain that comes from each source's scores and ranks.
    """
    names = list(config.candidate_sources)
    kept = set(names)
    current = valid.data.mean_ndcg(scores)
    relevant = valid.found_by[valid.data.label > 0]
    choice = SourceChoice((), (), figures={"all_sources": round(current, 4), "worth": {}})
    while len(kept) > 1:
        without, enough = {}, {}
        for name in kept - {FALLBACK}:
            columns = [i for i, other in enumerate(names) if other in kept - {name}]
            enough[name] = relevant[:, columns].any(1).mean() >= RECALL_FLOOR
            found = valid.found_by[:, columns].any(1)
            # What nobody finds is not there: last in the order, and no hit in a short list either.
            data = replace(valid.data, label=np.where(found, valid.data.label, 0))
            without[name] = data.mean_ndcg(np.where(found, scores, -np.inf))
        spare = [name for name in without if enough[name]]
        if not spare:  # each one left finds too much that no other does
            break
        name = max(spare, key=lambda n: without[n])
        if without[name] < current - TOLERANCE:
            break
        kept.discard(name)
        choice.verdict.append(
            f"{name}: its candidates are left out,"
            f" nDCG@10 on validation {current:.4f} -> {without[name]:.4f}"
        )
        current = max(current, without[name])
    columns = [i for i, name in enumerate(names) if name in kept]
    choice.figures["recall_kept"] = round(float(relevant[:, columns].any(1).mean()), 4)
    choice.figures["worth"] = {
        name: round(current - value, 4) for name, value in without.items() if name in kept
    }
    choice.candidate_sources = tuple(name for name in names if name in kept)
    return choose_scores(config, choice, usage)


def choose_scores(
    config: ChainConfig, choice: SourceChoice, usage: dict[str, float], *, floor: float = 0.01
) -> SourceChoice:
    """A source that finds no candidates keeps its scores only if the ranker lives on them."""
    kept = []
    for name in config.score_sources:
        if name in choice.candidate_sources or usage.get(name, 0) >= floor:
            kept.append(name)
            continue
        choice.verdict.append(
            f"{name}: stays out of the chain,"
            f" {usage.get(name, 0):.1%} of the ranker's gain is its scores"
        )
    choice.score_sources = tuple(kept)
    choice.figures["score_usage"] = {name: round(value, 4) for name, value in usage.items()}
    return choice


def source_usage(importance: dict[str, float], sources: tuple[str, ...]) -> dict[str, float]:
    """Share of a ranker's total gain that comes from the features named `<source>:...`."""
    return {
        source: sum(v for name, v in importance.items() if name.startswith(f"{source}:"))
        for source in sources
    }


def best_ranker(rankers: dict[str, Any], valid: Assembled) -> tuple[str | None, dict[str, float]]:
    """The ranker with the best validation nDCG@10; None if plain fusion of ranks is better."""
    figures = {"fusion": valid.data.mean_ndcg(valid.fused)}
    figures |= {name: ndcg_of(ranker, valid.data) for name, ranker in rankers.items()}
    best = max(figures, key=lambda name: figures[name])
    return (None if best == "fusion" else best), figures
