"""Draws of what users do with their pages, by the chances of `behaviour`.

Shapes: S pages, K places, C clicks, in order of page and place.
"""

from dataclasses import dataclass

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from simulation.behaviour import Moment, attraction, chances, look
from simulation.policy import Page
from simulation.state import Returns
from simulation.world import World

SECOND = 1_000_000
PLACE_SECONDS = 1.5
"""What it takes to look at one place of a page."""


@dataclass(frozen=True)
class Outcome:
    """What was done with S pages. Times are int64 microseconds."""

    row: np.ndarray  # (C,) page of each click
    place: np.ndarray  # (C,) from 0
    item: np.ndarray  # (C,) item rows
    at: np.ndarray  # (C,) time of the click
    done: np.ndarray  # (C,) time at which the user is done with the item
    satisfaction: np.ndarray  # (C,) what it was worth, signed
    view: np.ndarray  # (C,) bool, as all that follow
    cart: np.ndarray
    bought: np.ndarray
    returned: np.ndarray
    return_at: np.ndarray  # (C,) time, where returned
    price: np.ndarray  # (C,) float64
    watched: np.ndarray  # (C,) seconds, 0 for nothing
    stars: np.ndarray  # (C,) 1 to 5, 0 for no rating
    reviewed: np.ndarray
    liked: np.ndarray
    disliked: np.ndarray
    surveyed: np.ndarray  # (C,) 1 to 5, 0 for no answer
    hidden: tuple[np.ndarray, np.ndarray]  # pages and places
    satisfied: np.ndarray  # (S,) sum over the page
    clicks: np.ndarray  # (S,)
    end: np.ndarray  # (S,) time at which the page is done with

    @property
    def revenue(self) -> np.ndarray:
        """(S,) paid and kept."""
        kept = self.price * (self.bought & ~self.returned)
        return np.bincount(self.row, weights=kept, minlength=len(self.clicks))

    def sum(self, values: np.ndarray) -> np.ndarray:
        """(C,) -> (S,)."""
        return np.bincount(self.row, weights=values, minlength=len(self.clicks))

    def returns(self, page: Page) -> Returns:
        gone = np.flatnonzero(self.returned)
        user = page.user[self.row[gone]]
        return Returns(self.return_at[gone], user, self.item[gone], self.price[gone])


def act(
    world: World, moment: Moment, page: Page, item: np.ndarray, rng: np.random.Generator
) -> Outcome:
    """Draw what S users do with (S, K) item rows."""
    about, items = world.config.behaviour, world.items
    pages, places = item.shape
    liked, attracted = attraction(about, items, moment, item)
    u = rng.random(item.shape, dtype=np.float32)
    looked = look(about, places)
    row, place = np.nonzero(u < looked * attracted)
    clicked = item[row, place]
    n = len(row)
    c = chances(
        about,
        items,
        moment.take(row),
        clicked[:, None],
        liked=liked[row, place][:, None],
        attracted=attracted[row, place][:, None],
    )
    mean = c.satisfaction[:, 0]
    satisfaction = mean + about.satisfaction_noise * rng.standard_normal(n, dtype=np.float32)
    draw = rng.random((11, n), dtype=np.float32)
    view = draw[0] < about.view
    cart = view & (draw[1] < c.cart[:, 0])
    bought = cart & (draw[2] < c.purchase[:, 0])
    returned = bought & (draw[3] < c.returned[:, 0])
    share = c.watch_share[:, 0].astype(np.float64)
    share = rng.beta(about.watch_spread * share, about.watch_spread * (1 - share))
    watched = np.where(view, items.seconds[clicked] * share, 0.0)
    rated = view & (draw[4] < about.rating)
    asked = view & (draw[6] < about.survey)
    answers = about.survey_answer * np.where(satisfaction < -0.5, 0.5, 1.0)
    opinion = 3 + 1.6 * satisfaction
    blur = rng.standard_normal((2, n), dtype=np.float32) * 0.4
    stay = rng.exponential(world.config.sessions.dwell, size=n) * np.where(view, 1, 0.1)
    at, done, end = _times(page.at, row, place, stay + watched, pages=pages, places=places)
    later = rng.exponential(about.send_back_days, size=n) + 1
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
        reviewed=rated & (draw[5] < about.review),
        liked=view & (draw[7] < about.like * np.clip(satisfaction, 0, 1)),
        disliked=view & (draw[8] < about.like * np.clip(-satisfaction, 0, 1)),
        surveyed=np.where(
            asked & (draw[9] < answers), np.clip(np.round(opinion + blur[1]), 1, 5), 0
        ),
        hidden=_hide(about.hide, u, looked, attracted, liked),
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
    """Click, end of each click, end of each page: places are looked at in order, one after the
    other.
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
    rate: float, u: np.ndarray, looked: np.ndarray, attracted: np.ndarray, liked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Seen, not clicked, and not liked. The click's own number decides: between the chance of a
    click and that of a look it says 'looked at, not clicked', and its first `rate` part hides.
    """
    low = looked * attracted
    hides = (u >= low) & (u < low + rate * (looked - low)) & (liked < 0) & (attracted > 0)
    row, place = np.nonzero(hides)
    return row, place
