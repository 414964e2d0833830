"""Figures (metrics) of each arm, over all days and by day, from the logs of the simulated days.

An arm is a policy that fills the home pages. Intervals are 95% bootstrap intervals over users. All
arms use the same draws of users, so the difference of two arms is paired by user.

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
"""Figure -> (numerator, denominator), both summed over users.

`pages` counts home pages, since arms don't fill search pages. `fresh_shown` counts shown items that
arrived on that day. `regret` is the expected satisfaction of the best slate (list of a page) minus
that of the shown slate.

`retention` is the share of the users present at the arm's start who visited in the last seven days.
It is given from the arm's eighth day on. Before, it can't differ between arms: a user who has seen
pages of the arm has also visited in the last seven days.
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
    """Computes a figure over all users and over draws of users; all figures share the draws."""

    def __init__(self, users: int, *, draws: int = DRAWS, seed: int = 0):
        rng = np.random.default_rng([seed, users])
        self.weights = rng.multinomial(users, np.full(users, 1 / users), size=draws).astype(float)

    def ratio(self, top: np.ndarray, bottom: np.ndarray) -> tuple[float, np.ndarray]:
        """Divide the sum of `top` (U,) by the sum of `bottom` (U,).

        Returns:
            The ratio over all users, and (W,) the ratio in each draw.
        """
        drawn = (self.weights @ top) / np.maximum(self.weights @ bottom, 1e-12)
        return float(top.sum() / max(bottom.sum(), 1e-12)), drawn


def interval(value: float, drawn: np.ndarray) -> Figure:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": value, "low": float(low), "high": float(high)}


class ArmSums:
    """Sums per user of one arm over the days `first` .. `end - 1`."""

    def __init__(self, setting: Setting, logs: Sequence[DayLog], *, first: int, end: int):
        world = setting.world
        self.sums = {name: np.zeros(world.num_users) for name in ("pages", "impressions")}
        for log in logs[first:end]:
            home = np.flatnonzero(log.pages["home"])
            user = log.pages["user"][home].astype(
                np.int64
            )  # the column is float if the day has no pages
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
    """Return the figures of each arm, and the paired difference of each other arm minus the first.

    Figures are given for all days together and for each day; differences for all days together.

    Returns:
        {"arms": {name: {"summary", "days"}}, "differences": {"name - first": figures}}.
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
    first: Mapping[str, tuple[float, np.ndarray]], second: Mapping[str, tuple[float, np.ndarray]]
) -> dict[str, Figure]:
    """Return the difference of two arms for each figure, with an interval paired by user."""
    return {
        metric: interval(value - second[metric][0], drawn - second[metric][1])
        for metric, (value, drawn) in first.items()
    }


def _day(setting: Setting, logs: Sequence[DayLog], day: int) -> dict[str, Any]:
    """Return the figures of one day.

    Retention and diversity cover the seven days that end with it, but no day before the arm's
    start.
    """
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
    """Return the effective numbers of items and topics on home pages, with bootstrap draws.

    `effective_items` is the exponential of the entropy of exposure: the number of uniformly shown
    items with the same entropy. `effective_topics` is the same for the topics shown to one user, as
    a mean over users.

    A bootstrap draw holds fewer distinct users than the data, which lowers the entropy on average.
    To correct this bias, the entropies of the draws are shifted to have the measured entropy as
    their mean.
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
    """Compute the entropy in nats: (..., N) counts -> (...); 0 where all counts are 0."""
    total = np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    share = counts / total
    return -(share * np.log(np.where(share > 0, share, 1))).sum(-1)
