"""Turns recorded lists into a serving log with events, and joins them as monitoring does.

Shapes: S pages, K positions, R = S requests, E events.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.detection.record import SOURCES, Lists
from monitoring.traffic.join import HOUR, Traffic, join_outcomes
from shortlist import columns as c
from shortlist.contracts import TIMESTAMP
from shortlist.datasets.service.traffic_log import REQUESTS, SHOWN
from shortlist.items.catalogue import Catalogue
from simulation.behaviour import NO_ITEM
from simulation.outcome import Outcome
from simulation.tables import Publisher
from simulation.world import World

TARGETS = ("click",)
MEAN_MS = 40.0
USUAL_ERRORS, ERRORS_SPREAD = 0.002, 0.5
"""Share of requests that usually fail: its median over windows, and the spread of its logarithm."""


@dataclass(frozen=True)
class Log:
    """A serving log with what users did, before it is joined; faults change it."""

    requests: pd.DataFrame  # (R,) columns of REQUESTS, and row: number of the page
    shown: pd.DataFrame  # columns of SHOWN, with the feature columns
    events: pd.DataFrame  # (E,) user_id, item_id, event_type, at, known, value, request_id
    operation: dict[str, float] = field(default_factory=dict)
    """Figures without requests behind them: `error_rate`, `unlogged_rate`, and those of a fault."""


FEATURES = ("liking", "appeal", "quality", "log_price", "age")


@dataclass(frozen=True)
class Shop:
    """One recorded world with what turns its lists into logs."""

    world: World
    catalogue: Catalogue
    item_counts: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray

    @classmethod
    def of(cls, world: World, chosen: np.ndarray) -> "Shop":
        """
        Args:
            chosen: (N,) number of times that each item was chosen before the traffic.
        """
        publisher = Publisher(world)
        catalogue = Catalogue.from_items(publisher.items(0, world.num_items))
        return cls(
            world,
            catalogue,
            np.concatenate([[0.0], chosen]),
            np.array(publisher.user_ids.to_pylist(), dtype=object),
            np.array(publisher.item_ids.to_pylist(), dtype=object),
        )

    def log(self, lists: Lists, outcome: Outcome, *, rng: np.random.Generator) -> Log:
        """Return the serving log and the events of lists and of what users did with them."""
        pages, k = lists.item.shape
        users = self.user_ids[lists.page.user]
        number = np.array([f"r{at}-{user}" for at, user in zip(lists.page.at, users, strict=True)])
        requests = pd.DataFrame(
            {
                c.REQUEST_ID: number,
                c.USER_ID: users,
                "at": lists.page.at,
                "release_id": "release",
                "arm": "main",
                "forced": False,
                c.SURFACE: "home",
                c.DEVICE: np.where(lists.page.phone, "phone", "web"),
                "known": True,
                "user_as_of": lists.page.at - HOUR,
                "skipped": 0,
                "milliseconds": MEAN_MS * rng.lognormal(0, 0.4, size=pages),
                "items": (lists.item != NO_ITEM).sum(axis=1),
                "first_position": 1,
                "explored": False,
                "row": lists.row,
            }
        )
        filled = lists.item.ravel() != NO_ITEM
        shown = (
            pd.DataFrame(
                {
                    "request": np.repeat(np.arange(pages), k),
                    c.ITEM_ID: self.item_ids[lists.item.ravel()],
                    c.POSITION: np.tile(np.arange(1, k + 1), pages),
                    c.SOURCE: np.array(SOURCES, dtype=object)[lists.source.ravel()],
                    c.SCORE: lists.score.ravel(),
                    "propensity": 1.0,
                }
                | {name: lists.features[..., n].ravel() for n, name in enumerate(FEATURES)}
            )
            .loc[filled]
            .reset_index(drop=True)
        )
        events = self._events(outcome, lists, users, number)
        rate = min(USUAL_ERRORS * rng.lognormal(0, ERRORS_SPREAD), 1.0)
        operation = {"error_rate": float(rng.binomial(pages, rate) / pages), "unlogged_rate": 0.0}
        return Log(requests, shown, events, operation)

    def _events(
        self, outcome: Outcome, lists: Lists, users: np.ndarray, number: np.ndarray
    ) -> pd.DataFrame:
        """Return the events of the pages, one row each, sorted by time."""
        row, item, at = outcome.row, outcome.item, outcome.at
        ones = np.full(len(row), np.nan)
        parts = [
            (np.ones(len(row), dtype=bool), "click", at, ones),
            (outcome.cart, "add_to_cart", at + 1, outcome.price),
            (outcome.bought, "purchase", at + 2, outcome.price),
            (outcome.returned, "return", outcome.return_at, outcome.price),
            (outcome.watched > 0, "watch", outcome.done, outcome.watched),
            (outcome.stars > 0, "rating", outcome.done, outcome.stars.astype(float)),
            (outcome.surveyed > 0, "survey", outcome.done, outcome.surveyed.astype(float)),
            (outcome.liked, "like", outcome.done, ones),
            (outcome.disliked, "dislike", outcome.done, ones),
        ]
        frames = [
            pd.DataFrame(
                {
                    c.USER_ID: users[row[mask]],
                    c.ITEM_ID: self.item_ids[item[mask]],
                    c.EVENT_TYPE: name,
                    "at": time[mask],
                    c.VALUE: value[mask],
                    c.REQUEST_ID: number[row[mask]] if name != "return" else None,
                }
            )
            for mask, name, time, value in parts
        ]
        hidden, place = outcome.hidden
        frames.append(
            pd.DataFrame(
                {
                    c.USER_ID: users[hidden],
                    c.ITEM_ID: self.item_ids[lists.item[hidden, place]],
                    c.EVENT_TYPE: "hide",
                    "at": lists.page.at[hidden] + 1_000_000,
                    c.VALUE: np.nan,
                    c.REQUEST_ID: number[hidden],
                }
            )
        )
        every = pd.concat(frames, ignore_index=True)
        return every.assign(known=every["at"]).sort_values("at", ignore_index=True)

    def join(self, log: Log, *, until: int) -> Traffic:
        """Join a log with the events that are known before `until` (microseconds)."""
        rows = log.requests[REQUESTS.names]
        requests = pa.Table.from_pandas(rows, schema=REQUESTS, preserve_index=False)
        shown = log.shown[list(SHOWN.names)]
        table = pa.Table.from_pandas(shown, schema=SHOWN, preserve_index=False)
        events = log.events[log.events["known"] < until]
        names = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.REQUEST_ID)
        joined = pa.table(
            {name: pa.array(events[name], pa.string()) for name in names}
            | {
                c.VALUE: pa.array(events[c.VALUE], pa.float64()),
                c.EVENT_TIMESTAMP: pa.array(events["at"], pa.int64()).cast(TIMESTAMP),
                c.INGESTED_AT: pa.array(events["known"], pa.int64()).cast(TIMESTAMP),
            }
        )
        return join_outcomes(
            requests,
            table,
            joined,
            catalogue=self.catalogue,
            item_counts=self.item_counts,
            target_events=TARGETS,
            until=until,
        )


def combined(first: Log, second: Log) -> Log:
    """Append a log to an earlier one."""
    shown = second.shown.assign(request=second.shown["request"] + len(first.requests))
    return replace(
        second,
        requests=pd.concat([first.requests, second.requests], ignore_index=True),
        shown=pd.concat([first.shown, shown], ignore_index=True),
        events=pd.concat([first.events, second.events], ignore_index=True),
    )


def picked(log: Log, keep: np.ndarray) -> Log:
    """Return the log of some requests (R,) bool, with all events."""
    place = np.cumsum(keep) - 1
    shown = log.shown[keep[log.shown["request"].to_numpy()]]
    shown = shown.assign(request=place[shown["request"].to_numpy()])
    requests = log.requests[keep]
    return replace(
        log, requests=requests.reset_index(drop=True), shown=shown.reset_index(drop=True)
    )
