"""Draws the actions of users on their pages, with the probabilities of `behaviour`.

Item rows are indices into the world's arrays of items.

Shapes: S pages, K positions, C clicks, sorted by page and position.
"""

from dataclasses import dataclass

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from simulation.behaviour import LatentState, attraction, chances, examination
from simulation.policy import Page
from simulation.state import Returns
from simulation.world import World

SECOND = 1_000_000
PLACE_SECONDS = 1.5
"""Seconds that a user needs to examine one position."""


@dataclass(frozen=True)
class Outcome:
    """Actions on S pages. Times are int64 microseconds."""

    row: np.ndarray  # (C,) page of each click
    place: np.ndarray  # (C,) position of each click, from 0
    item: np.ndarray  # (C,) item rows
    at: np.ndarray  # (C,) time of the click
    done: np.ndarray  # (C,) time at which the user leaves the item's page
    satisfaction: np.ndarray  # (C,) satisfaction with the item, signed, about -1 to 1
    view: np.ndarray  # (C,) bool: the item's page was viewed
    cart: np.ndarray  # (C,) bool: the item was put into the cart
    bought: np.ndarray  # (C,) bool
    returned: np.ndarray  # (C,) bool: the purchase will be returned
    return_at: np.ndarray  # (C,) time of the return, valid only where `returned`
    price: np.ndarray  # (C,) float64: price of the item
    watched: np.ndarray  # (C,) seconds watched
    stars: np.ndarray  # (C,) rating, 1 to 5, 0 for no rating
    reviewed: np.ndarray  # (C,) bool: the rating has a review text
    liked: np.ndarray  # (C,) bool
    disliked: np.ndarray  # (C,) bool
    surveyed: np.ndarray  # (C,) answer to a survey, 1 to 5, 0 for no answer
    hidden: tuple[np.ndarray, np.ndarray]  # pages and positions (from 0) of hidden items
    satisfied: np.ndarray  # (S,) sum of the satisfaction of the page's clicks
    clicks: np.ndarray  # (S,) number of clicks
    end: np.ndarray  # (S,) time at which the user leaves the page

    @property
    def revenue(self) -> np.ndarray:
        """Sum of the prices of the items bought and not returned, per page: (S,)."""
        kept = self.price * (self.bought & ~self.returned)
        return np.bincount(self.row, weights=kept, minlength=len(self.clicks))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum (C,) values of clicks by page: (S,)."""
        return np.bincount(self.row, weights=values, minlength=len(self.clicks))

    def returns(self, page: Page) -> Returns:
        gone = np.flatnonzero(self.returned)
        user = page.user[self.row[gone]]
        return Returns(self.return_at[gone], user, self.item[gone], self.price[gone])


def draw_outcome(
    world: World, moment: LatentState, page: Page, item: np.ndarray, rng: np.random.Generator
) -> Outcome:
    """Draw the actions of S users on their slates.

    Args:
        item: (S, K) item rows, NO_ITEM at empty positions.
    """
    params, items = world.config.behaviour, world.items
    pages, places = item.shape
    liked, attracted = attraction(params, items, moment, item)
    u = rng.random(item.shape, dtype=np.float32)
    examined = examination(params, places)
    row, place = np.nonzero(u < examined * attracted)
    clicked = item[row, place]
    n = len(row)
    c = chances(
        params,
        items,
        moment.take(row),
        clicked[:, None],
        liked=liked[row, place][:, None],
        attracted=attracted[row, place][:, None],
    )
    mean = c.satisfaction[:, 0]
    satisfaction = mean + params.satisfaction_noise * rng.standard_normal(n, dtype=np.float32)
    draw = rng.random((11, n), dtype=np.float32)
    view = draw[0] < params.view
    cart = view & (draw[1] < c.cart[:, 0])
    bought = cart & (draw[2] < c.purchase[:, 0])
    returned = bought & (draw[3] < c.returned[:, 0])
    share = c.watch_share[:, 0].astype(np.float64)
    share = rng.beta(params.watch_spread * share, params.watch_spread * (1 - share))
    watched = np.where(view, items.seconds[clicked] * share, 0.0)
    rated = view & (draw[4] < params.rating)
    surveyed_items = view & (draw[6] < params.survey)
    answers = params.survey_answer * np.where(satisfaction < -0.5, 0.5, 1.0)
    opinion = 3 + 1.6 * satisfaction
    blur = rng.standard_normal((2, n), dtype=np.float32) * 0.4
    stay = rng.exponential(world.config.sessions.dwell, size=n) * np.where(view, 1, 0.1)
    at, done, end = _times(page.at, row, place, stay + watched, pages=pages, places=places)
    later = rng.exponential(params.send_back_days, size=n) + 1
    return Outcome(
        row=row,
        place=place,
        item=clicked,
        at=at,
        done=done,
        satisfaction=satisfaction,
        view=view,
        cart=cart,
        bought=bought,
        returned=returned,
        return_at=at + (later * MICROSECONDS_PER_DAY).astype(np.int64),
        price=items.price[clicked],
        watched=watched,
        stars=np.where(rated, np.clip(np.round(opinion + blur[0]), 1, 5), 0),
        reviewed=rated & (draw[5] < params.review),
        liked=view & (draw[7] < params.like * np.clip(satisfaction, 0, 1)),
        disliked=view & (draw[8] < params.like * np.clip(-satisfaction, 0, 1)),
        surveyed=np.where(
            surveyed_items & (draw[9] < answers), np.clip(np.round(opinion + blur[1]), 1, 5), 0
        ),
        hidden=_hide(params.hide, u, examined, attracted, liked),
        satisfied=np.bincount(row, weights=satisfaction, minlength=pages),
        clicks=np.bincount(row, minlength=pages),
        end=end,
    )


def _times(
    start: np.ndarray,
    row: np.ndarray,
    place: np.ndarray,
    seconds: np.ndarray,
    *,
    pages: int,
    places: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the times of clicks, of leaving the clicked items, and of leaving the pages.

    They are (C,), (C,) and (S,) microseconds. The user examines positions in order and returns to
    the slate after each clicked item.

    Args:
        start: (S,) time of each page.
        seconds: (C,) seconds that the user stays with each clicked item.
        pages, places: S and K.
    """
    spent = np.cumsum(seconds)
    first = np.searchsorted(row, np.arange(pages + 1))
    before = np.concatenate([[0.0], spent])[first]
    clicked = PLACE_SECONDS * (place + 1) + (spent - seconds - before[row])
    at = start[row] + (clicked * SECOND).astype(np.int64)
    done = at + (seconds * SECOND).astype(np.int64) + SECOND
    whole = PLACE_SECONDS * (places + 1) + before[1:] - before[:-1]
    return at, done, start + (whole * SECOND).astype(np.int64) + SECOND


def _hide(
    rate: float, u: np.ndarray, examined: np.ndarray, attracted: np.ndarray, liked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the items that users hide; return their pages and their positions.

    Only an item with negative affinity that was examined but not clicked can be hidden.

    Args:
        rate: probability that such an item is hidden.
        u: (S, K) uniform numbers, the same as for the clicks. A value between the probability of
            a click and that of an examination means 'examined, not clicked'. The lowest part of
            this interval, with share `rate`, means 'hidden'.
    """
    low = examined * attracted
    hides = (u >= low) & (u < low + rate * (examined - low)) & (liked < 0) & (attracted > 0)
    row, position = np.nonzero(hides)
    return row, position
