"""Epsilon-greedy exploration: random items in some positions, with known propensities.

A propensity is the probability with which an item is shown. Without exploration, a recommender only
collects feedback on items that it already shows. Off-policy estimates from its log then lack
support: no data about the other items (Bottou et al. 2013).

Shapes: B requests, k positions, E extra items, C candidates, N items.
"""

import numpy as np

from models.recommend.merge import Shortlist


def draw_extra(blocked: np.ndarray, *, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k distinct allowed items uniformly for each request: (B, k) item_idx.

    If fewer than k items are allowed, the row ends with 0.

    Args:
        blocked: (B, N + 1) bool, items that must not be shown.
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
    """Append (B, E) extra items to the shortlist as new columns, marked as found by no source.

    If an extra item is already on the list, its new column is padding.
    """
    known = (extra[:, :, None] == shortlist.item_idx[:, None, :]).any(-1)
    not_found = np.zeros(extra.shape, dtype=np.float32)
    return Shortlist(
        item_idx=np.concatenate([shortlist.item_idx, np.where(known, 0, extra)], axis=1),
        ranks={
            name: np.concatenate([ranks, not_found], axis=1)
            for name, ranks in shortlist.ranks.items()
        },
    )


def mix_in(
    top: np.ndarray, extra: np.ndarray, *, share: float, allowed: np.ndarray, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Replace each position of (B, k) lists by an extra item with probability `share`.

    Args:
        top: (B, k) item_idx, 0 for an empty position.
        extra: (B, k) item_idx drawn uniformly from the allowed items that are not in `top`.
        allowed: (B,) number of items that `extra` was drawn from.

    Returns:
        (B, k) bool, True where the extra item is shown; and (B, k) float64, the propensity of the
        item shown there.
    """
    drawn = (rng.random(top.shape) < share) & (extra > 0)
    chance = np.where(drawn, share / np.maximum(allowed, 1)[:, None], 1 - share)
    return drawn, np.where(extra > 0, chance, 1.0)
