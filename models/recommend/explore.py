"""Exploration: now and then a place goes to an item that nobody asked for, with a known propensity.

Epsilon-greedy place by place: without it a recommender only learns about what it shows already, and
later estimates from its log have no support (Bottou et al. 2013).

Shapes: B requests, k places, E extra items, C candidates, N items.
"""

import numpy as np

from models.recommend.merge import Shortlist


def draw_extra(blocked: np.ndarray, *, k: int, rng: np.random.Generator) -> np.ndarray:
    """(B, N + 1) bool of what may not be shown -> (B, k) item_idx drawn alike from all the rest, no
    item twice; 0 where fewer are left.
    """
    keys = rng.random(blocked.shape)
    keys[blocked] = np.inf
    keys[:, 0] = np.inf
    k = min(k, blocked.shape[1])
    part = np.argpartition(keys, k - 1, axis=1)[:, :k]
    drawn = np.take_along_axis(keys, part, axis=1)
    order = np.argsort(drawn, axis=1)
    part, drawn = np.take_along_axis(part, order, axis=1), np.take_along_axis(drawn, order, axis=1)
    return np.where(np.isfinite(drawn), part, 0)


def with_extra(shortlist: Shortlist, extra: np.ndarray) -> Shortlist:
    """The shortlist with (B, E) further items as its last columns, found by no source. One that is
    on the list already becomes padding there: its own column keeps it.
    """
    known = (extra[:, :, None] == shortlist.item_idx[:, None, :]).any(-1)
    nothing = np.zeros(extra.shape, dtype=np.float32)
    return Shortlist(
        item_idx=np.concatenate([shortlist.item_idx, np.where(known, 0, extra)], axis=1),
        ranks={
            name: np.concatenate([ranks, nothing], axis=1)
            for name, ranks in shortlist.ranks.items()
        },
    )


def mix_in(
    top: np.ndarray, extra: np.ndarray, *, share: float, allowed: np.ndarray, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Give each place of (B, k) lists to an extra item with chance `share`.

    Args:
        top: (B, k) item_idx, 0 for an empty place.
        extra: (B, k) item_idx drawn alike from what is allowed and not in `top`.
        allowed: (B,) how many items those were drawn from.

    Returns:
        (B, k) bool, True where the extra item of that column stands, and (B, k) float64, the chance
        with which the item that stands there does.
    """
    drawn = (rng.random(top.shape) < share) & (extra > 0)
    chance = np.where(drawn, share / np.maximum(allowed, 1)[:, None], 1 - share)
    return drawn, np.where(extra > 0, chance, 1.0)
