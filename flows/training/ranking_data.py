"""Assembles the training data of rankers: candidates, features and labels of a window's requests.

Shapes: R candidates of all requests, S candidate sources.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flows.runtime.configuration import RunConfig
from flows.training.assemble import EvaluationBatch, RunData
from flows.training.shown_lists import MIN_CHOSEN, SHOWN
from models.queries import Candidates, Source
from models.ranking.protocol import Ranker, RankingData, RankingError
from models.ranking.registry import RankerConfig, fit_ranker, learns_from_shown
from models.ranking.value_heads import ValueHeadsConfig
from models.recommend.chain import Chain, ChainConfig, fused_score
from models.recommend.merge import Shortlist, merge
from models.training import TrainingOptions
from shortlist.behaviour.value import amounts_at
from shortlist.features.profiles import ProfileEncoder

REQUESTS_AT_ONCE = 64
"""Number of requests whose features are computed at once, to bound memory."""


@dataclass(frozen=True)
class RankingWindow:
    """Ranking data of one window, and two columns by which the chain is chosen."""

    data: RankingData
    found_by: np.ndarray  # (R, S) bool: which of the chain's candidate sources found the item
    fused: np.ndarray  # (R,) float32: score of reciprocal rank fusion, used without a ranker


@dataclass(frozen=True)
class SourceResults:
    """Candidates and scores of all sources for one batch of requests.

    `of` selects the data of a chain with fewer sources from it.
    """

    found: dict[str, Candidates]  # source -> its candidates
    shortlist: Shortlist  # merged candidates of all sources; item_idx ascending in each row
    scores: dict[str, np.ndarray]  # source -> its scores of all items of `shortlist`

    def of(self, config: ChainConfig) -> tuple[Shortlist, dict[str, np.ndarray]]:
        """Return the shortlist and scores of a chain with some of the sources.

        They are selected from the stored ones, without calling the sources again.
        """
        names = (*config.candidate_sources, *(name for name in self.found if name == SHOWN))
        if (*names, *config.score_sources) == (*self.found, *self.scores):
            return self.shortlist, self.scores
        shortlist = merge({name: self.found[name] for name in names})
        column = np.zeros(shortlist.item_idx.shape, dtype=np.int64)
        for row, (items, everything) in enumerate(
            zip(shortlist.item_idx, self.shortlist.item_idx, strict=True)
        ):
            real = everything[everything > 0]
            column[row] = np.minimum(np.searchsorted(real, items), max(len(real) - 1, 0))
        scores = {
            name: np.where(
                shortlist.item_idx > 0,
                np.take_along_axis(self.scores[name], column, axis=1),
                np.float32(-np.inf),
            )
            for name in config.score_sources
        }
        return shortlist, scores


def chain_of_all(
    config: RunConfig, run_data: RunData, profiles: ProfileEncoder, sources: Mapping[str, Source]
) -> Chain:
    """Return the chain in which all sources find and score candidates, without a ranker."""
    names = tuple(sources)
    return Chain(
        ChainConfig(
            candidate_sources=names,
            score_sources=names,
            candidates_per_source=config.train.candidates_per_source,
            rerank=config.train.rerank,
            repeats=config.data.repeats,
        ),
        sources=sources,
        ranker=None,
        catalogue=run_data.catalogue,
        profiles=profiles,
    )


def gather(chain: Chain, ticks: list[EvaluationBatch]) -> list[SourceResults]:
    """Compute candidates and scores of all the chain's sources, once for each request."""
    gathered = []
    for tick in ticks:
        then = tick.over(chain)
        found = then.retrieve(tick.queries, tick.items)
        if tick.shown is not None:
            found[SHOWN] = tick.shown
        shortlist = merge(found)
        scores = then.source_scores(tick.queries, tick.items, shortlist)
        gathered.append(SourceResults(found, shortlist, scores))
    return gathered


def assemble_ranking(
    chain: Chain, ticks: list[EvaluationBatch], gathered: list[SourceResults]
) -> RankingWindow:
    """Return the ranking data of a window for a chain.

    Args:
        gathered: candidates and scores of the sources, one entry for each batch in `ticks`.
    """
    selected = [answers.of(chain.config) for answers in gathered]
    kept = [
        learned_rows(tick, shortlist) for tick, (shortlist, _) in zip(ticks, selected, strict=True)
    ]
    rows = [int(real.sum()) for real in kept]
    # One array is filled in place: the features of all requests take the most memory of a run, and
    # concatenating them would double it.
    x = np.empty((sum(rows), len(chain.schema)), dtype=np.float32)
    parts, found_by, fused, end = [], [], [], 0
    for tick, (shortlist, scores), real, count in zip(ticks, selected, kept, rows, strict=True):
        of_tick = x[end : end + count]
        fill_features(of_tick, tick.over(chain), tick, shortlist, scores, real)
        part = RankingData.from_requests(
            of_tick,
            np.where(real, shortlist.item_idx, 0),
            tick.relevant,
            users=tick.queries.user_ids,
            schema=chain.schema,
            queries=tick.queries,
            outcomes=None
            if tick.outcomes is None
            else amounts_at(shortlist.item_idx, tick.outcomes),
        )
        if tick.shown is not None:
            position = shortlist.ranks[SHOWN].astype(np.int64)
            propensity = np.take_along_axis(tick.shown.score, np.maximum(position - 1, 0), axis=1)
            part = replace(part, position=position[real], propensity=propensity[real])
        parts.append(part)
        found_by.append(shortlist.found_by()[real])
        fused.append(fused_score(shortlist)[real])
        end += count
    return RankingWindow(
        RankingData.concat(parts, x=x), np.concatenate(found_by), np.concatenate(fused)
    )


def fill_features(
    x: np.ndarray,
    chain: Chain,
    tick: EvaluationBatch,
    shortlist: Shortlist,
    scores: Mapping[str, np.ndarray],
    kept: np.ndarray,
) -> None:
    """Write the features of some candidates of a tick into x (R, F), REQUESTS_AT_ONCE at a time.

    Args:
        kept: (B, C) bool, R of them True: the candidates.
    """
    end = 0
    for first in range(0, len(tick.queries), REQUESTS_AT_ONCE):
        rows = slice(first, first + REQUESTS_AT_ONCE)
        real = kept[rows]
        features = chain.features(
            tick.queries.take(rows),
            tick.items,
            shortlist.take(rows),
            {name: values[rows] for name, values in scores.items()},
        )
        count = int(real.sum())
        x[end : end + count] = features[real]
        end += count


def learned_rows(tick: EvaluationBatch, shortlist: Shortlist) -> np.ndarray:
    """Return (B, C) bool: the candidates that rankers learn from.

    They are all candidates, or the items of the lists that were shown, without items that the
    chain would not show (seen or unavailable).
    """
    real = shortlist.item_idx > 0
    if tick.shown is None:
        return real
    real &= shortlist.ranks[SHOWN] > 0
    num_items = int(shortlist.item_idx.max(initial=0))
    if tick.queries.blocked is not None:
        num_items = len(tick.queries.blocked) - 1
    for row, items in enumerate(shortlist.item_idx):
        real[row] &= tick.queries.allowed(row, num_items)[items]
    return real


@dataclass(frozen=True)
class RankingWindows:
    """Ranking data of the ranker-train window, of lists shown in it, and of validation."""

    train: RankingWindow
    valid: RankingWindow
    shown: RankingWindow | None = None

    @classmethod
    def of(
        cls,
        chain: Chain,
        ticks: dict[str, list[EvaluationBatch]],
        gathered: dict[str, list[SourceResults]],
    ) -> "RankingWindows":
        train, valid = (
            assemble_ranking(chain, ticks[window], gathered[window])
            for window in ("ranker_train", "validation")
        )
        shown = None
        if SHOWN in ticks:
            shown = assemble_ranking(chain, ticks[SHOWN], gathered[SHOWN])
            learnable = shown.data.count_learnable()
            if learnable < MIN_CHOSEN:
                print(
                    f"{learnable} shown lists have an item that was chosen and one that wasn't"
                    f" (known, available, not chosen before), want {MIN_CHOSEN}: rankers learn from"
                    " the sources' candidates"
                )
                shown = None
        return cls(train, valid, shown)

    def of_ranker(self, config: RankerConfig) -> RankingData:
        """Return the data that a ranker is trained on."""
        if self.shown is None or not learns_from_shown(config):
            return self.train.data
        if config.labels == "both":
            return RankingData.concat([self.train.data, self.shown.data])
        return self.shown.data


def ranker_options(config: RunConfig) -> TrainingOptions:
    """Return the device, seed and number of threads for training rankers.

    Rankers are fitted one at a time. So each gets as many threads as all sources that are trained
    in parallel have together.
    """
    train = config.train
    threads = train.parallel * train.threads
    return TrainingOptions(device=train.device, seed=config.seed, num_threads=threads)


def fit_rankers(
    configs: Sequence[RankerConfig],
    window: RankingWindows,
    options: TrainingOptions,
) -> dict[str, Ranker]:
    """Fit all rankers in the given order; return {ranker type: ranker}.

    A blend or stack should come after its members, because it uses fitted rankers.
    """
    rankers: dict[str, Ranker] = {}
    for ranker in configs:
        started = time.perf_counter()
        try:
            rankers[ranker.kind] = fit_ranker(
                ranker, window.of_ranker(ranker), window.valid.data, options, fitted=rankers
            )
        except RankingError as error:
            if not isinstance(ranker, ValueHeadsConfig):
                raise
            print(f"left out: {error}")
            continue
        print(f"{ranker.kind}: trained in {time.perf_counter() - started:.1f} s")
    return rankers
