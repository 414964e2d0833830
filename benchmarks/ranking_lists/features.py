"""Features of the hotels of a shown list, from what had happened strictly before it.

One pass over the log in order of time. Counts over all visitors hold the actions of other users
with an earlier time stamp; those of the session hold its earlier steps.

Shapes: C hotels of a list, L events of a history.
"""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

import numpy as np

from benchmarks.ranking_lists.log import ACTIONS, NUM_ITEM_ACTIONS, Action
from models.ranking.requests import MAX_HISTORY

MAX_LIST = 25
SORT_ORDERS = (
    "",
    "interaction sort button",
    "price only",
    "price and recommended",
    "distance only",
)
DEVICES = ("desktop", "mobile", "tablet")
FILTERS = (
    "Sort by Price",
    "Focus on Distance",
    "Sort By Distance",
    "Best Value",
    "Hotel",
    "Resort",
    "4 Star",
    "5 Star",
)
LONG_AGO = 1e6
"""Seconds since an action that never happened."""
SHORT = {
    code: name.removeprefix("interaction item ").replace(" ", "_")
    for code, name in enumerate(ACTIONS[:NUM_ITEM_ACTIONS], start=1)
}


@dataclass
class Session:
    """What a session did so far."""

    started: int
    last_time: int = 0
    last_code: int = 0
    sort_order: str = ""
    counts: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Item -> code of an action -> how often."""
    last_seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Item -> time and number of its newest action."""
    order: list[int] = field(default_factory=list)
    """Items of the actions, oldest first; one entry for repeated actions on the same item."""
    shown: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Item -> position and price in the newest list that had it."""
    lists: int = 0
    last_list: tuple[int, ...] = ()
    actions: int = 0


@dataclass
class Crowd:
    """Counts over all visitors; `mine` are those of each user, which are subtracted."""

    clicks: Counter[int] = field(default_factory=Counter)
    acts: Counter[int] = field(default_factory=Counter)
    shown: Counter[int] = field(default_factory=Counter)
    expected: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Item -> expected number of clicks, given the positions at which it was shown."""
    together: dict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Item -> items that followed or preceded it in a session."""
    at_position: np.ndarray = field(default_factory=lambda: np.ones((2, MAX_LIST)) * [[1], [10]])
    """Clicks and lists of each position."""

    def add(self, action: Action, before: int, rate: np.ndarray) -> None:
        """Count an action.

        Args:
            before: the item that the session acted on before it, or 0.
            rate: (MAX_LIST,) expected number of clicks at each position.
        """
        if action.item:
            (self.clicks if action.code == 1 else self.acts)[action.item] += 1
            if before and before != action.item:
                self.together[before][action.item] += 1
                self.together[action.item][before] += 1
        for place, item in enumerate(action.shown):
            self.shown[item] += 1
            self.expected[item] += float(rate[place])
            self.at_position[:, place] += item == action.item, 1


class Features:
    """Builds the features of each list while it follows the log."""

    def __init__(self, platforms: list[str]):
        """
        Args:
            platforms: names of the platforms that have a code.
        """
        self.platforms = {name: code for code, name in enumerate(platforms, start=1)}
        self.sessions: dict[int, Session] = {}
        self.crowd = Crowd()
        self.by_user: dict[int, Crowd] = defaultdict(Crowd)
        self.history: dict[int, deque[tuple[int, int, int]]] = defaultdict(
            lambda: deque(maxlen=MAX_HISTORY)
        )
        """User -> (item, time, code) of the newest actions; repeats of the newest are merged."""
        self._waiting: deque[tuple[Action, int]] = deque()

    @property
    def rate(self) -> np.ndarray:
        """(MAX_LIST,) share of the lists whose click was on each position, so far."""
        clicks, lists = self.crowd.at_position
        return clicks / lists

    @property
    def codes(self) -> tuple[tuple[str, int], ...]:
        """Columns that contain codes, with their number of codes."""
        return (
            ("device", len(DEVICES) + 1),
            ("platform", len(self.platforms) + 1),
            ("last_action", len(ACTIONS) + 1),
            ("sort_order", len(SORT_ORDERS) + 1),
        )

    def see(
        self, action: Action
    ) -> tuple[dict[str, np.ndarray], list[tuple[int, int, int]]] | None:
        """Take an action; for a list return its features and history as they were before it.

        Returns:
            {feature: (C,) values} and (item, time, code) of the user's events; None if no list was
            shown.
        """
        while self._waiting and self._waiting[0][0].time < action.time:
            earlier, before = self._waiting.popleft()
            self.crowd.add(earlier, before, self.rate)
        session = self.sessions.setdefault(action.session, Session(started=action.time))
        found = None
        if action.shown:
            found = (self._features(action, session), list(self.history[action.user]))
        before = session.order[-1] if session.order else 0
        self.by_user[action.user].add(action, before, self.rate)
        self._waiting.append((action, before))
        self._follow(action, session)
        return found

    def _follow(self, action: Action, session: Session) -> None:
        """Add an action to its session and its user's history."""
        session.actions += 1
        session.last_time, session.last_code = action.time, action.code
        if ACTIONS[action.code - 1] == "change of sort order":
            session.sort_order = action.reference
        if action.item:
            session.counts[action.item][action.code] += 1
            session.last_seen[action.item] = action.time, session.actions
            if not session.order or session.order[-1] != action.item:
                session.order.append(action.item)
            events = self.history[action.user]
            if events and (events[-1][0], events[-1][2]) == (action.item, action.code):
                events.pop()
            events.append((action.item, action.time, action.code))
        if action.shown:
            session.lists += 1
            session.last_list = action.shown
            for place, (item, price) in enumerate(zip(action.shown, action.prices, strict=True)):
                session.shown[item] = place, price

    def _features(self, action: Action, session: Session) -> dict[str, np.ndarray]:
        items, price = action.shown, np.array(action.prices)
        ones, count = np.ones(len(items)), len(items)
        place = np.arange(count, dtype=np.float64)
        out = {
            "position": place,
            "list_length": ones * count,
            "device": ones * _code(DEVICES, action.device),
            "platform": ones * self.platforms.get(action.platform, 0),
            "last_action": ones * session.last_code,
            "sort_order": ones * _code(SORT_ORDERS, session.sort_order),
            "actions": ones * np.log1p(session.actions),
            "lists": ones * session.lists,
            "same_list": ones * (session.last_list == items),
            "distinct_hotels": ones * len(session.last_seen),
            "session_seconds": ones * np.log1p(action.time - session.started),
            "idle_seconds": ones * np.log1p(action.time - (session.last_time or action.time)),
            "num_filters": ones * len([name for name in action.filters if name]),
        }
        out |= {f"filter_{n}": ones * (name in action.filters) for n, name in enumerate(FILTERS)}
        out |= _of_prices(price)
        out |= _of_session(action, session, price)
        out |= self._of_crowd(action, session)
        return out

    def _of_crowd(self, action: Action, session: Session) -> dict[str, np.ndarray]:
        """Return popularity among other users, and how often others acted on both hotels."""
        crowd, mine = self.crowd, self.by_user[action.user]

        # A user's newest actions may still wait, so a difference can be negative for a moment.
        def others(name: str) -> np.ndarray:
            ours, own = getattr(crowd, name), getattr(mine, name)
            return np.maximum([ours.get(i, 0) - own.get(i, 0) for i in action.shown], 0)

        clicks, shown, expected = others("clicks"), others("shown"), others("expected")
        last = session.order[-1] if session.order else 0
        recent = list(dict.fromkeys(reversed(session.order)))[:10]

        def both(first: int, second: int) -> int:
            own = mine.together[first][second] if first in mine.together else 0
            return max(crowd.together[first][second] - own, 0) if first in crowd.together else 0

        return {
            "crowd_clicks": np.log1p(clicks),
            "crowd_shown": np.log1p(shown),
            "crowd_acts": np.log1p(others("acts")),
            "crowd_rate": (clicks + 0.5) / (shown + 10),
            "crowd_over_expected": (clicks + 1) / (expected + 1),
            "crowd_share": clicks / max(float(clicks.sum()), 1),
            "position_rate": self.rate[: len(action.shown)],
            "with_last": np.log1p([both(last, item) for item in action.shown]),
            "with_recent": np.log1p(
                [sum(both(one, item) for one in recent) for item in action.shown]
            ),
        }


def _code(names: tuple[str, ...], name: str) -> int:
    """Return the place of a name from 1; 0 if it is unknown."""
    return names.index(name) + 1 if name in names else 0


def _of_prices(price: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of a list's prices (C,)."""
    order = np.argsort(np.argsort(price, kind="stable"), kind="stable")
    log = np.log1p(price)
    neighbours = np.pad(log, 1, mode="edge")
    return {
        "price": log,
        "price_rank": order,
        "price_rank_share": order / max(len(price) - 1, 1),
        "price_over_median": log - np.median(log),
        "price_over_first": log - log[0],
        "price_over_cheapest": log - log.min(),
        "price_to_previous": log - neighbours[:-2],
        "price_to_next": log - neighbours[2:],
        "price_spread": np.full(len(price), log.std()),
    }


def _of_session(action: Action, session: Session, price: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the session did with each hotel of the list, and where in the list it was."""
    items = action.shown
    place = np.arange(len(items), dtype=np.float64)
    out: dict[str, np.ndarray] = {}
    for code, name in SHORT.items():
        out[f"session_{name}"] = np.array(
            [session.counts[i][code] if i in session.counts else 0 for i in items], dtype=np.float64
        )
    seen = [session.last_seen.get(item) for item in items]
    out["seconds_since"] = np.log1p([LONG_AGO if s is None else action.time - s[0] for s in seen])
    out["actions_since"] = np.log1p(
        [LONG_AGO if s is None else session.actions - s[1] for s in seen]
    )
    recent = list(dict.fromkeys(reversed(session.order)))
    rank = {item: number for number, item in enumerate(recent)}
    out["recency_rank"] = np.array([min(rank.get(item, 20), 20) for item in items], np.float64)
    out["visits"] = np.array([session.order.count(item) for item in items], dtype=np.float64)
    before = [session.shown.get(item) for item in items]
    out["shown_before"] = np.array([b is not None for b in before], dtype=np.float64)
    out["position_change"] = np.array(
        [0 if b is None else p - b[0] for p, b in zip(place, before, strict=True)]
    )
    out["price_change"] = np.array(
        [
            0 if b is None else np.log1p(p) - np.log1p(b[1])
            for p, b in zip(price, before, strict=True)
        ]
    )
    touched = np.array([item in session.last_seen for item in items])
    where = {item: number for number, item in enumerate(items)}
    last = next((where[item] for item in recent if item in where), None)
    out["touched_in_list"] = np.full(len(items), touched.sum(), dtype=np.float64)
    out["last_is_in_list"] = np.full(len(items), bool(recent) and recent[0] in where, np.float64)
    out["after_last"] = np.full(len(items), -30.0) if last is None else place - last
    out["from_last"] = np.full(len(items), 30.0) if last is None else np.abs(place - last)
    deepest = place[touched].max() if touched.any() else -5.0
    out["after_deepest"] = place - deepest
    log = np.log1p(price)
    out["price_to_last"] = np.zeros(len(items)) if last is None else log - log[last]
    out["price_to_touched"] = log - log[touched].mean() if touched.any() else np.zeros(len(items))
    return out
