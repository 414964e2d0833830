"""The faults that are injected into recorded logs: 26 in six families, with a strength from 0 to 1.

A fault changes either the lists, before users react to them, or the log. The strength is the share
of users, items, requests or events that it hits, or how much it changes them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.detection.log import FEATURES, Log, Shop, combined, picked
from benchmarks.detection.record import SOURCES, Knowledge, Lists, rank
from monitoring.traffic.join import DAY, HOUR
from shortlist import columns as c
from simulation.behaviour import NO_ITEM
from simulation.world import World

NOTIFY, HOLD, RETRAIN, ROLL_BACK = "notify", "hold", "retrain", "roll_back"
POPULAR = SOURCES.index("recent_popularity")


@dataclass(frozen=True)
class Context:
    """What a fault may use: the world, what the chain knows, the strength, and random numbers."""

    shop: Shop
    known: Knowledge
    strength: float
    seed: int

    @cached_property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def some(self, count: int, what: str = "") -> np.ndarray:
        """Return (count,) bool: a random share of `strength`.

        Args:
            what: the same name and count give the same share; "": another one each time.
        """
        rng = np.random.default_rng([self.seed, *what.encode()]) if what else self.rng
        return rng.random(count) < self.strength

    def pages(self, rows: np.ndarray) -> np.ndarray:
        """Return whether each page, by its number in the recording, is one that the fault hits."""
        rng = np.random.default_rng([self.seed, *b"pages"])
        return rng.random(int(rows.max(initial=-1)) + 1)[rows] < self.strength

    def users(self, names: Any) -> np.ndarray:
        """Return whether each user, by name, is one of those that the fault hits."""
        hit = self.shop.user_ids[self.some(self.shop.world.num_users, "users")]
        return np.isin(np.asarray(names, dtype=str), hit.astype(str))


@dataclass(frozen=True)
class Fault:
    """A fault with the family that is its cause, and the actions that are right."""

    name: str
    family: str
    actions: tuple[str, ...]
    lists: Callable[[Context, Lists], Lists] | None = None
    world: Callable[[Context], World] | None = None
    """Users react as in this world, e.g. with other prices."""
    log: Callable[[Context, Log], Log] | None = None


def ranked_with(at: Context, lists: Lists, known: Knowledge, **options) -> Lists:
    """Make the lists again with other knowledge; the logged features are those that were used."""
    other = rank(at.shop.world, known, lists.page, lists.moment, lists.seen, **options)
    return replace(other, row=lists.row)


def for_some_pages(at: Context, lists: Lists, other: Callable[[Lists], Lists]) -> Lists:
    """Change the lists of a random share of the pages."""
    rows = np.flatnonzero(at.pages(lists.row))
    return lists if len(rows) == 0 else lists.placed(rows, other(lists.take(rows)))


def for_some_users(at: Context, lists: Lists, other: Callable[[Lists], Lists]) -> Lists:
    """Change the lists of a random share of the users."""
    hit = at.some(at.shop.world.num_users, "users")
    rows = np.flatnonzero(hit[lists.page.user])
    return lists if len(rows) == 0 else lists.placed(rows, other(lists.take(rows)))


def shuffled(values: np.ndarray, hit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the values with those of the rows that were hit permuted."""
    out, rows = values.copy(), np.flatnonzero(hit)
    out[rows] = values[rng.permutation(rows)]
    return out


# Features


def frozen_view(at: Context, lists: Lists) -> Lists:
    """User states stopped long ago: tastes are what they were, which is partly something else."""
    noise = at.rng.standard_normal(at.known.taste.shape) / at.known.taste.shape[1] ** 0.5
    old = replace(at.known, taste=at.known.taste + 1.5 * noise)
    return for_some_users(at, lists, lambda some: ranked_with(at, some, old))


def old_states(at: Context, log: Log) -> Log:
    """The log of `frozen_view` has old `as_of` times."""
    age = np.where(at.users(log.requests[c.USER_ID]), 14 * DAY, HOUR)
    return replace(log, requests=log.requests.assign(user_as_of=log.requests["at"] - age))


def stale_item_features(at: Context, lists: Lists) -> Lists:
    hit = at.some(len(at.known.quality), "items")
    other = replace(
        at.known,
        quality=shuffled(at.known.quality, hit, at.rng),
        appeal=shuffled(at.known.appeal, hit, at.rng),
    )
    return ranked_with(at, lists, other)


def old_item_rows(at: Context, log: Log) -> Log:
    """`shortlist skew` recomputes the items' features from the lake."""
    hit = at.shop.item_ids[at.some(len(at.known.quality), "items")]
    shown = log.shown[c.ITEM_ID].to_numpy(str)
    return with_skew(log, float(np.isin(shown, hit.astype(str)).mean()))


def default_rows(at: Context, log: Log) -> Log:
    """`shortlist skew` finds states in the lake for users who were served as unknown."""
    return with_skew(log, float(at.users(log.requests[c.USER_ID]).mean()))


def with_skew(log: Log, differ: float) -> Log:
    return replace(log, operation=log.operation | {"skew_different_share": differ})


def wrong_default(at: Context, lists: Lists) -> Lists:
    nobody = replace(at.known, taste=np.zeros_like(at.known.taste))
    return for_some_users(at, lists, lambda some: ranked_with(at, some, nobody))


def train_serve_difference(at: Context, lists: Lists) -> Lists:
    like, appeal, quality = at.known.weights
    other = replace(at.known, weights=(like * (1 - at.strength), appeal, quality))
    changed = ranked_with(at, lists, other)
    features = changed.features.copy()
    features[..., FEATURES.index("liking")] *= 1 - at.strength
    return replace(changed, features=features)


def skewed(at: Context, log: Log) -> Log:
    """`shortlist skew` finds the share of vectors that differ."""
    return with_skew(log, at.strength)


# Index and models


def wrong_index(at: Context, lists: Lists) -> Lists:
    hit = at.some(len(at.known.vector))
    return ranked_with(at, lists, replace(at.known, vector=shuffled(at.known.vector, hit, at.rng)))


def stale_release(at: Context, lists: Lists) -> Lists:
    """The release is 60 days x strength old: it lacks newer items, and tastes have moved on."""
    today = int(lists.page.at.min() - at.shop.world.start) // DAY
    last = max(today - round(60 * at.strength), 1)
    noise = at.rng.standard_normal(at.known.taste.shape) / at.known.taste.shape[1] ** 0.5
    old = replace(at.known, taste=at.known.taste + 0.8 * at.strength * noise)
    return ranked_with(at, lists, old, allowed=at.shop.world.items.born < last)


def old_release(at: Context, log: Log) -> Log:
    return replace(log, operation=log.operation | {"release_age_days": 60 * at.strength})


def scale_of_embeddings(at: Context, lists: Lists) -> Lists:
    scale = np.where(at.some(len(at.known.vector)), 3.0, 1.0)[:, None]
    return ranked_with(at, lists, replace(at.known, vector=at.known.vector * scale))


def failing(at: Context, lists: Lists) -> Lists:
    """Requests fail, up to one in twenty; their users see nothing."""
    failed = replace(at, strength=at.strength / 20).pages(lists.row)
    return replace(lists, item=np.where(failed[:, None], NO_ITEM, lists.item))


def failed_requests(at: Context, log: Log) -> Log:
    """Failed requests are counted by the service, and have no line in its log."""
    answered = (log.requests["items"] > 0).to_numpy()
    failed = log.requests[c.REQUEST_ID].to_numpy()[~answered].tolist()
    log = replace(log, events=log.events[~log.events[c.REQUEST_ID].isin(failed)])
    rate = log.operation["error_rate"] + 1 - float(answered.mean())
    return replace(picked(log, answered), operation=log.operation | {"error_rate": rate})


def empty_source(at: Context, lists: Lists) -> Lists:
    without = ("two_tower", "content") if at.strength > 0.5 else ("two_tower",)
    return for_some_pages(at, lists, lambda some: ranked_with(at, some, at.known, without=without))


# Product


def click_bait(at: Context, lists: Lists) -> Lists:
    like, appeal, quality = at.known.weights
    weights = (like, appeal + 3 * at.strength, quality * (1 - 2 * at.strength))
    return ranked_with(at, lists, replace(at.known, weights=weights))


def popularity_collapse(at: Context, lists: Lists) -> Lists:
    return for_some_users(
        at,
        lists,
        lambda some: ranked_with(
            at, some, replace(at.known, weights=(0.0, 0.4, 0.7)), without=("two_tower", "content")
        ),
    )


def category_starved(at: Context, lists: Lists) -> Lists:
    topic = at.shop.world.items.topic
    largest = np.argsort(-np.bincount(topic), kind="stable")[0]
    hit = (topic == largest) & at.some(len(topic))
    return ranked_with(at, lists, at.known, allowed=~hit)


def cold_items_starved(at: Context, lists: Lists) -> Lists:
    born = at.shop.world.items.born
    hit = (born > 0) & at.some(len(born))
    return ranked_with(at, lists, at.known, allowed=~hit)


def seen_items_return(at: Context, lists: Lists) -> Lists:
    return for_some_pages(
        at,
        lists,
        lambda some: ranked_with(at, replace(some, seen=np.zeros_like(some.seen)), at.known),
    )


def price_bug(at: Context) -> World:
    """A share of the items costs ten times as much."""
    items = at.shop.world.items
    hit = at.some(len(items.price))
    other = World.__new__(World)
    other.__dict__.update(at.shop.world.__dict__)
    other.items = replace(
        items,
        price=np.where(hit, items.price * 10, items.price),
        log_price=np.where(hit, items.log_price + np.log(10), items.log_price).astype(np.float32),
    )
    return other


# Data


def null_burst(at: Context, log: Log) -> Log:
    """Events lose their request_id."""
    hit = at.some(len(log.events))
    return replace(
        log,
        events=log.events.assign(**{c.REQUEST_ID: log.events[c.REQUEST_ID].where(~hit, None)}),
    )


def unit_change(at: Context, log: Log) -> Log:
    """Prices are sent in cents and durations in milliseconds."""
    kind = log.events[c.EVENT_TYPE]
    factor = np.select([kind.isin(["purchase", "add_to_cart"]), kind == "watch"], [100, 1000], 1)
    factor = np.where(at.some(len(log.events)), factor, 1)
    return replace(log, events=log.events.assign(value=log.events[c.VALUE] * factor))


def duplicates(at: Context, log: Log) -> Log:
    again = log.events[at.some(len(log.events))]
    again = again.assign(at=again["at"] + 1_000_000, known=again["known"] + 1_000_000)
    return replace(log, events=pd.concat([log.events, again], ignore_index=True))


def late_events(at: Context, log: Log) -> Log:
    known = log.events["known"] + np.where(at.some(len(log.events)), 10 * DAY, 0)
    return replace(log, events=log.events.assign(known=known))


def bot_burst(at: Context, log: Log) -> Log:
    """Robots with few ids request `strength` times the traffic, and click everything or nothing."""
    rows = np.flatnonzero(at.some(len(log.requests)))
    keep = np.zeros(len(log.requests), dtype=bool)
    keep[rows] = True
    robots = picked(replace(log, events=log.events[:0]), keep)
    name = np.array([f"bot{n}" for n in at.rng.integers(40, size=len(rows))], dtype=object)
    robots = replace(
        robots,
        requests=robots.requests.assign(
            user_id=name,
            request_id=[f"b{n}" for n in range(len(rows))],
            at=robots.requests["at"] + 7,
        ),
    )
    return combined(log, robots)


def time_zone(at: Context, log: Log) -> Log:
    """A share of the events is dated two hours too early, before the list that they belong to."""
    earlier = np.where(at.some(len(log.events)), 2 * HOUR, 0)
    return replace(log, events=log.events.assign(at=log.events["at"] - earlier))


# Traffic


def mix_shift(at: Context, lists: Lists) -> Lists:
    """Unknown users arrive: nothing is known of their tastes."""
    return wrong_default(at, lists)


def new_names(at: Context, log: Log) -> Log:
    def renamed(names: Any) -> pd.Series:
        return names.where(~at.users(names), names + "-new")

    is_new = at.users(log.requests[c.USER_ID])
    return replace(
        log,
        requests=log.requests.assign(user_id=renamed(log.requests[c.USER_ID]), known=~is_new),
        events=log.events.assign(user_id=renamed(log.events[c.USER_ID])),
    )


def latency(at: Context, log: Log) -> Log:
    slow = 1 + 40 * at.strength * (at.rng.random(len(log.requests)) < 0.05)
    return replace(
        log, requests=log.requests.assign(milliseconds=log.requests["milliseconds"] * slow)
    )


def fallback_storm(at: Context, lists: Lists) -> Lists:
    return for_some_pages(
        at,
        lists,
        lambda some: ranked_with(at, some, at.known, without=("two_tower", "content")),
    )


def skipped_stages(at: Context, log: Log) -> Log:
    hit = at.pages(log.requests["row"].to_numpy())
    return replace(log, requests=log.requests.assign(skipped=np.where(hit, 2, 0)))


# Measurement


def positions_logged_wrong(at: Context, log: Log) -> Log:
    """Lists are logged under the request_id of another list."""
    rows = np.flatnonzero(at.some(len(log.requests)))
    number = log.requests[c.REQUEST_ID].to_numpy().copy()
    number[rows] = number[np.roll(rows, 1)]
    return replace(log, requests=log.requests.assign(request_id=number))


def lost_lines(at: Context, log: Log) -> Log:
    """The log loses lists without a choice, so that the others are over-represented."""
    chosen = log.requests[c.REQUEST_ID].isin(log.events[c.REQUEST_ID])
    keep = chosen.to_numpy() | ~at.some(len(log.requests))
    unlogged = {"unlogged_rate": 1 - float(keep.mean())}  # the service counts its answers
    return replace(picked(log, keep), operation=log.operation | unlogged)


FAULTS: tuple[Fault, ...] = (
    Fault("null burst", "data", (NOTIFY, HOLD), log=null_burst),
    Fault("unit change", "data", (NOTIFY, HOLD), log=unit_change),
    Fault("duplicates", "data", (NOTIFY, HOLD), log=duplicates),
    Fault("late events", "data", (NOTIFY, HOLD), log=late_events),
    Fault("bot burst", "data", (NOTIFY, HOLD), log=bot_burst),
    Fault("time zone", "data", (NOTIFY, HOLD), log=time_zone),
    Fault("frozen view", "features", (HOLD, NOTIFY), lists=frozen_view, log=old_states),
    Fault(
        "stale item features",
        "features",
        (HOLD, RETRAIN),
        lists=stale_item_features,
        log=old_item_rows,
    ),
    Fault("wrong default", "features", (HOLD, RETRAIN), lists=wrong_default, log=default_rows),
    Fault("train/serve difference", "features", (HOLD,), lists=train_serve_difference, log=skewed),
    Fault("wrong index", "models", (HOLD, ROLL_BACK), lists=wrong_index),
    Fault("stale release", "models", (RETRAIN, HOLD), lists=stale_release, log=old_release),
    Fault("scale of embeddings", "models", (HOLD, ROLL_BACK), lists=scale_of_embeddings),
    Fault("empty source", "models", (HOLD, ROLL_BACK), lists=empty_source),
    Fault("failing requests", "models", (ROLL_BACK, HOLD), lists=failing, log=failed_requests),
    Fault("click-bait ranker", "product", (HOLD, ROLL_BACK), lists=click_bait),
    Fault("popularity collapse", "product", (HOLD, ROLL_BACK), lists=popularity_collapse),
    Fault("category starved", "product", (HOLD, ROLL_BACK), lists=category_starved),
    Fault("cold items starved", "product", (HOLD, ROLL_BACK), lists=cold_items_starved),
    Fault("seen items return", "product", (HOLD, ROLL_BACK), lists=seen_items_return),
    Fault("price bug", "product", (NOTIFY, HOLD), world=price_bug),
    Fault("mix shift", "traffic", (NOTIFY,), lists=mix_shift, log=new_names),
    Fault("latency", "traffic", (NOTIFY,), log=latency),
    Fault("fallback storm", "traffic", (NOTIFY, HOLD), lists=fallback_storm, log=skipped_stages),
    Fault("positions logged wrong", "measurement", (NOTIFY, HOLD), log=positions_logged_wrong),
    Fault("sample ratio", "measurement", (NOTIFY, HOLD), log=lost_lines),
)
