"""The logging policy: draws the item of each position from a mixture, with exact propensities.

The mixture has three components: all items uniformly, all items by popularity, and the items of the
user's favourite topic by popularity. The config gives their shares. If the drawn item is already on
the page, the draw is repeated. So item i gets position k with probability w_i / (1 - sum of w of
the items before), as in the Plackett-Luce model, where w is the probability in one draw. A search
page has only items of the query's topic. Item rows are indices into the world's arrays of items.

Shapes: S pages, K positions, N available items.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from simulation.world import World

TRIES = 200
"""Number of redraws of a repeated item before `_draw_rest` enumerates the remaining items."""
CELLS = 1_000_000
"""Maximum number of (page, item) pairs enumerated at once, to bound memory."""


@dataclass(frozen=True)
class Page:
    """Requests of S pages."""

    user: np.ndarray  # (S,) int64 user rows
    at: np.ndarray  # (S,) int64 microseconds: time of the request
    phone: np.ndarray  # (S,) bool: the request is from a phone
    topic: np.ndarray  # (S,) int64: topic of the query, -1 for the home page

    def take(self, rows: np.ndarray) -> "Page":
        return Page(self.user[rows], self.at[rows], self.phone[rows], self.topic[rows])


class LoggingPolicy:
    """The logging policy of one day, over the items available on that day."""

    def __init__(self, world: World, day: int):
        config, items = world.config.logging, world.items
        self.day = day
        self.n = world.items_on(day)
        self.favourite = world.users.favourite
        self.uniform, self.personal = config.uniform, config.personal
        self.topic = items.topic[: self.n]
        self.weight = items.weight[: self.n] / items.weight[: self.n].sum()
        self.anywhere = GuideTable(np.cumsum(self.weight))
        self.by_topic = np.argsort(self.topic, kind="stable")  # item rows, grouped by topic
        topics = world.config.catalogue.topics
        edge = np.searchsorted(self.topic[self.by_topic], np.arange(topics + 1))
        running = np.concatenate([[0.0], np.cumsum(self.weight[self.by_topic])])
        self.within = GuideTable(running[1:])
        self.topic_start, self.topic_end = running[edge[:-1]], running[edge[1:]]
        self.topic_edge = edge
        self.topic_share = np.maximum(self.topic_end - self.topic_start, 1e-300)

    def slates(
        self, page: Page, *, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (S, K) item rows and their (S, K) propensities.

        The propensity of a position is conditional on the items at the positions before it. If a
        topic has fewer than 2 K items, all items are used instead of the topic's.
        """
        wanted = self._topics(page, k)
        searched = (page.topic >= 0) & (wanted >= 0)
        item = np.empty((len(page.user), k), dtype=np.int64)
        chance = np.empty((len(page.user), k))
        used = np.zeros(len(page.user))
        for position in range(k):
            drawn = self._draw(wanted, searched, rng)
            again = np.flatnonzero((item[:, :position] == drawn[:, None]).any(1))
            for tries in itertools.count():
                if len(again) == 0:
                    break
                if tries == TRIES:
                    before = item[again, :position]
                    drawn[again] = self._draw_rest(before, wanted[again], searched[again], rng)
                    break
                drawn[again] = self._draw(wanted[again], searched[again], rng)
                repeated = (item[again, :position] == drawn[again, None]).any(1)
                again = again[repeated]
            weight = self.chance(drawn, wanted, searched)
            item[:, position] = drawn
            chance[:, position] = weight / np.maximum(1 - used, 1e-12)
            used += weight
        return item, chance

    def chance(self, item: np.ndarray, wanted: np.ndarray, searched: np.ndarray) -> np.ndarray:
        """Return the probability of each item in one draw from the mixture: (S,).

        Args:
            item, wanted: (S,) item rows and topics; a topic of -1 means none.
            searched: (S,) bool, whether the page may have only items of its topic.
        """
        within = np.where(
            self.topic[item] == wanted, self.weight[item] / self.topic_share[wanted], 0.0
        )
        personal = np.where(wanted >= 0, self.personal, 0.0)
        mixed = (
            self.uniform / self.n
            + personal * within
            + (1 - self.uniform - personal) * self.weight[item]
        )
        return np.where(searched, within, mixed)

    def _topics(self, page: Page, k: int) -> np.ndarray:
        """Return the topic of the query or, without a query, the user's favourite topic: (S,).

        The result is -1 if that topic has fewer than 2 k items.
        """
        wanted = np.where(page.topic >= 0, page.topic, self.favourite[page.user])
        size = np.diff(self.topic_edge)
        return np.where(size[wanted] >= 2 * k, wanted, -1)

    def _draw(
        self, wanted: np.ndarray, searched: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one item per page.

        One uniform number per page selects a component of the mixture and, rescaled, the item
        within the component. Double precision is enough for both.
        """
        u = rng.random(len(wanted))
        personal = np.where(wanted >= 0, self.personal, 0.0)
        of_topic = searched | ((u >= self.uniform) & (u < self.uniform + personal))
        any_item = ~searched & (u < self.uniform)
        item = np.empty(len(wanted), dtype=np.int64)
        rows = np.flatnonzero(any_item)
        if len(rows):
            item[rows] = np.minimum((u[rows] / self.uniform * self.n).astype(np.int64), self.n - 1)
        rows = np.flatnonzero(~any_item & ~of_topic)
        start = self.uniform + personal[rows]
        scaled = (u[rows] - start) / (1 - start)
        item[rows] = self.anywhere.find(scaled * self.anywhere.edges[-1])
        rows = np.flatnonzero(of_topic)
        if len(rows):
            item[rows] = self._of_topic(wanted[rows], u[rows], searched[rows])
        return item

    def _draw_rest(
        self, used: np.ndarray, wanted: np.ndarray, searched: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw one item per page that isn't on the page yet, by enumerating all items.

        Needed if the items on the page have nearly all of the probability, because repeated draws
        would take too long. The distribution is the same.

        Args:
            used: (S, k) item rows on each page so far.
        """
        out = np.empty(len(wanted), dtype=np.int64)
        every = np.arange(self.n)[None]
        step = max(1, CELLS // self.n)
        for start in range(0, len(out), step):
            rows = slice(start, start + step)
            left = self.chance(every, wanted[rows, None], searched[rows, None])
            np.put_along_axis(left, used[rows], 0, axis=1)
            running = np.cumsum(left, axis=1)
            point = rng.random(len(running)) * running[:, -1]
            out[rows] = (running <= point[:, None]).sum(1)
        return out

    def _of_topic(self, topic: np.ndarray, u: np.ndarray, searched: np.ndarray) -> np.ndarray:
        scaled = np.where(searched, u, (u - self.uniform) / max(self.personal, 1e-300))
        low, high = self.topic_start[topic], self.topic_end[topic]
        index = self.within.find(low + scaled * (high - low))
        index = np.clip(index, self.topic_edge[topic], self.topic_edge[topic + 1] - 1)
        return self.by_topic[index]


class GuideTable:
    """Search table that finds the interval of a point, to sample from n weighted entries.

    A guide table has at least 4 n start positions, from which the search needs one or two steps
    (Chen and Asau 1974). Binary search is slower, because each of its steps costs a cache miss.
    """

    def __init__(self, edges: np.ndarray):
        """
        Args:
            edges: (n,) upper ends of the intervals, increasing (the cumulated weights).
        """
        self.edges = edges
        size = 1 << (4 * len(edges)).bit_length()
        self.scale = size / edges[-1]
        self.guide = np.searchsorted(edges, np.arange(size) / self.scale, side="right")

    def find(self, x: np.ndarray) -> np.ndarray:
        """Return the first interval whose upper end exceeds each point: (S,) -> (S,) int64."""
        last = len(self.edges) - 1
        part = self.guide[np.minimum((x * self.scale).astype(np.int64), len(self.guide) - 1)]
        part = np.minimum(part, last)
        # Because of rounding, the start from the table may be one interval too far to the right.
        back = np.flatnonzero((part > 0) & (self.edges[part - 1] > x))
        part[back] -= 1
        behind = np.flatnonzero(self.edges[part] <= x)
        while len(behind):
            part[behind] += 1
            stuck = part[behind] > last
            part[behind[stuck]] = last
            behind = behind[~stuck]
            behind = behind[self.edges[part[behind]] <= x[behind]]
        return part
