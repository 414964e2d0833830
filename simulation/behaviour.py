"""User behaviour on a slate: probabilities of actions, mean satisfaction and mean watch time.

A slate is the list of items on one page. Clicks follow the position-based model (Richardson et al.
2007, Craswell et al. 2008): a user examines a position, and then clicks the examined item, each
with some probability. All other actions happen only after a click. `outcome` draws actions from
these probabilities. The oracle computes expected results from the same functions, so the two agree;
a test compares them by sampling.

Staples are items that a user needs repeatedly, such as groceries. Item rows and user rows are
indices into the arrays of the world.

Shapes: S pages (each of one user at one moment), K positions, D latent dim, T topics, P staples.
"""

from dataclasses import dataclass

import numpy as np

from simulation.parameters import Behaviour
from simulation.world import Items

NO_ITEM = -1
"""Item row that marks an empty position."""


@dataclass(frozen=True)
class LatentState:
    """Latent state of S users right before a page. It is never published, so no model reads it."""

    user: np.ndarray  # (S,) int64 user rows
    taste: np.ndarray  # (S, D) float32: the user's taste plus the session's mood
    boredom: np.ndarray  # (S, T) float32: boredom with each topic, 0 to 1
    trust: np.ndarray  # (S,) float32: trust in the site, 0 to 1
    intent: np.ndarray  # (S,) float32: intent to buy, added to the log-odds of add_to_cart
    price_sense: np.ndarray  # (S,) float32: price sensitivity
    activity: np.ndarray  # (S,) float32: probability of a visit on a weekday at full trust
    due: np.ndarray  # (S, P) int64 item rows of the staples needed now, NO_ITEM for the others

    def take(self, rows: np.ndarray) -> "LatentState":
        return LatentState(**{name: values[rows] for name, values in vars(self).items()})

    def needs(self, item: np.ndarray) -> np.ndarray:
        """Return (S, K) bool for (S, K) item rows: whether the user needs this staple now."""
        needed = np.zeros(item.shape, dtype=bool)
        for column in range(self.due.shape[1]):
            needed |= item == self.due[:, column, None]
        return needed & (item != NO_ITEM)


@dataclass(frozen=True)
class ActionProbabilities:
    """Probabilities and means of the actions on each item; arrays of the shape of the item rows."""

    affinity: np.ndarray  # match of the user's taste and the item, minus boredom
    attraction: np.ndarray  # probability of a click, given that the position is examined
    satisfaction: np.ndarray  # mean satisfaction after a click, signed
    cart: np.ndarray  # probability of add_to_cart, given a view
    purchase: np.ndarray  # probability of a purchase, given add_to_cart
    returned: np.ndarray  # probability of a return, given a purchase
    watch_share: np.ndarray  # mean share of the film that is watched, given a view


def examination(params: Behaviour, places: int) -> np.ndarray:
    """Return the probability that the user examines each position: (K,) float32, first 1.

    Args:
        places: K, the number of positions.
    """
    return (np.arange(1, places + 1) ** -params.position_decay).astype(np.float32)


def affinity(params: Behaviour, items: Items, moment: LatentState, item: np.ndarray) -> np.ndarray:
    """Return the match of taste and item, minus boredom with the item's topic.

    (S, K) item rows -> (S, K) float32.
    """
    liking = np.einsum("sd,skd->sk", moment.taste, items.vector[item])
    bored = np.take_along_axis(moment.boredom, items.topic[item], axis=1)
    return liking - np.float32(params.boredom) * bored


def attraction(
    params: Behaviour, items: Items, moment: LatentState, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the affinity, and the probability of a click on an examined item.

    (S, K) item rows -> (S, K) and (S, K). The click probability is 0 for NO_ITEM.
    """
    liked = affinity(params, items, moment, item)
    odds = params.click + params.click_affinity * liked + params.click_appeal * items.appeal[item]
    if moment.due.shape[1]:
        odds = odds + params.click_due * moment.needs(item)
    return liked, np.where(item == NO_ITEM, np.float32(0), sigmoid(odds))


def chances(
    params: Behaviour,
    items: Items,
    moment: LatentState,
    item: np.ndarray,
    *,
    liked: np.ndarray | None = None,
    attracted: np.ndarray | None = None,
) -> ActionProbabilities:
    """Return all probabilities and means for (S, K) item rows.

    Args:
        liked, attracted: (S, K) result of `attraction`, to avoid computing it again.
    """
    if liked is None or attracted is None:
        liked, attracted = attraction(params, items, moment, item)
    quality, appeal = items.quality[item], items.appeal[item]
    satisfaction = (
        params.satisfaction
        + params.satisfaction_affinity * liked
        + params.satisfaction_quality * quality
        - params.satisfaction_clickbait * np.maximum(appeal - quality, 0)
    )
    cart = (
        params.cart
        + params.cart_affinity * liked
        + params.cart_quality * quality
        - params.cart_price * moment.price_sense[:, None] * items.log_price[item]
        + moment.intent[:, None]
    )
    if moment.due.shape[1]:
        cart = cart + params.click_due * moment.needs(item)
    return ActionProbabilities(
        affinity=liked,
        attraction=attracted,
        satisfaction=satisfaction,
        cart=sigmoid(cart),
        purchase=sigmoid(np.full(item.shape, params.purchase)),
        returned=sigmoid(params.send_back - params.send_back_quality * quality),
        watch_share=sigmoid(params.watch + params.watch_satisfaction * satisfaction),
    )


def trust_after(params: Behaviour, trust: np.ndarray, satisfied: np.ndarray) -> np.ndarray:
    """Return the users' trust after a page, not yet clipped to 0..1.

    Trust moves towards the value of the page, by the share `trust_rate` of the distance.

    Args:
        trust: (S,) trust before the page.
        satisfied: (S,) sum of the satisfaction of the page's clicks.
    """
    page_value = params.trust_neutral + params.trust_gain * satisfied
    return trust + params.trust_rate * (page_value - trust)


def visit_chance(params: Behaviour, activity: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Return the probability that a user who has not left visits on a given weekday."""
    return activity * (params.visit_floor + (1 - params.visit_floor) * trust)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of `x` as float32.

    Log-odds are clipped to -30..30, so that exp can't overflow.
    """
    return (1 / (1 + np.exp(-np.clip(x, -30, 30)))).astype(np.float32)
