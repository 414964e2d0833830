"""Figures of how well traffic and feedback are recorded.

Lists can look bad because events are lost, doubled, dated wrong or sent by robots. These figures
don't depend on what is shown, so a campaign or another release leaves them as they are.
"""

import numpy as np

from monitoring.traffic.join import Traffic
from monitoring.traffic.measure import Column, Measure
from shortlist import columns as c

REPEATABLE = ("view", "watch")
"""Event types that a client may send several times in a minute."""
PRICED = ("add_to_cart", "purchase")
"""Event types whose value is a price."""
ODD_PRICE = 2.0
"""Factor between a paid price and the catalogue's from which the paid one counts as odd."""
LATE = 24 * c.MICROSECONDS_PER_HOUR
"""Time from an event to its arrival from which it counts as late: outcomes are closed by then."""
ROBOT_REQUESTS = 15
"""Number of requests from which a user is judged as a possible robot."""
ROBOT_CLICKS = 0.5
"""Share of the shown items from which clicks are those of a robot."""


def _event(name: str) -> Column:
    return lambda t: t.events[name].to_numpy(dtype=float)


def _each_event(t: Traffic) -> np.ndarray:
    return np.ones(len(t.events))


def _unlisted(t: Traffic) -> np.ndarray:
    return _event("named")(t) * (1 - _event("listed")(t))


def _once(t: Traffic) -> np.ndarray:
    """Return 1 for events that a client sends once, 0 for REPEATABLE ones."""
    return (~t.events[c.EVENT_TYPE].isin(REPEATABLE)).to_numpy(dtype=float)


def _odd_price(t: Traffic) -> np.ndarray:
    """Return (E,) whether the value of a PRICED event is far from the catalogue's price, or NaN."""
    value = t.events[c.VALUE].to_numpy(dtype=float)
    price = np.expm1(t.catalogue.log_price[t.events["item_idx"].to_numpy(dtype=np.int64)])
    priced = t.events[c.EVENT_TYPE].isin(PRICED).to_numpy() & (value > 0) & (price > 0)
    factor = np.divide(value, price, out=np.ones(len(value)), where=priced)
    odd = (factor > ODD_PRICE) | (factor < 1 / ODD_PRICE)
    return np.where(priced, odd, np.nan)


def _robots(t: Traffic) -> np.ndarray:
    """Return (R,) whether the user made many requests and clicked nothing or most of the items."""
    user, request = t.user_code, t.shown["request"].to_numpy()
    size = int(user.max(initial=-1)) + 1
    clicked = ((t.shown["click"] > 0) | (t.shown["taken"] > 0)).to_numpy(dtype=float)
    requests = np.bincount(user, minlength=size)
    shown = np.bincount(user[request], minlength=size)
    share = np.bincount(user[request], weights=clicked, minlength=size) / np.maximum(shown, 1)
    robot = (requests >= ROBOT_REQUESTS) & ((share == 0) | (share > ROBOT_CLICKS))
    return robot[user].astype(float)


RECORDING_MEASURES = (
    Measure(
        "attributed_event_rate",
        "events that name their list",
        "share",
        "events with a request_id / events",
        "high",
        "event",
        _event("named"),
        _each_event,
    ),
    Measure(
        "unlisted_event_rate",
        "events whose list isn't logged",
        "share",
        "events with a request_id but no logged list of it with the item / events with a"
        " request_id",
        "low",
        "event",
        _unlisted,
        _event("named"),
    ),
    Measure(
        "early_event_rate",
        "events dated before their list",
        "share",
        "events dated before the list that they name / events whose list is logged",
        "low",
        "event",
        _event("early"),
        _event("listed"),
    ),
    Measure(
        "late_event_rate",
        "late events",
        "share",
        "events that arrived more than 24 hours after they happened / events that happened or"
        " arrived in the window",
        "low",
        "event",
        lambda t: _event("arrived")(t) - _event("at")(t) > LATE,
        _each_event,
    ),
    Measure(
        "repeated_event_rate",
        "repeated events",
        "share",
        "events equal in user, item, type and request_id to one of the minute before / events"
        " other than views and watch time",
        "low",
        "event",
        lambda t: _event("repeated")(t) * _once(t),
        _once,
    ),
    Measure(
        "odd_price_rate",
        "odd prices",
        "share",
        "carts and purchases with a value of more than twice or less than half of the"
        " catalogue's price / those with a value and a price",
        "low",
        "event",
        _odd_price,
        _each_event,
    ),
    Measure(
        "robot_request_rate",
        "requests that look like robots'",
        "share",
        "requests of users with at least 15 requests who clicked nothing or more than half of"
        " what they saw / requests",
        "low",
        "request",
        _robots,
        lambda t: np.ones(len(t.requests)),
        "click",
    ),
)
