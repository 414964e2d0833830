"""Splits time into four consecutive windows and draws evaluation requests from a window.

The windows are for training the sources, training the ranker, validation and test. A request is a
distinct (user, time). The time is that of the page request if the log has a `request_id`, otherwise
that of the user's event. Several events at the same time give one request. A request may use only
events strictly before it: neither the impressions of its page nor the events on that page. Its
relevant items are those of the user's events in the next 24 hours. They must be new to the user, or
items that may be recommended again (shortlist/behaviour/repeats.py).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.behaviour.repeats import may_be_found
from shortlist.contracts import microseconds, sort_by_time

WINDOWS = ("retrieval_train", "ranker_train", "validation", "test")
HORIZON = c.MICROSECONDS_PER_DAY
MAX_REQUESTS_PER_USER = 20
LIGHT_HISTORY = 20
"""A user with fewer events than this at the time of the request is "light"; without events, "new".
"""


class SplitError(ValueError):
    """The data cannot be split as configured; the message gives the window or the setting."""


@dataclass(frozen=True)
class Windows:
    """Edges of the windows in microseconds: window i of WINDOWS is [edges[i], edges[i + 1])."""

    edges: tuple[int, ...]

    def __getitem__(self, name: str) -> tuple[int, int]:
        i = WINDOWS.index(name)
        return self.edges[i], self.edges[i + 1]

    def to_json(self) -> dict[str, list[int]]:
        return {name: list(self[name]) for name in WINDOWS}


def split_windows(times: np.ndarray, fractions: tuple[float, ...]) -> Windows:
    """Split the time range so that each window has a given share of the events.

    Events with equal times are in the same window.

    Args:
        times: (E,) int64 microseconds, in any order.
        fractions: four shares in the order of WINDOWS. If they sum to less than 1 they are scaled
            up, so that the windows cover all events.

    Raises:
        SplitError: the fractions are invalid, there are no events, or a window would be empty.
    """
    if len(fractions) != len(WINDOWS) or min(fractions) <= 0 or sum(fractions) > 1 + 1e-6:
        raise SplitError(
            f"split fractions {list(fractions)}: want four shares above 0 that sum to at most 1"
        )
    if len(times) == 0:
        raise SplitError("nothing to split: there are no events")
    ordered = np.sort(times)
    cuts = np.round(np.cumsum(fractions[:-1]) / sum(fractions) * len(ordered)).astype(int)
    inner = [int(ordered[min(cut, len(ordered) - 1)]) for cut in cuts]
    edges = (int(ordered[0]), *inner, int(ordered[-1]) + 1)
    for name, start, end in zip(WINDOWS, edges, edges[1:], strict=False):
        if start >= end:
            raise SplitError(
                f"window '{name}' is empty: {len(times)} events over"
                f" {len(np.unique(times))} distinct times are too few for shares {list(fractions)};"
                f" want more events, or a larger share for '{name}' in [split] fractions"
            )
    return Windows(edges)


@dataclass(frozen=True)
class Requests:
    """Requests of one window, sorted by time, with the items of the user's next events."""

    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    relevant: list[list[str]]  # item_ids of the next 24 h (cut at the window's end)
    next_set: list[list[str]]  # the part of `relevant` chosen on the page requested at `at`
    contexts: list[tuple[str | None, str | None]]  # surface and device from the log

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, rows: np.ndarray) -> "Requests":
        return Requests(
            [self.user_ids[i] for i in rows],
            self.at[rows],
            [self.relevant[i] for i in rows],
            [self.next_set[i] for i in rows],
            [self.contexts[i] for i in rows],
        )


def draw_requests(
    interactions: pa.Table,
    window: tuple[int, int],
    *,
    rng: np.random.Generator,
    max_per_user: int = MAX_REQUESTS_PER_USER,
    horizon: int = HORIZON,
    asked: np.ndarray | None = None,
    repeat_after: int | None = None,
) -> Requests:
    """Draw at most `max_per_user` requests of each user with events in `window`.

    Args:
        interactions: target events (INTERACTIONS contract) from the start of the log to at least
            the window's end. Events before the window determine which items are new.
        window: (start, end) in microseconds, half open.
        rng: selects the requests of users with more than `max_per_user`.
        horizon: microseconds after a request in which the user's new items count as relevant.
        asked: (E,) int64 microseconds, time of the page request of each event; `interactions` must
            then be sorted by time. None: the event's own time.
        repeat_after: microseconds after which an item counts as new again; None: never.
    """
    start, end = window
    table = sort_by_time(interactions) if asked is None else interactions
    time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
    asked = time if asked is None else asked
    until = int((time < end).sum())
    table, time, asked = table.slice(0, until), time[:until], asked[:until]
    where = [
        table.column(name).to_pylist() if name in table.column_names else [None] * until
        for name in (c.SURFACE, c.DEVICE)
    ]
    user_names, user = np.unique(table.column(c.USER_ID).to_numpy(), return_inverse=True)
    items = table.column(c.ITEM_ID).to_numpy()
    order = np.argsort(user, kind="stable")
    bounds = np.searchsorted(user[order], np.arange(len(user_names) + 1))
    drawn = []
    for u, name in enumerate(user_names):
        rows = order[bounds[u] : bounds[u + 1]]
        drawn += [
            (str(name), *request, tuple(column[rows[first_event]] for column in where))
            for first_event, *request in _user_requests(
                time[rows],
                asked[rows],
                items[rows],
                start,
                horizon,
                max_per_user,
                rng,
                repeat_after,
            )
        ]
    drawn.sort(key=lambda request: (request[1], request[0]))
    return Requests(
        [r[0] for r in drawn],
        np.array([r[1] for r in drawn], dtype=np.int64),
        [r[2] for r in drawn],
        [r[3] for r in drawn],
        [r[4] for r in drawn],
    )


def _user_requests(
    time: np.ndarray,
    asked: np.ndarray,
    items: np.ndarray,
    start: int,
    horizon: int,
    max_per_user: int,
    rng: np.random.Generator,
    repeat_after: int | None,
) -> list[tuple[int, int, list[str], list[str]]]:
    """Return the requests of one user as (row of the page's first event, at, relevant, next_set).

    Other arguments are those of `draw_requests`.

    Args:
        time, asked, items: of the user's target events, sorted by time.
        start: start of the window in microseconds.
    """
    previous = previous_times(items, time)
    inside = int(np.searchsorted(time, start))
    moments, first_events = np.unique(np.maximum(asked[inside:], start), return_index=True)
    if len(moments) > max_per_user:
        kept = np.sort(rng.choice(len(moments), size=max_per_user, replace=False))
        moments, first_events = moments[kept], first_events[kept]
    requests = []
    for at, index in zip(moments, inside + first_events, strict=True):
        low, high = np.searchsorted(time, [at, at + horizon])
        # Count an item once, at its first event after the request, if a list could contain it.
        before = previous[low:high]
        new = (before < at) & may_be_found(before, at, after=repeat_after)
        if new.any():
            on_page = np.maximum(asked[low:high], start)[new] == at
            relevant = items[low:high][new]
            requests.append((int(index), int(at), relevant.tolist(), relevant[on_page].tolist()))
    return requests


def previous_times(items: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return (E,) time of the previous event on the same item, -1 if there is none.

    `items` and `time` (E,) are those of one user, sorted by time. Of two events at the same time
    the earlier row is the previous one.
    """
    _, code = np.unique(items, return_inverse=True)
    order = np.argsort(code, kind="stable")
    previous = np.full(len(items), -1, dtype=np.int64)
    again = code[order][1:] == code[order][:-1]
    previous[order[1:][again]] = time[order[:-1][again]]
    return previous
