"""The Recommender: answers requests with the models of one release.

It is used by the service, by `shortlist recommend` and by the closed loop of the simulation.
"""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from models.baselines.item_knn import ItemKNN
from models.queries import Queries
from models.recommend.business_rules.compiled import CompiledRules
from models.recommend.business_rules.list_rules import ListRules
from models.recommend.chain import Chain
from models.recommend.explaining.explain import Wording
from models.recommend.exploring.exploration import Exploration, explored
from models.recommend.hydrate import context_of, hydrate
from models.recommend.loading import load_chain
from models.recommend.pages import Page, without
from models.recommend.queries import build_queries
from models.recommend.rerank.config import CalibrationConfig, MmrConfig
from models.recommend.rules import blocked_items
from models.recommend.search import VECTORS, WORDS, match, text_encoder_ready, with_search
from models.recommend.slate import SearchSlate, Slate, rules_version
from models.recommend.stages import StageHealth, Stages
from models.recommend.view import View
from models.search.text_index import TextIndexes
from shortlist.behaviour.shown_items import ShownItems
from shortlist.columns import MICROSECONDS_PER_DAY, PAD_IDX
from shortlist.feature_store import FeatureReader
from shortlist.features.finalize import (
    RequestRows,
)
from shortlist.features.pack import FeaturePack, ItemState
from shortlist.features.profiles import ProfileEncoder
from shortlist.http.api import Item, RecommendRequest, SearchRequest, SimilarRequest
from shortlist.http.rule_config import RuleSet, RulesInForce
from shortlist.ids import ANONYMOUS
from shortlist.items.catalogue import Catalogue
from shortlist.releases.release import Release


class UnknownItemError(ValueError):
    """The item id is not in the catalogue."""


class Recommender:
    """Answers requests with the models of one release, a feature reader and a feature pack.

    The release is the folder with all trained models and their vocabulary. The feature pack holds
    the item features and the current catalogue: prices, availability and new items come from it.
    """

    def __init__(
        self,
        *,
        chain: Chain,
        catalogue: Catalogue,
        profiles: ProfileEncoder,
        reader: FeatureReader,
        pack: FeaturePack,
        about: dict[str, Any],
        release: Release | None = None,
        health: StageHealth | None = None,
        budget: float = float("inf"),
        rules: RulesInForce | None = None,
        shown: ShownItems | None = None,
    ):
        """
        Args:
            chain: the models.
            catalogue: the catalogue that they were trained on.
            reader: reads the states of users and contexts from the feature store.
            about: description of the release.
            health: stages that are switched off; shared by the recommenders of a process.
            budget: seconds after the start of a request within which each of its stages must start.
            rules: business rules that apply to all requests; shared by the recommenders of a
                process.
            shown: items that were shown to users, for rules of the type `not_shown`; None: such
                rules exclude nothing.
        """
        self.shown = shown
        self.rules = rules or RulesInForce()
        self.health = health or StageHealth()
        self.budget = budget
        self.profiles = profiles
        self.reader = reader
        self.about = about
        self.release = release
        self._models = chain
        self._trained_on = catalogue
        item_knn = chain.sources.get("item_knn")
        self.item_knn = item_knn if isinstance(item_knn, ItemKNN) else None
        self._text_indexes = TextIndexes()
        self._view: View | None = None
        self.swap_pack(pack)

    @classmethod
    def load(
        cls,
        release: Release,
        reader: FeatureReader,
        *,
        pack: FeaturePack,
        health: StageHealth | None = None,
        budget: float = float("inf"),
        rules: RulesInForce | None = None,
        shown: ShownItems | None = None,
    ) -> "Recommender":
        """Load a verified release; see the constructor for the other arguments.

        Raises:
            ReleaseError: the release was trained on other features than this code computes.
            PackError: the pack was made for other features than this code computes.
        """
        chain = load_chain(release.path, release.about, sources=release.path / "sources")
        return cls(
            chain=chain,
            catalogue=chain.catalogue,
            profiles=chain.profiles,
            reader=reader,
            pack=pack,
            about=release.about,
            release=release,
            health=health,
            budget=budget,
            rules=rules,
            shown=shown,
        )

    @property
    def release_id(self) -> str:
        return self.release.release_id if self.release else "unpublished"

    @property
    def view(self) -> View:
        """The objects that depend on the feature pack.

        A request reads this property once, so a swap of the pack doesn't affect it.
        """
        assert self._view is not None, "the constructor swaps a pack in"
        return self._view

    @property
    def catalogue(self) -> Catalogue:
        return self.view.catalogue

    @property
    def chain(self) -> Chain:
        return self.view.chain

    @property
    def items(self) -> ItemState:
        return self.view.items

    def swap_pack(self, pack: FeaturePack) -> None:
        """Use `pack` for all requests from now on; running requests keep the old view."""
        before = self._view
        if before is not None and before.items_hash == pack.items_hash:
            view = before.with_items(pack)
        else:
            view = View.build(
                self._models,
                pack,
                trained_on=self._trained_on,
                item_knn=self.item_knn,
                wording=Wording(
                    tuple(self.about.get("target_events", ())), self.about.get("wording", {})
                ),
            )
        view.rules.in_force(self.rules.rules)  # compile now instead of in the first request
        self._view = view

    def prepare_rules(self, rules: RuleSet) -> list[str]:
        """Compile business rules for the current catalogue, before they are in force.

        Returns:
            Messages about ids and values that no item has.
        """
        return [text for part in self.view.rules.in_force(rules) for text in part.unknown]

    def recommend(
        self, request: RecommendRequest, *, at: int, exploration: Exploration | None = None
    ) -> Slate:
        """Answer one request as of `at` (microseconds, UTC); a later page as of its first page.

        Unknown users and visitors get currently popular items. If the request has `recent_items`,
        they personalise the list. A stage that fails or has no time left is named in
        `skipped_stages` (docs/serving.md). The list has `k` items whenever `k` items may be shown.

        Args:
            exploration: ignored if soft business rules arrange the list, because the probability of
                such a list can't be computed.
        """
        user_id = request.user_id or ANONYMOUS
        view, run = self.view, Stages(self.health, budget=self.budget)
        page = Page.of(request, view.keys, release_id=self.release_id, at=at)
        context = context_of(request.context, at=page.at)
        blocked, parts, names = self._excluded(run, request, view, at=at)
        queries_of = partial(self._queries, request, view, blocked)
        rows, queries = hydrate(run, self.reader, user_id, context, page.at, queries_of)
        gone = page.shown
        if page.at < at:  # consumed or refused since the first page
            _, now = hydrate(run, self.reader, user_id, context, at, queries_of)
            gone = np.union1d(gone, np.setdiff1d(now.seen[0], queries.seen[0]))
        rules = None
        if parts:
            refused = view.catalogue.vocab.encode(rows.refusals[0].items)
            rules = ListRules.of(
                parts, k=request.k, at=at, refused=refused, number_before=page.number_before
            )
        if rules is None:
            depth = max(request.k, exploration.depth if exploration else 0) + len(gone)
            ranked = view.chain.rank(queries, view.items, k=depth, run=run).row(0)
            ranked = without(ranked, gone)
        else:
            blocked[gone] = True
            exploration = None
            ranked = view.chain.rank(queries, view.items, k=request.k, run=run, rules=rules).row(0)
        shown_list = explored(
            exploration, ranked, view.chain, queries, view.items, gone=gone, k=request.k, run=run
        )
        ranked = shown_list.ranked
        shown = min(ranked.item_idx.shape[1], request.k)
        items = view.shown(
            ranked,
            queries,
            shown,
            explain=request.explain,
            number_before=page.number_before,
            run=run,
        )
        if rules is not None:
            names += rules.list_names
            for item, each in zip(items, rules.names(ranked.item_idx[0, :shown]), strict=True):
                item.rules = each
        run.finish()
        return Slate(
            items=items,
            at=page.at,
            user_known=bool(rows.user["user_events"][0] > 0),
            skipped_stages=run.skipped,
            stage_seconds=run.seconds,
            context_id=context,
            user_as_of=int(rows.user_as_of[0]),
            as_of={name: int(times[0]) for name, times in rows.as_of.items()},
            stamps={name: int(stamps[0]) for name, stamps in rows.stamps.items()},
            features=ranked.features[0, :shown].tolist(),
            propensities=shown_list.propensities,
            pack_id=view.items.pack_id,
            release_id=self.release_id,
            rules_version=rules_version(parts),
            rules=names,
            seed=shown_list.seed,
            next_cursor=page.next_cursor(
                request, ranked.item_idx[0, :shown], view.keys, release_id=self.release_id
            ),
        )

    def query(self, request: RecommendRequest, *, at: int) -> tuple[RequestRows, Queries]:
        """Return the user's states and the query that `recommend` answers for a first page."""
        view, run = self.view, Stages(self.health)
        blocked, _, _ = self._excluded(run, request, view, at=at)
        return hydrate(
            run,
            self.reader,
            request.user_id or ANONYMOUS,
            context_of(request.context, at=at),
            at,
            partial(self._queries, request, view, blocked),
        )

    def aside(self) -> "Recommender":
        """Return a recommender for trials beside the traffic: without a time budget, and failures
        or slow stages don't switch off stages for others. Stages that are off now stay off.
        """
        other = copy.copy(self)
        other.health, other.budget = StageHealth(), float("inf")
        other.health.switched_off = frozenset(self.health.off)
        return other

    def with_rerank(self, config: MmrConfig | CalibrationConfig | None) -> "Recommender":
        """Return a recommender with the same models and data, and another re-ranking."""
        other = copy.copy(self)
        other._view = replace(self.view, chain=self.view.chain.with_rerank(config))
        return other

    def _excluded(
        self, run: Stages, request: RecommendRequest, view: View, *, at: int
    ) -> tuple[np.ndarray, tuple[CompiledRules, ...], list[str]]:
        """Return which items may not be shown, (N + 1,) bool; the business rules; and the names of
        those that exclude an item.
        """
        blocked = blocked_items(view.catalogue, filters=request.filters, exclude=request.exclude)
        parts = view.rules.in_force(request.rules, self.rules.rules)
        names = [name for part in parts for name in part.block(blocked, at=at)]
        names += self._block_shown(run, request.user_id, view, blocked, at=at)
        return blocked, parts, names

    def _queries(
        self, request: RecommendRequest, view: View, blocked: np.ndarray, rows: RequestRows
    ) -> Queries:
        return build_queries(
            rows,
            catalogue=view.catalogue,
            profiles=self.profiles,
            recent_items=[request.recent_items or []],
            exclude=blocked,
            repeat_after=view.chain.config.repeat_after,
        )

    def similar(self, request: SimilarRequest, *, at: int) -> list[Item]:
        """Return items similar to a given one: items used by the same users.

        If there are too few, items with similar vectors follow (see SIMILAR_SOURCES in view.py). Of
        the business rules, only the hard rules of the deployment's rule file apply.

        Raises:
            UnknownItemError: the item is not in the catalogue.
        """
        view = self.view
        item_idx = self.item_idx(request.item_id)
        blocked = self._blocked(request, view, at=at)
        blocked[item_idx] = True
        return view.similar(item_idx, blocked, k=request.k)

    def search(self, request: SearchRequest, *, at: int, wait: bool = True) -> SearchSlate:
        """Find items by a text, as of `at` (microseconds, UTC).

        Consumed items may be found again, refused ones not. Of the business rules, only the hard
        rules of the deployment's rule file apply, without `not_shown`.

        Args:
            wait: whether to wait until the text encoder is loaded, which takes seconds once. If
                not, the answer is made without vectors meanwhile, and names the skipped stage.
        """
        view = self.view
        index = partial(self._text_indexes.of, view.catalogue, key=view.items_hash)
        run = Stages(self.health, budget=self.budget)
        blocked = self._blocked(request, view, at=at)
        context = context_of(request.context, at=at)

        def queries_of(rows: RequestRows) -> Queries:
            queries = build_queries(
                with_search(rows, [request.query]),
                catalogue=view.catalogue,
                profiles=self.profiles,
                recent_items=[request.recent_items or []],
                exclude=blocked,
            )
            refused = view.catalogue.vocab.encode(rows.refusals[0].items)
            return replace(queries, seen=[refused])

        rows, queries = hydrate(
            run, self.reader, request.user_id or ANONYMOUS, context, at, queries_of
        )
        ready = wait or text_encoder_ready(view.chain)
        if not ready:
            run.skip(VECTORS)
        matches = match(
            view.chain,
            index,
            queries,
            view.items,
            [request.query],
            ways=(WORDS, VECTORS) if ready else (WORDS,),
            run=run,
        )
        found = matches.best(view.chain.config.search, k=request.k)
        run.finish()
        return SearchSlate(
            items=view.found(found, request.query),
            at=at,
            user_known=bool(rows.user["user_events"][0] > 0),
            skipped_stages=run.skipped,
        )

    def _blocked(
        self, request: SimilarRequest | SearchRequest, view: View, *, at: int
    ) -> np.ndarray:
        """Return which items filters, exclusions and the rules file forbid: (N + 1,) bool."""
        blocked = blocked_items(view.catalogue, filters=request.filters, exclude=request.exclude)
        for part in view.rules.in_force(self.rules.rules):
            part.block(blocked, at=at)
        return blocked

    def item_idx(self, item_id: str) -> int:
        """Return an item's index; raise UnknownItemError if it is not in the catalogue."""
        item_idx = self.catalogue.vocab.idx(item_id)
        if item_idx == PAD_IDX:
            raise UnknownItemError(
                f"item_id '{item_id}' is not in the catalogue ({self.catalogue.num_items} items of"
                f" release {self.release_id} and of the newest item features)"
            )
        return item_idx

    def _block_shown(
        self, run: Stages, user_id: str | None, view: View, blocked: np.ndarray, *, at: int
    ) -> list[str]:
        """Set `blocked` for items that were shown to the user within the days of a rule.

        Returns:
            The names of the rules that exclude an item.
        """
        shown, names = self.shown, []
        for rule in self.rules.rules.not_shown:
            after = at - round(rule.days * MICROSECONDS_PER_DAY)
            if shown is None or user_id is None:
                continue
            ids = run("shown_items", lambda after=after: shown.between(user_id, after, at), [])
            rows = view.catalogue.vocab.encode(ids)
            if rows.any():
                blocked[rows] = True
                names.append(rule.name)
        return names
