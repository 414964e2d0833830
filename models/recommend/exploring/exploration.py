"""Exploration of one list: random draws, with the propensity of every shown item.

The propensity is the probability that the shown item is at its position, given the items at the
positions before it. The product of the first n propensities is the probability of the first n
items. Both methods below draw from the finished list, after re-ranking, so propensities are exact.

- Epsilon-greedy: each position shows, with probability `share`, an item drawn uniformly from the
  allowed items outside the list. The replaced item is not shown at another position.
- Softmax: the first `pool` items of the list get a random order, drawn from a Plackett-Luce
  distribution by Gumbel top-k (Yellott 1977; Kool, van Hoof & Welling 2019). In this draw, the item
  at position r of the list has the r-th highest score of the pool. Its own score is not used,
  because re-ranking may have moved the item.

Without exploration, propensities are below 1 only where the chain draws positions for new items
(new_positions.py). With exploration, those positions count as given.

Shapes: k positions, P items of the pool, N items.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from models.queries import Queries
from models.recommend.explaining.explain import FILL
from models.recommend.exploring.explore import mix_in
from models.recommend.merge import Shortlist
from models.recommend.stages import Run
from models.recommend.tiers import Ranked
from shortlist.config import EpsilonGreedy, Softmax
from shortlist.features.pack import ItemState

if TYPE_CHECKING:
    from models.recommend.chain import Chain

Scored = Callable[[np.ndarray], Ranked]
"""Function that scores (m,) item_idx for one query. The result keeps their order."""


@dataclass(frozen=True)
class Exploration:
    """Exploration setting and seed of one request."""

    setting: EpsilonGreedy | Softmax
    seed: int
    """Seed of the draws; the same seed on the same list gives the same answer."""

    @property
    def depth(self) -> int:
        """Minimum length of the ranked list that `draw` needs; 0 if k items are enough."""
        return self.setting.pool if isinstance(self.setting, Softmax) else 0

    def draw(
        self, ranked: Ranked, *, k: int, free: np.ndarray, random_source: int, scored: Scored
    ) -> tuple[Ranked, np.ndarray]:
        """Return the list to show and the (k,) float64 propensities of its items.

        Args:
            ranked: one query's list without padding; its first k items are shown without
                exploration.
            free: (N + 1,) bool: items that may be shown; changed in place.
            random_source: value of `Ranked.source` for items that are drawn from `free`.
            scored: function that scores items that aren't on the list.
        """
        rng = np.random.default_rng(self.seed)
        if isinstance(self.setting, Softmax):
            places, propensity = plackett_luce(ranked.score[0], k=k, setting=self.setting, rng=rng)
            return ranked.select(places), propensity
        top = ranked.select(np.arange(min(k, ranked.item_idx.shape[1])))
        free[top.item_idx[0]] = False
        drawn, items, propensity = epsilon_greedy(
            top.item_idx[0], np.flatnonzero(free), share=self.setting.share, rng=rng
        )
        if drawn.any():
            top = _replaced(top, drawn, scored(items[drawn]), source=random_source)
        return top, propensity


@dataclass(frozen=True)
class Explored:
    """A list after exploration, without padding, and the propensities of its first k items."""

    ranked: Ranked
    propensities: list[float]
    seed: int | None
    """Seed of the draws; None if nothing was drawn."""


def explored(
    exploration: Exploration | None,
    ranked: Ranked,
    chain: "Chain",
    query: Queries,
    items: ItemState,
    *,
    gone: np.ndarray,
    k: int,
    run: Run,
) -> Explored:
    """Explore a single query's list; return it unchanged if `exploration` is None or fails.

    Args:
        gone: item_idx that must not be drawn, in addition to those that the query excludes.
        k: length of the list to show.
        run: runs the stage "explore".
    """
    width = min(ranked.item_idx.shape[1], k)
    plain = Explored(ranked, ranked.propensity[0, :width].tolist(), None)
    if exploration is None or width == 0:
        return plain

    def draw() -> Explored:
        free = query.allowed(0, chain.catalogue.num_items)
        free[gone] = False
        drawn, propensities = exploration.draw(
            ranked,
            k=k,
            free=free,
            random_source=len(chain.source_names),
            scored=lambda item_idx: score_items(
                chain, query, items, item_idx, candidates=ranked.candidates[0], run=run
            ),
        )
        return Explored(drawn, propensities.tolist(), exploration.seed)

    return run("explore", draw, plain)


def score_items(
    chain: "Chain",
    query: Queries,
    items: ItemState,
    item_idx: np.ndarray,
    *,
    candidates: np.ndarray,
    run: Run,
) -> Ranked:
    """Score (m,) items that no source found, for a single query. The result keeps their order.

    Args:
        candidates: (C,) item_idx of the list's candidates. Some features depend on them, because
            they compare an item with the other candidates.
    """
    count = len(item_idx)
    together = np.concatenate([item_idx, candidates[~np.isin(candidates, item_idx)]])[None]
    among = Shortlist(together, {FILL: np.zeros(together.shape, dtype=np.float32)})
    drawn = Shortlist(item_idx[None], {FILL: np.zeros((1, count), dtype=np.float32)})
    given = chain.source_scores(query, items, among, run=run)
    x = run("ranking_features", lambda: chain.features(query, items, among, given)[:, :count], None)
    score = None if x is None else run("ranker", partial(chain.scores, query, drawn, x), None)
    return Ranked(
        item_idx=drawn.item_idx,
        score=chain.fused(drawn) if score is None else score,
        source=np.zeros((1, count), dtype=np.int64),
        found_by=np.zeros((1, count, len(chain.source_names)), dtype=bool),
        propensity=np.ones((1, count)),
        features=np.zeros((1, count, 0), dtype=np.float32) if x is None else x,
        candidates=together,
    )


def epsilon_greedy(
    top: np.ndarray, free: np.ndarray, *, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replace each position by a random item with probability `share`.

    Args:
        top: (k,) item_idx of the list.
        free: item_idx of all allowed items outside the list.

    Returns:
        (k,) bool: where a random item is shown; (k,) item_idx shown; (k,) float64 propensities.
    """
    extra = np.zeros(len(top), dtype=np.int64)
    count = min(len(top), len(free))
    extra[:count] = rng.choice(free, size=count, replace=False)
    (drawn,), _ = mix_in(
        top[None], extra[None], share=share, allowed=np.array([len(free)]), rng=rng
    )
    # Number of random items that each position can draw: those of earlier positions are used up.
    left = len(free) - (np.cumsum(drawn) - drawn)
    propensity = np.where(drawn, share / np.maximum(left, 1), 1 - share)
    return drawn, np.where(drawn, extra, top), np.where(extra > 0, propensity, 1.0)


def plackett_luce(
    score: np.ndarray, *, k: int, setting: Softmax, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a random order of the first `pool` items; the items after them keep their order.

    Args:
        score: (W,) scores of the list's items, in list order.

    Returns:
        (min(k, W),) places in the list, and the (min(k, W),) float64 propensities.
    """
    value = -np.sort(-score[: setting.pool].astype(np.float64))
    spread = value[0] - value[-1] if len(value) else 0.0
    logit = (value - value[-1:]) / (spread or 1.0) / setting.temperature
    order = np.argsort(-(logit + rng.gumbel(size=len(logit))), kind="stable")
    # Log of the sum of exp(logit) over the items that are left at each position.
    left = np.logaddexp.accumulate(logit[order][::-1])[::-1]
    places = np.concatenate([order, np.arange(len(order), len(score))])[:k]
    propensity = np.ones(len(places))
    sampled = min(k, len(order))
    propensity[:sampled] = np.exp(logit[order] - left)[:sampled]
    return places, propensity


def _replaced(top: Ranked, drawn: np.ndarray, other: Ranked, *, source: int) -> Ranked:
    """Return one query's list with the items of `other` in the `drawn` positions."""
    found_by = np.zeros((1, len(drawn), source + 1), dtype=bool)
    found_by[..., : top.found_by.shape[2]] = top.found_by
    found_by[0, drawn] = False
    found_by[0, drawn, source] = True
    width = min(top.features.shape[2], other.features.shape[2])
    changed = {
        "item_idx": top.item_idx.copy(),
        "score": top.score.copy(),
        "source": top.source.copy(),
        "features": top.features[..., :width].copy(),
    }
    for name in ("item_idx", "score"):
        changed[name][0, drawn] = getattr(other, name)[0]
    changed["features"][0, drawn] = other.features[0, :, :width]
    changed["source"][0, drawn] = source
    return replace(top, found_by=found_by, **changed)
