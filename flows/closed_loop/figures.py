"""From what the arms left to figures with intervals, by arm and by day.

Intervals are 95% bootstrap intervals over users; all arms are resampled by the same draws, so that
a difference of two arms is paired by user.

Shapes: U users, W draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.closed_loop.journal import DayLog
from flows.closed_loop.setting import Setting

Figure = dict[str, float]
RATIOS: dict[str, tuple[str, str]] = {
    "click_through": ("clicks", "impressions"),
    "conversion": ("purchases", "pages"),
    "watch_seconds": ("watch_seconds", "pages"),
    "revenue": ("revenue", "pages"),
    "satisfaction": ("satisfaction", "pages"),
    "regret": ("regret", "pages"),
    "fresh_shown": ("fresh_shown", "pages"),
    "satisfaction_per_user_day": ("satisfaction", "user_days"),
    "revenue_per_user_day": ("revenue", "user_days"),
    "pages_per_user_day": ("pages", "user_days"),
    "retention": ("active", "present"),
}
"""What is divided by what, both summed over users. Pages are home pages; the rest is the shop's
own search. `retention`: share of the users who were there at the start and came in the last seven
days of the arm's own. In the first seven it is the same for all arms (whoever an arm moved has
come), so a day has it from the eighth on. `regret`: expected satisfaction that the best slate would
have brought beyond the one shown.
"""
BY_DAY = (
    "click_through",
    "conversion",
    "watch_seconds",
    "revenue",
    "satisfaction",
    "regret",
    "retention",
)
WEEK = 7
DRAWS = 400


class Bootstrap:
    """Draws of users, the same for every figure."""

    def __init__(self, users: int, *, draws: int = DRAWS, seed: int = 0):
        rng = np.random.default_rng([seed, users])
        self.weights = rng.multinomial(users, np.full(users, 1 / users), size=draws).astype(float)

    def ratio(self, top: np.ndarray, bottom: np.ndarray) -> tuple[float, np.ndarray]:
        """(U,) sums -> their ratio, and (W,) of it over the draws."""
        drawn = (self.weights @ top) / np.maximum(self.weights @ bottom, 1e-12)
        return float(top.sum() / max(bottom.sum(), 1e-12)), drawn


def interval(value: float, drawn: np.ndarray) -> Figure:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": value, "low": float(low), "high": float(high)}


class ArmSums:
    """What each user of one arm brought over some days."""

    def __init__(self, setting: Setting, logs: Sequence[DayLog], *, first: int, end: int):
        world = setting.world
        self.sums = {name: np.zeros(world.num_users) for name in ("pages", "impressions")}
        for log in logs[first:end]:
            home = np.flatnonzero(log.pages["home"])
            user = log.pages["user"][home].astype(np.int64)  # a day without pages has no type
            self._add("pages", user, np.ones(len(user)))
            self._add("impressions", user, np.full(len(user), world.config.sessions.slate))
            for name in ("clicks", "purchases", "revenue", "watch_seconds", "satisfaction"):
                self._add(name, user, log.pages[name][home])
            self._add("fresh_shown", user, log.pages["fresh_shown"][home])
            self._add("regret", user, (log.pages["best"] - log.pages["expected"])[home])
        rows = np.arange(world.num_users)
        present = (rows < world.users_on(setting.schedule.start)).astype(float)
        active = np.zeros(world.num_users)
        for log in logs[max(end - WEEK, first) : end]:
            active[log.pages["user"].astype(np.int64)] = 1
        days = end - np.maximum(world.users.joined, first)
        self.sums |= {
            "present": present,
            "active": active * present,
            "user_days": np.maximum(days, 0).astype(float),
        }

    def _add(self, name: str, user: np.ndarray, values: np.ndarray) -> None:
        sums = self.sums.setdefault(name, np.zeros(len(self.sums["pages"])))
        sums += np.bincount(user, weights=values, minlength=len(sums))

    def ratio(self, boot: Bootstrap, name: str) -> tuple[float, np.ndarray]:
        top, bottom = RATIOS[name]
        zero = np.zeros(len(self.sums["pages"]))
        return boot.ratio(self.sums.get(top, zero), self.sums[bottom])


def summarise(setting: Setting, arms: Mapping[str, Sequence[DayLog]]) -> dict[str, Any]:
    """Figures of each arm over all of its own days, by day, and paired differences to the first
    arm.
    """
    start, end = setting.schedule.start, setting.end
    boot = Bootstrap(setting.world.num_users)
    out: dict[str, Any] = {"arms": {}, "differences": {}}
    drawn: dict[str, dict[str, tuple[float, np.ndarray]]] = {}
    for name, logs in arms.items():
        sums = ArmSums(setting, logs, first=start, end=end)
        drawn[name] = {metric: sums.ratio(boot, metric) for metric in RATIOS}
        drawn[name] |= diversity(setting, logs[max(end - WEEK, start) : end], boot)
        out["arms"][name] = {
            "summary": {metric: interval(*figure) for metric, figure in drawn[name].items()},
            "days": [_day(setting, logs, day) for day in range(start, end)],
        }
    first = next(iter(arms))
    for name in list(arms)[1:]:
        out["differences"][f"{name} - {first}"] = difference(drawn[name], drawn[first])
    return out


def difference(
    one: Mapping[str, tuple[float, np.ndarray]], other: Mapping[str, tuple[float, np.ndarray]]
) -> dict[str, Figure]:
    """Paired by user."""
    return {
        metric: interval(value - other[metric][0], drawn - other[metric][1])
        for metric, (value, drawn) in one.items()
    }


def _day(setting: Setting, logs: Sequence[DayLog], day: int) -> dict[str, Any]:
    """What takes a week is of the arm's own days only, never of the shop's before it."""
    boot = Bootstrap(setting.world.num_users, draws=100)
    sums = ArmSums(setting, logs, first=day, end=day + 1)
    first = max(day - WEEK + 1, setting.schedule.start)
    week = ArmSums(setting, logs, first=first, end=day + 1)
    figures: dict[str, Figure | None] = {
        metric: interval(*(week if metric == "retention" else sums).ratio(boot, metric))
        for metric in BY_DAY
    }
    if day < setting.schedule.start + WEEK:
        figures["retention"] = None
    spread = diversity(setting, logs[first : day + 1], boot)
    return {"day": day} | figures | {name: interval(*figure) for name, figure in spread.items()}


def diversity(
    setting: Setting, logs: Sequence[DayLog], boot: Bootstrap
) -> dict[str, tuple[float, np.ndarray]]:
    """How wide a week's home pages were. `effective_items`: as many items, shown alike, would be as
    spread out (exponential of the entropy of exposure). `effective_topics`: the same of the topics
    that one user was shown, mean over users.

    Of users drawn with replacement fewer are different, so that their entropy is lower than all
    users' on average: its draws are moved by that much, to lie around what was found.
    """
    world = setting.world
    user = np.concatenate([log.shown["user"] for log in logs]).astype(np.int64)
    item = np.concatenate([log.shown["item"] for log in logs]).astype(np.int64)
    shape = (world.num_users, world.num_items)
    cells = np.bincount(user * shape[1] + item, minlength=shape[0] * shape[1])
    cells = cells.reshape(shape).astype(np.float32)
    resampled = _entropy(boot.weights.astype(np.float32) @ cells)
    of_user = np.zeros((world.num_users, world.config.catalogue.topics))
    np.add.at(of_user, (user, world.items.topic[item]), 1)
    seen = of_user.sum(1) > 0
    topics = np.where(seen, np.exp(_entropy(of_user)), 0)
    entropy = float(_entropy(cells.sum(0)))
    moved = resampled + (entropy - resampled.mean())
    return {
        "effective_items": (float(np.exp(entropy)), np.exp(moved)),
        "effective_topics": boot.ratio(topics, seen.astype(float)),
    }


def _entropy(counts: np.ndarray) -> np.ndarray:
    """(..., N) -> (...) nats; 0 where nothing was counted."""
    total = np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    share = counts / total
    return -(share * np.log(np.where(share > 0, share, 1))).sum(-1)
