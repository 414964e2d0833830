"""A blend of models: a weighted sum of standardised scores, with weights learned on validation.

All models (candidate sources) are trained without each user's validation item, so the weights can
be fitted to it. The same models and weights then rank the test item. The contribution of a source
is the drop of nDCG@10 without it, after refitting the other weights.

Shapes: B users, S sources, N items, C candidates.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.sequence_model.arguments import seconds_each, work_folder
from benchmarks.sequence_model.protocol import MISS, Scorer, Sequences, figures, ranks
from benchmarks.sequence_model.runs import Environment, fit, fit_baseline, scorer_of
from models.baselines import ease
from models.queries import Queries
from models.sequence.choose import Statistics, choose

SEQUENCE_SOURCES = ("bsarec", "sasrec", "gru")
BASELINE_SOURCES = ("ease", "item_knn", "popularity")
DEPTH = 60
"""Number of best items per source on which weights are learned. Reported metrics rank all items."""
STEPS = (0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 4.0)
"""Factors that the search for the best weights tries on each weight."""


def standardise(scores: np.ndarray) -> np.ndarray:
    """Scale (B, N + 1) scores in place to mean 0 and deviation 1 per user; skip column 0."""
    real = scores[:, 1:]
    real -= real.mean(1, keepdims=True)
    deviation = real.std(1, keepdims=True)
    np.divide(real, deviation, out=real, where=deviation > 0)
    return scores


def blended(scorers: list[Scorer], weights: np.ndarray) -> Scorer:
    """Return a scorer that computes the weighted sum of the scorers' standardised scores."""

    def score(queries: Queries) -> np.ndarray:
        total: np.ndarray | None = None
        for scorer, weight in zip(scorers, weights, strict=True):
            if weight:
                part = np.float32(weight) * standardise(scorer(queries))
                total = part if total is None else total + part
        assert total is not None, "at least one weight is not 0"
        return total

    return score


@dataclass(frozen=True)
class Pool:
    """Candidates of U validation users, with the standardised score of every source."""

    scores: np.ndarray  # (U, C, S) float32, -inf for padding
    wanted: np.ndarray  # (U,) int64: column of the relevant item, -1 if no source found it

    def ndcg(self, weights: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):  # 0 * -inf for padding
            total = np.where(np.isinf(self.scores[:, :, 0]), -np.inf, self.scores @ weights)
        row = np.arange(len(total))
        value = total[row, self.wanted][:, None]
        rank = np.where(self.wanted < 0, MISS, (total >= value).sum(1))
        return figures(rank)["ndcg@10"]


def gather(sequences: Sequences, scorers: list[Scorer]) -> Pool:
    """Return the best `DEPTH` items of each source as candidates of every validation user."""
    scores, wanted = [], []
    depth = min(DEPTH, sequences.num_items)
    width = depth * len(scorers)
    for queries, target in sequences.chunks(held_out=2):
        row = np.arange(len(target))[:, None]
        parts = np.stack([standardise(scorer(queries)) for scorer in scorers], axis=2)
        parts[row, queries.history] = -np.inf
        parts[:, 0] = -np.inf
        best = [
            np.argpartition(-parts[:, :, s], depth, axis=1)[:, :depth] for s in range(len(scorers))
        ]
        candidates = np.sort(np.concatenate(best, axis=1), axis=1)
        again = np.zeros(candidates.shape, dtype=bool)
        again[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
        candidates[again] = 0
        found = candidates == target[:, None]
        wanted.append(np.where(found.any(1), found.argmax(1), -1))
        scores.append(parts[row, candidates].reshape(len(target), width, len(scorers)))
    return Pool(np.concatenate(scores), np.concatenate(wanted))


def learn(pool: Pool, weights: np.ndarray, *, rounds: int = 4) -> tuple[np.ndarray, float]:
    """Maximise nDCG@10 by coordinate ascent from `weights`; a weight of 0 stays 0."""
    weights, best = weights.copy(), pool.ndcg(weights)
    for _ in range(rounds):
        before = best
        for s in np.flatnonzero(weights):
            for step in STEPS:
                tried = weights.copy()
                tried[s] *= step
                if not tried.any():
                    continue
                figure = pool.ndcg(tried)
                if figure > best:
                    best, weights = figure, tried
        if best - before < 1e-5:
            break
    return weights, best


def baseline_sources(sequences: Sequences) -> list[str]:
    """Return the baselines to blend. For a large catalogue, EASE is left out with a message."""
    if sequences.num_items <= ease.MAX_ITEMS:
        return list(BASELINE_SOURCES)
    print(
        f"blend: ease is left out, {sequences.num_items:,} items are more than the"
        f" {ease.MAX_ITEMS:,} that its dense inverse takes",
        flush=True,
    )
    return [source_type for source_type in BASELINE_SOURCES if source_type != "ease"]


def run_blend(
    sequences: Sequences,
    statistics: Statistics,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train and evaluate the blend with each seed; return the content of the result file."""
    from benchmarks.sequence import summary

    seconds = seconds_each(arguments) / len(SEQUENCE_SOURCES)
    baselines = {kind: fit_baseline(sequences, kind)[0] for kind in baseline_sources(sequences)}
    seeds = []
    for seed in range(arguments.seeds):
        sources: dict[str, Scorer] = {}
        for source_type in SEQUENCE_SOURCES:
            config = choose(statistics, kind=source_type)
            environment = Environment(
                device=arguments.device,
                work=work_folder(arguments, config.model_dump(mode="json"), seconds),
                seconds=seconds,
            )
            model, _ = fit(sequences, config, seed=seed, environment=environment)
            sources[source_type] = scorer_of(model)
        sources |= baselines
        seeds.append({"seed": seed} | blend_seed(sequences, sources))
        print(f"seed {seed} blend {seeds[-1]}", flush=True)
    return summary(seeds) | {"config": {"sources": list(sources)}, "seeds": seeds}


def blend_seed(sequences: Sequences, sources: dict[str, Scorer]) -> dict[str, Any]:
    names, scorers = list(sources), list(sources.values())
    pool = gather(sequences, scorers)
    start = np.array([1.0 if name in SEQUENCE_SOURCES else 0.3 for name in names])
    weights, best = learn(pool, start.astype(np.float32))
    without = {}
    for s, name in enumerate(names):
        if weights[s] and np.count_nonzero(weights) > 1:
            rest = weights.copy()
            rest[s] = 0
            without[name] = round(best - learn(pool, rest)[1], 5)
    blend = blended(scorers, weights)
    return {
        "validation": figures(ranks(blend, sequences.chunks(held_out=2))),
        "test": figures(ranks(blend, sequences.chunks(held_out=1))),
        "weights": {name: round(float(w), 3) for name, w in zip(names, weights, strict=True)},
        "validation_ndcg@10_lost_without": without,
    }
