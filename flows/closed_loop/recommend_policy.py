"""A policy that fills pages with a Recommender and keeps the ranker's features for the log.

Shapes: S pages, K positions, C candidates, E extra (exploration) items, F features, N items.
"""

from dataclasses import dataclass

import numpy as np

from flows.closed_loop.arms import Arm
from flows.closed_loop.memory import MemoryStore
from flows.closed_loop.setting import Setting
from models.queries import Queries
from models.recommend.exploring.explore import draw_extra, mix_in, with_extra
from models.recommend.merge import Shortlist
from models.recommend.queries import build_queries
from models.recommend.recommender import Recommender
from models.recommend.rules import blocked_items
from simulation.behaviour import NO_ITEM, LatentState
from simulation.policy import LoggingPolicy, Page


@dataclass
class RecommendPolicy:
    """Fills home pages with a Recommender.

    In shadow mode (`shadow` is set) the logging policy fills them, and the Recommender only
    computes the features of the shown items.
    """

    setting: Setting
    arm: Arm
    store: MemoryStore
    recommender: Recommender
    shadow: LoggingPolicy | None = None

    def __post_init__(self) -> None:
        self.features = np.empty((0, 0, 0), dtype=np.float32)
        """(S, K, F) ranker features of the items in the last slates."""
        self.blocked = blocked_items(self.recommender.catalogue)

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fill pages, see `Policy.slates`. `moment` is ignored: a recommender can't observe it."""
        queries = self._queries(page)
        if self.shadow is not None:
            item, chance = self.shadow.slates(page, k=k, rng=rng)
            shortlist = self._shortlist(queries, item + 1, k=k)
            x = self._features(queries, shortlist)
            self.features = _at(x, _columns(shortlist, item + 1, queries))
            return item, chance
        blocked = self._blocked(queries)
        # Draw even if the arm doesn't explore: later pages then get the same random numbers in all
        # arms.
        extra = draw_extra(blocked, k=2 * k, rng=rng)
        shortlist = self._shortlist(queries, extra, k=k)
        x = self._features(queries, shortlist)
        retrieved = shortlist.item_idx[:, : shortlist.item_idx.shape[1] - extra.shape[1]]
        found = Shortlist(
            item_idx=np.concatenate([retrieved, np.zeros_like(extra)], axis=1),
            ranks=shortlist.ranks,
        )
        chain = self.recommender.chain
        rate = chain.new_rate(self.recommender.items)
        ranked = chain.order(queries, found, x, chain.scores(queries, found, x), k=k, rate=rate)
        top = np.zeros((len(queries), k), dtype=np.int64)
        top[:, : ranked.item_idx.shape[1]] = ranked.item_idx
        extra = _without(extra, top)[:, :k]
        drawn, chance = mix_in(
            top,
            extra,
            share=self.arm.explore,
            allowed=(~blocked).sum(1) - 1 - k,
            rng=rng,
        )
        if self.arm.explore == 0:  # else positions for new items count as given
            chance[:, : ranked.propensity.shape[1]] = ranked.propensity
        item = np.where(drawn, extra, top)
        self.features = _at(x, _columns(shortlist, item, queries))
        return np.where(item > 0, item - 1, NO_ITEM), chance

    def _queries(self, page: Page) -> Queries:
        names = [self.setting.user_ids[user] for user in page.user]
        contexts = self.setting.contexts(page.at, page.phone).tolist()
        rows = self.store.read(names, contexts, page.at)
        return build_queries(
            rows,
            catalogue=self.recommender.catalogue,
            profiles=self.recommender.profiles,
            exclude=self.blocked,
            repeat_after=self.recommender.chain.config.repeat_after,
        )

    def _shortlist(self, queries: Queries, extra: np.ndarray, *, k: int) -> Shortlist:
        chain = self.recommender.chain
        found = chain.shortlist(queries, self.recommender.items, k=k)
        return with_extra(found, extra)

    def _features(self, queries: Queries, shortlist: Shortlist) -> np.ndarray:
        """Return (S, C, F) ranker features; F is 0 for arms without a ranker."""
        if self.arm.weights is None:
            return np.zeros((*shortlist.item_idx.shape, 0), dtype=np.float32)
        return self.recommender.chain.features(queries, self.recommender.items, shortlist)

    def _blocked(self, queries: Queries) -> np.ndarray:
        """Return (S, N + 1) bool by item_idx: True if an item is unavailable or the user saw it."""
        blocked = np.repeat(self.blocked[None], len(queries), axis=0)
        for row, seen in zip(blocked, queries.seen, strict=True):
            row[seen] = True
        return blocked


def _columns(shortlist: Shortlist, item: np.ndarray, queries: Queries) -> np.ndarray:
    """Find items in the shortlist: (S, K) item_idx -> (S, K) columns, -1 if an item isn't on it."""
    same = item[:, :, None] == shortlist.item_idx[:, None, :]
    return np.where(same.any(-1) & (item > 0), same.argmax(-1), -1)


def _at(x: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Select features by column: (S, C, F) features, (S, K) columns -> (S, K, F); zeros for -1."""
    taken = np.take_along_axis(x, np.maximum(column, 0)[:, :, None], axis=1)
    return np.where((column >= 0)[:, :, None], taken, np.float32(0))


def _without(extra: np.ndarray, top: np.ndarray) -> np.ndarray:
    """Remove the items of `top` from (S, E) extra items; the rest moves left in order."""
    kept = (extra > 0) & ~(extra[:, :, None] == top[:, None, :]).any(-1)
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, extra, 0), order, axis=1)
