"""What a user does with a slate: chances and means first, draws from exactly those afterwards.

A place is looked at or not (position-based model: Richardson et al. 2007, Craswell et al. 2008);
what is looked at attracts or not; everything later happens only after a click. The oracle reads
the same functions, so that its expectations are the means of the draws by construction, and a
test draws to make sure.

Shapes: S pages (each of one user at one moment), K places, D latent dim, T topics, P staples.
"""

from dataclasses import dataclass

import numpy as np

from simulation.parameters import Behaviour
from simulation.world import Items

NOBODY = -1
"""Item row of an empty place."""


@dataclass(frozen=True)
class Moment:
    """What is true of S users right before a page. Latent: no model ever sees it."""

    user: np.ndarray  # (S,) int64 rows
    taste: np.ndarray  # (S, D) float32: of the user, with the session's mood
    boredom: np.ndarray  # (S, T) float32
    trust: np.ndarray  # (S,) float32
    intent: np.ndarray  # (S,) float32: to buy, of the session
    price_sense: np.ndarray  # (S,) float32
    activity: np.ndarray  # (S,) float32: chance of a visit tomorrow at full trust
    due: np.ndarray  # (S, P) int64 item rows of the staples that are needed now, NOBODY elsewhere

    def take(self, rows: np.ndarray) -> "Moment":
        return Moment(**{name: values[rows] for name, values in vars(self).items()})

    def needs(self, item: np.ndarray) -> np.ndarray:
        """(S, K) item rows -> (S, K) bool: a staple that its user needs now."""
        needed = np.zeros(item.shape, dtype=bool)
        for place in range(self.due.shape[1]):
            needed |= item == self.due[:, place, None]
        return needed & (item != NOBODY)


@dataclass(frozen=True)
class Chances:
    """What would come of a click on each item; all have the shape of the items given."""

    affinity: np.ndarray
    attraction: np.ndarray  # chance of a click, once looked at
    satisfaction: np.ndarray  # mean, signed
    cart: np.ndarray  # chance, after a view
    purchase: np.ndarray  # chance, after the cart
    returned: np.ndarray  # chance, after the purchase
    watch_share: np.ndarray  # mean share of the film that is watched


def look(about: Behaviour, places: int) -> np.ndarray:
    """(K,) float32: chance that place k is looked at, 1 for the first."""
    return (np.arange(1, places + 1) ** -about.position_decay).astype(np.float32)


def affinity(about: Behaviour, items: Items, moment: Moment, item: np.ndarray) -> np.ndarray:
    """(S, K) item rows -> (S, K) float32: liking, less what boredom takes away."""
    liking = np.einsum("sd,skd->sk", moment.taste, items.vector[item])
    bored = np.take_along_axis(moment.boredom, items.topic[item], axis=1)
    return liking - np.float32(about.boredom) * bored


def attraction(
    about: Behaviour, items: Items, moment: Moment, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S, K) item rows -> affinity and the chance of a click once looked at; 0 for NOBODY."""
    liked = affinity(about, items, moment, item)
    odds = about.click + about.click_affinity * liked + about.click_appeal * items.appeal[item]
    if moment.due.shape[1]:
        odds = odds + about.click_due * moment.needs(item)
    return liked, np.where(item == NOBODY, np.float32(0), sigmoid(odds))


def chances(
    about: Behaviour,
    items: Items,
    moment: Moment,
    item: np.ndarray,
    *,
    liked: np.ndarray | None = None,
    attracted: np.ndarray | None = None,
) -> Chances:
    """Everything about (S, K) item rows; pass `liked` and `attracted` if they are known."""
    if liked is None or attracted is None:
        liked, attracted = attraction(about, items, moment, item)
    quality, appeal = items.quality[item], items.appeal[item]
    satisfaction = (
        about.satisfaction
        + about.satisfaction_affinity * liked
        + about.satisfaction_quality * quality
        - about.satisfaction_clickbait * np.maximum(appeal - quality, 0)
    )
    cart = (
        about.cart
        + about.cart_affinity * liked
        + about.cart_quality * quality
        - about.cart_price * moment.price_sense[:, None] * items.log_price[item]
        + moment.intent[:, None]
    )
    if moment.due.shape[1]:
        cart = cart + about.click_due * moment.needs(item)
    return Chances(
        affinity=liked,
        attraction=attracted,
        satisfaction=satisfaction,
        cart=sigmoid(cart),
        purchase=sigmoid(np.full(item.shape, about.purchase)),
        returned=sigmoid(about.send_back - about.send_back_quality * quality),
        watch_share=sigmoid(about.watch + about.watch_satisfaction * satisfaction),
    )


def trust_after(about: Behaviour, trust: np.ndarray, satisfied: np.ndarray) -> np.ndarray:
    """Trust after a page whose clicks satisfied by this much together, not yet cut to 0..1."""
    worth = about.trust_neutral + about.trust_gain * satisfied
    return trust + about.trust_rate * (worth - trust)


def visit_chance(about: Behaviour, activity: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Chance of a visit on a weekday of somebody who has not left."""
    return activity * (about.visit_floor + (1 - about.visit_floor) * trust)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """As float32. Odds beyond 30 would overflow and mean nothing."""
    return (1 / (1 + np.exp(-np.clip(x, -30, 30)))).astype(np.float32)
