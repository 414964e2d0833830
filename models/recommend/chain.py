"""The chain: sources retrieve candidates, a ranker scores them, re-ranking balances the list.

A source is a model that retrieves candidates. The shortlist is the union of their candidates.
The chain only computes on arrays: it reads no store and no clock, and knows no external ids.
Training, evaluation and service all use this class, so the evaluated code is the served code.

Shapes: B requests, C candidates, F features, P candidates that are re-ranked, S sources, N items.
"""

import copy
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from models.baselines.popularity import Popularity
from models.queries import Candidates, OncePerBatch, Queries, Source
from models.ranking.features.compute import ranking_features, ranking_schema
from models.ranking.features.sources import reciprocal
from models.ranking.protocol import Ranker
from models.ranking.requests import History, Requests
from models.recommend.business_rules.list_rules import ListRules
from models.recommend.cold_start.fresh_items import FreshItems, new_candidates
from models.recommend.cold_start.new_items import (
    CONTENT,
    NEW,
    NewItems,
    best_of,
)
from models.recommend.cold_start.new_positions import NewItemsConfig, with_new
from models.recommend.cold_start.short_history import FALLBACK, with_fallback
from models.recommend.explaining.explain import FILL, RULES
from models.recommend.merge import Shortlist, merge
from models.recommend.rerank.apply import reranker_of
from models.recommend.rerank.config import (
    CalibrationConfig,
    MmrConfig,
    RerankConfig,
    with_rerank,
)
from models.recommend.stages import Run, strictly
from models.recommend.tiers import Ranked, deepened
from models.search.weights import SearchWeights
from shortlist.behaviour.repeats import repeat_after
from shortlist.config import Config
from shortlist.features.pack import ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.items.catalogue import Catalogue

FILL_DAYS = 7
"""The source FILL (popular items for lists that are too short) counts the events of this many
days."""
FILL_WEIGHT = 1e-3
"""Weight of the sources LAST in reciprocal rank fusion. Other sources have weight 1."""
LAST = (FILL, RULES)
"""Sources that aren't personalised; reciprocal rank fusion puts their candidates last."""


class ChainConfig(Config):
    """Configuration of a chain: its candidate sources, its score sources, and re-ranking."""

    candidate_sources: tuple[str, ...]
    score_sources: tuple[str, ...]
    """Sources that score all candidates; the ranker reads these scores."""
    candidates_per_source: int = 100
    rerank: RerankConfig | None = None
    """Re-ranking of the best candidates (docs/reranking.md); None: items are ordered by score."""
    repeats: str = "exclude"
    """Whether consumed items may be shown again: "exclude" (never), "allow", or after a time, such
    as "after 7 days" (shortlist/behaviour/repeats.py)."""
    new_items: NewItemsConfig | None = None
    """Positions that are kept for new items; None: none (docs/cold-start.md)."""
    search: SearchWeights = SearchWeights()
    """How `/search` combines its orders (docs/search.md)."""
    min_history: int = Field(default=0, ge=0)
    """Requests with fewer events in their history are ordered by the source FALLBACK alone."""

    @model_validator(mode="before")
    @classmethod
    def _former_keys(cls, content: Any) -> Any:
        return with_rerank(content)

    @model_validator(mode="after")
    def _has_fallback(self) -> "ChainConfig":
        if self.min_history and FALLBACK not in self.candidate_sources:
            raise ValueError(
                f"min_history = {self.min_history} needs the candidate source {FALLBACK}, got"
                f" {', '.join(self.candidate_sources)}"
            )
        return self

    @property
    def repeat_after(self) -> int | None:
        """Microseconds after which a consumed item may be shown again; None: never."""
        return repeat_after(self.repeats)


class Chain:
    """Sources, ranker and re-ranking, combined as a ChainConfig defines."""

    def __init__(
        self,
        config: ChainConfig,
        *,
        sources: Mapping[str, Source],
        ranker: Ranker | None,
        catalogue: Catalogue,
        profiles: ProfileEncoder,
    ):
        missing = {*config.candidate_sources, *config.score_sources} - set(sources)
        assert not missing, f"chain names sources that were not built: {sorted(missing)}"
        self.config = config
        self.sources = dict(sources)
        self.ranker = ranker
        self.catalogue = catalogue
        self.profiles = profiles
        self.schema = ranking_schema(
            config.score_sources, profiles=profiles, repeats=config.repeat_after is not None
        )
        self.num_known = catalogue.num_items
        self.new: NewItems | None = None
        self.popular = Popularity(FILL, days=FILL_DAYS)
        self._known_queries = OncePerBatch(lambda queries: queries.known(self.num_known))
        self._reranker = reranker_of(config.rerank, self.sources, catalogue)

    def live(self, catalogue: Catalogue, new: NewItems | None) -> "Chain":
        """Return a chain with the same models over another catalogue, usually the current one.

        Args:
            new: source of the items that were added after training (after the first `num_known`);
                None if there are none.
        """
        chain = copy.copy(self)
        chain.__dict__.pop("fresh", None)
        chain.catalogue = catalogue
        chain.new = new
        chain.popular = Popularity(FILL, days=FILL_DAYS)
        # Not shared with `self`: the cache compares queries by identity only.
        chain._known_queries = OncePerBatch(lambda queries: queries.known(self.num_known))
        chain._reranker = reranker_of(
            chain.config.rerank,
            chain.sources,
            catalogue,
            new_content=None if new is None else new.vectors,
        )
        return chain

    def with_rerank(self, config: MmrConfig | CalibrationConfig | None) -> "Chain":
        """Return the same chain with another re-ranking."""
        chain = copy.copy(self)
        chain.config = self.config.model_copy(update={"rerank": config})
        return chain.live(self.catalogue, self.new)

    def with_ranker(self, ranker: Ranker | None) -> "Chain":
        """Return the same chain with another ranker."""
        chain = copy.copy(self)
        chain.ranker = ranker
        return chain

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of all sources that can retrieve a candidate, in the order of `Ranked.found_by`."""
        names = self.config.candidate_sources
        if self.new is None:
            return (*names, *((NEW,) if self.keeps_positions else ()), FILL, RULES)
        by_content = (CONTENT,) if self.new.vectors is not None and CONTENT not in names else ()
        return (*names, *by_content, NEW, FILL, RULES)

    @cached_property
    def fresh(self) -> FreshItems:
        """The items that count as new."""
        return FreshItems(
            self.config.new_items, self.catalogue, num_known=self.num_known, new=self.new
        )

    @property
    def keeps_positions(self) -> bool:
        """Whether lists keep positions for new items."""
        return self.config.new_items is not None and self.config.new_items.share > 0

    def retrieve(
        self, queries: Queries, items: ItemState, *, k: int = 0, run: Run = strictly
    ) -> dict[str, Candidates]:
        """Return {source: candidates}, up to max(`k`, `candidates_per_source`) per source.

        Args:
            run: runs one stage per source, with the source's name. Skipped sources have no entry.
        """
        depth = max(self.config.candidates_per_source, k)
        known, known_items = self._known(queries, items)
        found: dict[str, Candidates] = {}
        for name in self.config.candidate_sources:
            retrieve = partial(self.sources[name].retrieve, known, known_items, k=depth)
            candidates = run(name, retrieve, None)
            if candidates is not None:
                found[name] = candidates
        if self.new is None and not self.keeps_positions:
            return found
        if self.new is not None:
            similar = run(CONTENT, partial(self.new.by_content, queries, known, k=depth), None)
            if similar is not None:
                first = found.get(CONTENT)
                found[CONTENT] = similar if first is None else best_of(first, similar, k=depth)
        new = run(NEW, partial(new_candidates, self, queries, known, items), None)
        if new is not None:
            found[NEW] = new
        # In the order of `source_names`, even if some sources were skipped.
        return {name: found[name] for name in self.source_names if name in found}

    def _known(self, queries: Queries, items: ItemState) -> tuple[Queries, ItemState]:
        """Return queries and item states restricted to the items that the models know."""
        if self.new is None:
            return queries, items
        return self._known_queries(queries), items.first(self.num_known)

    def shortlist(
        self, queries: Queries, items: ItemState, *, k: int = 0, run: Run = strictly
    ) -> Shortlist:
        """Return the merged candidates of all candidate sources.

        If a query has fewer than `k` candidates, the source FILL adds popular items. So there are
        `k` candidates whenever `k` items may be shown, even if filters are narrow or sources fail.
        """
        found = self.retrieve(queries, items, k=k, run=run)
        merged = merge(found) if found else None
        if merged is not None and ((merged.item_idx > 0).sum(1) >= k).all():
            return merged
        popular = self.popular.retrieve(queries, items, k=max(k, 1))
        if merged is not None:
            # Only items that no source found, so that FILL does not change the order of the others.
            both = (popular.item_idx[:, :, None] == merged.item_idx[:, None, :]).any(-1)
            popular = Candidates(np.where(both, 0, popular.item_idx), popular.score)
        return merge(found | {FILL: popular})

    def source_scores(
        self, queries: Queries, items: ItemState, shortlist: Shortlist, *, run: Run = strictly
    ) -> dict[str, np.ndarray]:
        """Return the scores of all candidates by each score source: {source: (B, C) float32}.

        Includes candidates that the source did not retrieve; -inf where it has no score. A source
        that `run` skips has no entry.
        """
        candidates = shortlist.item_idx
        known, known_items = self._known(queries, items)
        old = np.where(candidates <= self.num_known, candidates, 0)  # padding gets -inf
        scores: dict[str, np.ndarray] = {}
        for name in self.config.score_sources:
            score = partial(self.sources[name].score, known, known_items, old)
            given = run(f"{name}_scores", score, None)
            if given is not None:
                scores[name] = given
        if self.new is not None and CONTENT in scores:
            new = self.new.content_scores(known, candidates)
            scores[CONTENT] = np.maximum(scores[CONTENT], new)
        return scores

    def features(
        self,
        queries: Queries,
        items: ItemState,
        shortlist: Shortlist,
        scores: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return the ranker's features: (B, C, F) float32.

        Args:
            scores: result of `source_scores`, if already computed.
        """
        if scores is None:
            scores = self.source_scores(queries, items, shortlist)
        not_found = np.zeros(shortlist.item_idx.shape, dtype=np.float32)
        names = self.config.score_sources
        return ranking_features(
            queries,
            items,
            catalogue=self.catalogue,
            candidates=shortlist.item_idx,
            source_scores=scores,
            source_ranks={name: shortlist.ranks.get(name, not_found) for name in names},
            schema=self.schema,
        )

    def rank(
        self,
        queries: Queries,
        items: ItemState,
        *,
        k: int,
        run: Run = strictly,
        rules: ListRules | None = None,
    ) -> Ranked:
        """Return the best k items of each query, re-ranked as configured.

        Without `rules`, a longer list starts with the shorter one: the items of `rank(k=10)` are
        the first 10 of `rank(k=500)`. If the sources find fewer than k candidates, `tiers.deepened`
        appends more.

        Args:
            run: runs the stages: one per source, then `ranking_features`, `ranker` and `rerank`. If
                the features or the ranker's scores are missing, reciprocal rank fusion orders the
                candidates.
            rules: soft business rules of a single request, for the same `k`; their stage is named
                `rules`.
        """
        if rules is not None:
            return self._rank_with(rules, queries, items, k=k, run=run)
        found = self.retrieve(queries, items, run=run)
        first = self.empty(len(queries))
        if found:
            first = self.rank_candidates(queries, items, merge(found), k=k, run=run)
        return deepened(self, first, queries, items, k=k, run=run)

    def _rank_with(
        self, rules: ListRules, queries: Queries, items: ItemState, *, k: int, run: Run
    ) -> Ranked:
        """Return the best k items of a single request under its soft rules."""
        found = self.shortlist(queries, items, k=rules.depth, run=run)
        shortlist = run(
            RULES,
            lambda: rules.with_missing(found, queries, self.popular.counts(items)),
            found,
        )
        return self.rank_candidates(queries, items, shortlist, k=k, run=run, rules=rules)

    def rank_candidates(
        self,
        queries: Queries,
        items: ItemState,
        shortlist: Shortlist,
        *,
        k: int,
        rerank: bool = True,
        run: Run = strictly,
        rules: ListRules | None = None,
    ) -> Ranked:
        """Return the best k of the given candidates; see `rank`.

        Args:
            rerank: if False, re-ranking is skipped and the items are ordered by score.
        """
        if shortlist.item_idx.shape[1] == 0:  # filters may exclude everything
            return self.empty(len(queries))
        given = self.source_scores(queries, items, shortlist, run=run)
        x = run("ranking_features", lambda: self.features(queries, items, shortlist, given), None)
        score = None
        if x is None:
            x = np.zeros((*shortlist.item_idx.shape, 0), dtype=np.float32)
        else:
            score = run("ranker", partial(self.scores, queries, shortlist, x), None)
        if score is None:
            score = self.fused(shortlist)
        score = with_fallback(score, queries, shortlist, min_history=self.config.min_history)
        rate = self.new_rate(items)
        return self.order(
            queries, shortlist, x, score, k=k, rerank=rerank, run=run, rules=rules, rate=rate
        )

    def new_rate(self, items: ItemState) -> float:
        """Return the probability that a new item is due at a position (new_positions.py)."""
        if self.config.new_items is None:
            return 0.0
        every = int(np.count_nonzero(self.catalogue.available))
        return self.config.new_items.rate(new=len(self.fresh.at(items)), every=every)

    def empty(self, num_queries: int) -> Ranked:
        """Return lists of length 0."""
        empty = np.zeros((num_queries, 0), dtype=np.int64)
        return Ranked(
            item_idx=empty,
            score=empty.astype(np.float32),
            source=empty,
            found_by=np.zeros((num_queries, 0, len(self.source_names)), dtype=bool),
            features=np.zeros((num_queries, 0, len(self.schema.names)), dtype=np.float32),
            propensity=np.ones((num_queries, 0)),
            candidates=empty,
        )

    def scores(self, queries: Queries, shortlist: Shortlist, x: np.ndarray) -> np.ndarray:
        """Return the ranker's scores: (B, C) float32; padding is -inf.

        If the chain has no ranker, the scores are those of reciprocal rank fusion.

        Args:
            x: (B, C, F) features.
        """
        if self.ranker is None:
            return self.fused(shortlist)
        real = shortlist.item_idx > 0
        score = np.full(real.shape, -np.inf, dtype=np.float32)
        given = x.reshape(-1, x.shape[-1]) if real.all() else x[real]
        requests = Requests(real.sum(1), partial(History.of, queries))
        score[real] = self.ranker.predict(given, shortlist.item_idx[real], requests)
        return score

    def fused(self, shortlist: Shortlist) -> np.ndarray:
        """Return scores by reciprocal rank fusion: (B, C) float32; padding is -inf."""
        return np.where(shortlist.item_idx > 0, fused_score(shortlist), np.float32(-np.inf))

    def order(
        self,
        queries: Queries,
        shortlist: Shortlist,
        x: np.ndarray,
        score: np.ndarray,
        *,
        k: int,
        rerank: bool = True,
        run: Run = strictly,
        rules: ListRules | None = None,
        rate: float = 0.0,
    ) -> Ranked:
        """Sort by score (ties go to the earlier candidate), re-rank, place new items, cut to k.

        Soft rules apply twice: boosts and buries before re-ranking; pins, caps and quotas after it.

        Args:
            x: (B, C, F) features, which the result repeats.
            score: (B, C).
            rate: result of `new_rate`. Lists under soft rules and further tiers of long lists keep
                no positions for new items.
        """
        every, by = np.argsort(-score, axis=1, kind="stable"), score
        if rules is not None:
            move = partial(rules.moved, shortlist.item_idx, every, score)
            every, by = run(RULES, move, (every, score))
        order = every
        if rerank and self._reranker is not None:
            best = every[:, : max(k, self._reranker.config.pool)]
            order = run("rerank", partial(self._reranked, queries, shortlist, by, best, k), best)
        propensity = np.ones((len(order), min(k, order.shape[1])))
        new_items = self.config.new_items
        if rerank and rules is None and rate > 0 and new_items and NEW in shortlist.ranks:
            order, propensity = with_new(
                queries, shortlist, every, order, k=k, rate=rate, first=new_items.first
            )
        order = order[:, :k]
        if rules is not None:
            arrange = partial(rules.arrange, shortlist.item_idx, every, order)
            order = run(RULES, arrange, order)
        row = np.arange(len(order))[:, None]
        ranks = np.stack([of_source[row, order] for of_source in shortlist.ranks.values()], -1)
        numbers = self._numbers(shortlist)
        found_by = np.zeros((*order.shape, len(self.source_names)), dtype=bool)
        found_by[..., numbers] = ranks > 0
        return Ranked(
            item_idx=shortlist.item_idx[row, order],
            propensity=propensity,
            score=score[row, order],
            source=numbers[np.where(ranks > 0, ranks, np.inf).argmin(-1)],
            found_by=found_by,
            features=x[row, order],
            candidates=shortlist.item_idx,
        )

    def _numbers(self, shortlist: Shortlist) -> np.ndarray:
        """Return the index in `source_names` of each source in `shortlist.ranks`: (S,) int64."""
        number = {name: place for place, name in enumerate(self.source_names)}
        return np.array([number[name] for name in shortlist.ranks])

    def _reranked(
        self, queries: Queries, shortlist: Shortlist, score: np.ndarray, order: np.ndarray, k: int
    ) -> np.ndarray:
        """Re-rank the columns `order` (B, P) of the shortlist, best score first.

        Returns:
            (B, P) the same columns in the new order.
        """
        assert self._reranker is not None
        row = np.arange(len(order))[:, None]
        item_idx, best = shortlist.item_idx[row, order], score[row, order]
        return order[row, self._reranker.order(queries, item_idx, best, k=k)]


def fused_score(shortlist: Shortlist) -> np.ndarray:
    """Return the sum of 1 / (60 + rank) over the sources that found the candidate: (B, C) float32.

    Sources in LAST have a tiny weight, so candidates that only they found come after all others.
    """
    parts = [
        reciprocal(ranks, weight=FILL_WEIGHT if name in LAST else 1)
        for name, ranks in shortlist.ranks.items()
    ]
    return np.sum(parts, axis=0).astype(np.float32)
