"""Attributes of items and users at their arrival, drawn once from the world's seed.

Items and users are sorted by arrival, so those present on a day are a prefix of the arrays. Item
rows and user rows are indices into these arrays. Staples are items that a user needs repeatedly.

Shapes: N items and U users over all days, D latent dim, T topics, P staples.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from shortlist.columns import MICROSECONDS_PER_DAY
from simulation.config import WorldConfig


@dataclass(frozen=True)
class Items:
    """Attributes of items.

    `vector`, `quality`, `appeal` and `weight` are latent: they are not published as columns. Some
    published columns depend on them in a limited way. The image, audio and video vectors are noisy
    linear maps of `vector`. Prices and the praise in descriptions depend on `quality`, with noise.
    Propensities in the log depend on `weight`.
    """

    vector: np.ndarray  # (N, D) float32: topic vector of length 1, plus a random vector
    topic: np.ndarray  # (N,) int64: main topic
    second: np.ndarray  # (N,) int64: second topic; for about 70% the same as the first
    quality: np.ndarray  # (N,) float32, standard normal: raises satisfaction
    appeal: np.ndarray  # (N,) float32, standard normal: raises clicks
    weight: np.ndarray  # (N,) float64: popularity weight in the logging policy
    price: np.ndarray  # (N,) float64
    log_price: np.ndarray  # (N,) float32: log(price / median price)
    seconds: np.ndarray  # (N,) float32: length of the film, 0 if there is none
    brand: np.ndarray  # (N,) int64
    born: np.ndarray  # (N,) int64: first day on which the item can be shown, 0 for initial items
    published: np.ndarray  # (N,) int64 microseconds: time of publication


@dataclass(frozen=True)
class Users:
    """Attributes of users at their arrival."""

    taste: np.ndarray  # (U, D) float32, length about 1
    favourite: np.ndarray  # (U,) int64: favourite topic
    activity: np.ndarray  # (U,) float32: probability of a visit on a weekday at full trust
    price_sense: np.ndarray  # (U,) float32, mean 1: price sensitivity
    joined: np.ndarray  # (U,) int64: day of arrival
    created: np.ndarray  # (U,) int64 microseconds: time of registration, before day 0 for some
    phone: np.ndarray  # (U,) float32: probability that a visit is by phone
    evening: np.ndarray  # (U,) float32: probability that a visit is in the evening
    patience: np.ndarray  # (U,) float32, added to the log-odds of requesting another page
    age_group: np.ndarray  # (U,) int64: 0 to 4, correlated with the favourite topic
    country: np.ndarray  # (U,) int64: 0 to 5, independent of everything else
    staples: np.ndarray  # (U, P) int64 item rows that the user needs repeatedly
    staple_days: np.ndarray  # (U, P) float64: days until each is needed again
    stocked: np.ndarray  # (U, P) float64: day on which each was last bought


class World:
    """A simulated world: config, items and users."""

    def __init__(self, config: WorldConfig):
        self.config = config
        self.start = as_microseconds(config)
        self.topics = _topics(config)  # (T, D)
        self.items = _items(config, self.topics, start=self.start)
        self.users = _users(config, self.topics, self.items, start=self.start)

    @property
    def num_items(self) -> int:
        return len(self.items.born)

    @property
    def num_users(self) -> int:
        return len(self.users.joined)

    def items_on(self, day: int) -> int:
        """Return the number of items on a day; they are item rows 0 .. result - 1."""
        return int(np.searchsorted(self.items.born, day, side="right"))

    def users_on(self, day: int) -> int:
        """Return the number of users who arrived by a day; they are user rows 0 .. result - 1."""
        return int(np.searchsorted(self.users.joined, day, side="right"))

    def midnight(self, day: int) -> int:
        """Return the start of a day in microseconds since the epoch."""
        return self.start + day * MICROSECONDS_PER_DAY

    def rng(self, *key: int | str) -> np.random.Generator:
        """Return the random stream of a key.

        Each task has its own key, so the order of tasks doesn't change the draws.
        """
        return _rng(self.config, *key)

    @cached_property
    def visits_by_weekday(self) -> np.ndarray:
        """Factors on the visit probability by weekday, Monday first: (7,) float32."""
        factor = np.ones(7, dtype=np.float32)
        factor[5:] = self.config.sessions.weekend
        return factor


def as_microseconds(config: WorldConfig) -> int:
    """Return midnight (UTC) of the world's start date in microseconds since the epoch."""
    midnight = datetime.combine(config.start, datetime.min.time(), UTC)
    return int(midnight.timestamp()) * 1_000_000


def _rng(config: WorldConfig, *key: int | str) -> np.random.Generator:
    """Return a generator seeded by the world's seed and the key; strings become integers."""
    words = [part if isinstance(part, int) else int.from_bytes(part.encode()) for part in key]
    return np.random.default_rng([config.seed, *words])


def _topics(config: WorldConfig) -> np.ndarray:
    drawn = _rng(config, "topics").normal(size=(config.catalogue.topics, config.catalogue.dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def _arrivals(config: WorldConfig, *, first: int, per_day: float, what: str) -> np.ndarray:
    """Return sorted days of arrival: `first` on day 0, then Poisson(`per_day`) on each day."""
    later = _rng(config, what, "arrivals").poisson(per_day, size=config.days - 1)
    days = np.repeat(np.arange(1, config.days), later)
    return np.concatenate([np.zeros(first, dtype=np.int64), days])


def _items(config: WorldConfig, topics: np.ndarray, *, start: int) -> Items:
    params, logging = config.catalogue, config.logging
    rng = _rng(config, "items")
    born = _arrivals(config, first=params.items, per_day=params.items_per_day, what="items")
    n = len(born)
    topic = rng.choice(len(topics), size=n, p=_topic_shares(len(topics)))
    second = np.where(rng.random(n) < 0.3, rng.integers(len(topics), size=n), topic)
    item_noise = _directions(rng, n, topics.shape[1], length=params.item_noise)
    mixed = topics[topic] + 0.4 * np.where((second != topic)[:, None], topics[second], 0)
    quality, appeal, noise = rng.normal(size=(3, n))
    appeal = params.appeal_quality * quality + _independent_weight(params.appeal_quality) * appeal
    loudness = logging.loudness * appeal + _independent_weight(logging.loudness) * noise
    spread = params.price_spread
    log_price = spread * (0.3 * quality + 0.5 * rng.normal(size=len(topics))[topic])
    log_price += spread * 0.8 * rng.normal(size=n)
    length = 60 * params.minutes * np.exp(0.6 * rng.normal(size=n))
    age = np.where(born == 0, rng.exponential(120, size=n), 0)
    published = start + ((born - age) * MICROSECONDS_PER_DAY).astype(np.int64)
    return Items(
        vector=(mixed + item_noise).astype(np.float32),
        topic=topic,
        second=second,
        quality=quality.astype(np.float32),
        appeal=appeal.astype(np.float32),
        weight=np.exp(logging.skew * loudness),
        price=np.round(params.price_mean * np.exp(log_price), 2) + 0.01,
        log_price=log_price.astype(np.float32),
        seconds=np.where(rng.random(n) < params.watchable, length, 0).astype(np.float32),
        brand=(topic * 7 + rng.integers(7, size=n)) % params.brands,
        born=born,
        published=published,
    )


def _users(config: WorldConfig, topics: np.ndarray, items: Items, *, start: int) -> Users:
    params, sessions = config.population, config.sessions
    rng = _rng(config, "users")
    joined = _arrivals(config, first=params.users, per_day=params.users_per_day, what="users")
    n = len(joined)
    liked = _topics_of_users(rng, n, len(topics), params.tastes)
    share = 0.7 ** np.arange(params.tastes)
    taste = np.einsum("t,utd->ud", share / np.linalg.norm(share), topics[liked])
    taste += _directions(rng, n, topics.shape[1], length=params.taste_noise)
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    shape = params.activity_shape
    activity = rng.gamma(shape, params.visits_per_day / shape, size=n)
    lean = (liked[:, 0] + (rng.random(n) < 0.5) * rng.integers(5, size=n)) % 5
    moment = np.where(joined == 0, -rng.exponential(200, size=n), joined)
    phone = np.where(rng.random(n) < sessions.phone, 0.9, 0.1)
    return Users(
        taste=taste.astype(np.float32),
        favourite=liked[:, 0],
        activity=np.clip(activity, 0.005, 0.95).astype(np.float32),
        price_sense=rng.gamma(4, 0.25, size=n).astype(np.float32),
        joined=joined,
        created=start + (moment * MICROSECONDS_PER_DAY).astype(np.int64),
        phone=phone.astype(np.float32),
        evening=np.clip(rng.normal(sessions.evening, 0.2, size=n), 0, 1).astype(np.float32),
        patience=(sessions.patience * rng.normal(size=n)).astype(np.float32),
        age_group=lean,
        country=rng.choice(6, size=n, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05]),
        **_staples(config, taste, joined, items),
    )


def _staples(
    config: WorldConfig, taste: np.ndarray, joined: np.ndarray, items: Items
) -> dict[str, np.ndarray]:
    """Draw the fields `staples`, `staple_days` and `stocked` of Users.

    A user's staples are drawn without replacement (Gumbel top-k) from the initial items, with
    probabilities that depend on taste and popularity.
    """
    params, n = config.population, len(taste)
    rng = _rng(config, "staples")
    there = np.flatnonzero(items.born == 0)
    staples = np.empty((n, params.staples), dtype=np.int64)
    for start in range(0, n if params.staples else 0, 5_000):
        rows = slice(start, start + 5_000)
        liking = 3 * taste[rows] @ items.vector[there].T + np.log(items.weight[there])
        drawn = liking + rng.gumbel(size=liking.shape)
        chosen = np.argpartition(-drawn, params.staples - 1, axis=1)[:, : params.staples]
        staples[rows] = there[chosen]
    days = params.staple_days * np.exp(params.staple_spread * rng.normal(size=staples.shape))
    stocked = joined[:, None] - rng.random(staples.shape) * days
    return {"staples": staples, "staple_days": days, "stocked": stocked}


def _topics_of_users(rng: np.random.Generator, n: int, num_topics: int, tastes: int) -> np.ndarray:
    """Draw `tastes` distinct topics per user by Gumbel top-k: (U, tastes), favourite first.

    Users are drawn in batches to bound memory.
    """
    log_share = np.log(_topic_shares(num_topics))
    parts = []
    for start in range(0, n, 100_000):
        size = min(100_000, n - start)
        drawn = log_share + rng.gumbel(size=(size, num_topics))
        parts.append(np.argsort(-drawn, axis=1)[:, :tastes])
    return np.concatenate(parts)


def _topic_shares(n: int) -> np.ndarray:
    """Return (n,) topic shares proportional to 1 / (rank + 3), so that topics differ in size."""
    share = 1 / (np.arange(n) + 3)
    return share / share.sum()


def _directions(rng: np.random.Generator, n: int, dim: int, *, length: float) -> np.ndarray:
    """Draw (n, dim) normal vectors whose root mean square length is `length`."""
    return rng.normal(scale=length / np.sqrt(dim), size=(n, dim))


def _independent_weight(correlation: float) -> float:
    """Return sqrt(1 - correlation**2).

    If x and y are independent standard normals, then correlation * x + result * y is standard
    normal and has this correlation to x.
    """
    return float(np.sqrt(1 - correlation**2))
