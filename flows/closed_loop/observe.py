"""Logs each round of pages: figures per page, labels and features per impression, target events.

A round is one page of each user who is active at that moment of the simulation.

Shapes: S pages, K positions, F features, U users, N items.
"""

from dataclasses import dataclass, field

import numpy as np

from flows.closed_loop.journal import PAGE_COLUMNS, DayLog
from flows.closed_loop.memory import MemoryStore, Targets
from flows.closed_loop.recommend_policy import RecommendPolicy
from flows.closed_loop.setting import Setting
from models.ranking.value import ValueWeights
from shortlist.behaviour.repeats import EXCLUDE
from shortlist.features.finalize import context_id
from simulation.behaviour import NO_ITEM
from simulation.day import ShownPages
from simulation.events import CODE, DEVICES, SURFACES, Events
from simulation.oracle import Oracle
from simulation.state import State

TARGET_EVENTS = ("click", "rating", "survey")
"""Event types from which a loop's sources learn and its features are computed: clicks, and the
ratings and survey answers of clicked items.
"""


@dataclass
class Observer:
    """Callback for `simulate_day` that collects the log of one day of one arm."""

    setting: Setting
    day: int
    store: MemoryStore | None
    """Feature store to which each round's target events are added; None for arms without models."""
    allowed: np.ndarray
    """(U, N) bool: items that lists may show to each user; updated in place. Consumed items are not
    among them, unless the world has staples.
    """
    policy: RecommendPolicy | None = None
    weights: ValueWeights | None = None
    pages: list[dict[str, np.ndarray]] = field(default_factory=list)
    shown: list[dict[str, np.ndarray]] = field(default_factory=list)
    targets: list[Targets] = field(default_factory=list)

    def __call__(self, shown: ShownPages) -> None:
        self.pages.append(self._pages(shown))
        home = np.flatnonzero(shown.page.topic < 0)
        self.shown.append(self._impressions(shown, home))
        targets = targets_of(self.setting, shown.events)
        self.targets.append(targets)
        if self.store is not None:
            self.store.push(targets)
        if self.setting.repeats == EXCLUDE:
            self.allowed[targets.user, targets.item] = False

    def log(self, state: State) -> DayLog:
        """Return the log of the finished day."""
        return DayLog(
            day=self.day,
            state=state,
            targets=Targets.concat(self.targets) if self.targets else Targets.empty(),
            pages=_joined(self.pages, PAGE_COLUMNS),
            shown=_joined(self.shown, ("user", "item", "chance", "label", "features")),
        )

    def _pages(self, shown: ShownPages) -> dict[str, np.ndarray]:
        world, out = self.setting.world, shown.outcome
        born = world.items.born
        fresh = (born[shown.item] == self.day) & (shown.item != NO_ITEM) & (self.day > 0)
        home = shown.page.topic < 0
        oracle = Oracle(world)
        expected, best = np.zeros((2, len(home)))
        rows = np.flatnonzero(home)
        if len(rows):
            moment = shown.moment.take(rows)
            expected[rows] = oracle.satisfaction(moment, shown.item[rows])
            slate = oracle.best_slates(
                moment,
                day=self.day,
                objective="satisfaction",
                k=shown.item.shape[1],
                allowed=self.allowed[shown.page.user[rows]],
            )
            best[rows] = oracle.satisfaction(moment, slate)
        values = (
            shown.page.user,
            home,
            out.clicks,
            out.sum(out.bought.astype(float)),
            out.revenue,
            out.sum(out.watched),
            out.satisfied,
            expected,
            best,
            fresh.sum(1),
            out.sum(fresh[out.row, out.place].astype(float)),
        )
        return dict(zip(PAGE_COLUMNS, values, strict=True))

    def _impressions(self, shown: ShownPages, home: np.ndarray) -> dict[str, np.ndarray]:
        item = shown.item[home]
        row, position = np.nonzero(item != NO_ITEM)
        label, features = np.empty(0), np.empty((0, 0), dtype=np.float32)
        logged = self.policy is not None and self.policy.features.shape[-1] > 0
        if self.weights is not None and self.policy is not None and logged and len(home):
            label = self.weights.value(signals_of(self.setting, shown))[home][row, position]
            features = self.policy.features[row, position]
        return {
            "user": shown.page.user[home][row],
            "item": item[row, position],
            "chance": shown.chance[home][row, position],
            "label": label,
            "features": features,
        }


def signals_of(setting: Setting, shown: ShownPages) -> dict[str, np.ndarray]:
    """Return the feedback on each shown item, as `ValueWeights.value` expects it.

    Returns:
        {type of feedback: (S, K) values}. `watch` is the watched share of a film, NaN if the item
        is no film or was not opened.
    """
    out, shape = shown.outcome, shown.item.shape
    seconds = setting.world.items.seconds[out.item]
    film = out.view & (seconds > 0)
    values = {
        "click": np.ones(len(out.row)),
        "purchase": out.bought,
        "like": out.liked,
        "dislike": out.disliked,
        "rating": out.stars,
        "survey": out.surveyed,
        "watch": np.where(film, out.watched / np.maximum(seconds, 1e-9), np.nan),
    }
    signals = {}
    for name, value in values.items():
        signals[name] = np.full(shape, np.nan if name == "watch" else 0.0)
        signals[name][out.row, out.place] = value
    signals["hide"] = np.zeros(shape)
    signals["hide"][out.hidden] = 1.0
    return signals


def targets_of(setting: Setting, events: Events) -> Targets:
    """Select the events of TARGET_EVENTS and add their context ids (surface, device and hour)."""
    rows = np.flatnonzero(np.isin(events.event_type, [CODE[name] for name in TARGET_EVENTS]))
    kept = events.take(rows)
    contexts = [
        context_id(surface=SURFACES[surface], device=DEVICES[int(phone)], at=int(at))
        for surface, phone, at in zip(kept.surface, kept.phone, kept.time, strict=True)
    ]
    return Targets(
        user=kept.user,
        item=kept.item,
        time=kept.time,
        value=kept.value,
        # `event_type` is an index into EVENT_TYPES, and EVENT_CODE counts from 1.
        type_code=kept.event_type.astype(np.int64) + 1,
        context=np.array(contexts, dtype=str),
    )


def _joined(parts: list[dict[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Concatenate the columns of all parts; skip empty feature arrays, whose F is unknown."""
    out = {}
    for name in names:
        arrays = [part[name] for part in parts if part[name].size or name != "features"]
        out[name] = np.concatenate(arrays) if arrays else np.empty(0)
    return out
