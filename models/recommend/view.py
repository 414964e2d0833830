"""The objects that requests use and that depend on the feature pack.

The feature pack is the file with the item features and the current catalogue. The service swaps it
for a newer one while it runs.
"""

from dataclasses import dataclass, replace

import numpy as np

from models.baselines.item_knn import ItemKNN
from models.queries import Candidates, Queries
from models.recommend.business_rules.compiled import RuleCompiler
from models.recommend.chain import Chain, Ranked
from models.recommend.cold_start.new_items import CONTENT
from models.recommend.explaining.explain import EXPLORE, Descriptions, Explainer, Wording
from models.recommend.loading import over_catalogue
from models.recommend.pages import ItemKeys
from models.recommend.search import Found
from models.recommend.stages import Run, strictly
from models.search.text_index import plain_words
from models.vector_source import VectorSource
from shortlist.columns import PAD_IDX
from shortlist.features.pack import FeaturePack, ItemState
from shortlist.http.api import Item
from shortlist.items.catalogue import Catalogue

SIMILAR_SOURCES = ("item_knn", CONTENT, "two_tower")
"""Sources that answer requests for similar items (`/similar`), tried in this order until there are
enough items."""


@dataclass(frozen=True)
class View:
    """All objects that depend on the feature pack. A swap replaces them together."""

    catalogue: Catalogue
    """Current items. Those that the models were trained on keep their indices; new ones follow."""
    items: ItemState
    """Item states and features in the order of the catalogue."""
    chain: Chain
    explainer: Explainer
    items_hash: str
    """Hash of the pack's catalogue; packs with the same hash can share the catalogue's objects."""
    rules: RuleCompiler
    """Compiles business rules for this catalogue."""
    keys: ItemKeys
    """Converts items to their keys in cursors, and back."""

    @classmethod
    def build(
        cls,
        models: Chain,
        pack: FeaturePack,
        *,
        trained_on: Catalogue,
        item_knn: ItemKNN | None,
        wording: Wording,
    ) -> "View":
        """Build the view of a pack.

        Args:
            models: the chain as loaded from the release.
            trained_on: the catalogue that the models were trained on; used if the pack has none.
        """
        catalogue = trained_on if pack.items is None else trained_on.with_current(pack.items)
        chain = over_catalogue(models, catalogue)
        # Compute these cached properties now instead of in the first request.
        _ = catalogue.vocab, catalogue.terms, catalogue.category_units, catalogue.brand_code
        _ = catalogue.titles, catalogue.category_lists, catalogue.log_price, catalogue.available
        items = pack.align(catalogue.vocab).with_matrix(catalogue.published_at)
        content, described = models.sources.get(CONTENT), None
        if isinstance(content, VectorSource):
            new_vectors = None if chain.new is None else chain.new.vectors
            described = Descriptions(content.item_vectors, new_vectors)
        return cls(
            catalogue=catalogue,
            items=items,
            chain=chain,
            explainer=Explainer(
                catalogue,
                item_knn,
                items=items,
                num_known=trained_on.num_items,
                descriptions=described,
                wording=wording,
            ),
            items_hash=pack.items_hash,
            rules=RuleCompiler(catalogue),
            keys=ItemKeys(catalogue.vocab.ids),
        )

    def with_items(self, pack: FeaturePack) -> "View":
        """Return a view of the same catalogue with newer item states."""
        items = pack.align(self.catalogue.vocab).with_matrix(self.catalogue.published_at)
        return replace(self, items=items, explainer=self.explainer.with_items(items))

    def found(self, found: Found, query: str) -> list[Item]:
        """Return the items of a single search, in the format of the API.

        The reason names the words of the query that the item has.
        """
        items, words = [], list(dict.fromkeys(plain_words(query)))
        for index, score, ways in zip(
            found.item_idx[0].tolist(), found.score[0].tolist(), found.found_by[0], strict=True
        ):
            if index == PAD_IDX:
                break
            own = set(plain_words(self.catalogue.texts[index]))
            both = [word for word in words if word in own]
            items.append(
                Item(
                    item_id=self.catalogue.vocab.ids[index - 1],
                    title=self.catalogue.titles[index],
                    score=score,
                    rank=len(items) + 1,
                    source=ways[0],
                    sources=list(ways),
                    reason=f"has: {', '.join(both)}" if both else "close to the search by content",
                )
            )
        return items

    def similar(self, item_idx: int, blocked: np.ndarray, *, k: int) -> list[Item]:
        """Return up to k items similar to a given one, from SIMILAR_SOURCES in this order.

        Args:
            blocked: (N + 1,) bool: items that must not be returned. Returned items are set to True.
        """
        found: list[Item] = []
        for name in SIMILAR_SOURCES:
            best = self.similar_by(name, item_idx)
            if best is None:
                continue
            for candidate, score in zip(best.item_idx[0], best.score[0], strict=True):
                if len(found) == k:
                    return found
                if candidate == PAD_IDX or blocked[candidate] or score <= 0:
                    continue
                blocked[candidate] = True
                found.append(
                    Item(
                        item_id=self.catalogue.vocab.ids[candidate - 1],
                        title=self.catalogue.titles[candidate],
                        score=float(score),
                        rank=len(found) + 1,
                        source=name,
                        sources=[name],
                        reason=f"like '{self.catalogue.titles[item_idx]}'",
                    )
                )
        return found

    def similar_by(self, name: str, item_idx: int, *, k: int | None = None) -> Candidates | None:
        """Return the k items that one source finds most similar, best first; None if it can't.

        Args:
            k: None: all items.
        """
        k = self.catalogue.num_items if k is None else k
        new = self.chain.new
        if name == CONTENT and new is not None and new.vectors is not None:
            return new.similar(item_idx, k=k)
        similar = getattr(self.chain.sources.get(name), "similar", None)
        if similar is None or item_idx > self.chain.num_known:
            return None
        return similar(np.array([item_idx]), k)

    def shown(
        self,
        ranked: Ranked,
        queries: Queries,
        count: int,
        *,
        explain: bool,
        number_before: int = 0,
        run: Run = strictly,
    ) -> list[Item]:
        """Return the first `count` items of a single query's list, in the format of the API.

        Args:
            number_before: number of items on earlier pages of the list.
        """
        names = (*self.chain.source_names, EXPLORE)
        indices = ranked.item_idx[0, :count]
        sources = [names[s] for s in ranked.source[0, :count]]
        reasons = [""] * count
        if explain:
            history, types = queries.history[0], queries.history_type[0]
            reasons = run(
                "explain",
                lambda: self.explainer.reasons(history, types, indices.tolist(), sources),
                reasons,
            )
        return [
            Item(
                item_id=self.catalogue.vocab.ids[index - 1],
                title=self.catalogue.titles[index],
                score=float(ranked.score[0, place]),
                rank=number_before + place + 1,
                source=sources[place],
                sources=[names[s] for s in np.flatnonzero(ranked.found_by[0, place])],
                reason=reasons[place],
            )
            for place, index in enumerate(indices)
        ]
