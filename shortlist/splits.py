"""Four windows of time, in order, and the requests drawn from one of them: the unit of every
evaluation.

A request is a distinct (user, moment): when a page was asked for if the log tells (`request_id`),
else when something was chosen, and events of one second are one set of targets. What is known at a
request is everything strictly before, so of a page neither its impressions nor what was done on it;
relevant are the user's new items of the next 24 hours, and those that may be recommended again
(shortlist/repeats.py).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shortlist import columns as c
from shortlist.contracts import microseconds, sort_by_time
from shortlist.repeats import may_be_found

WINDOWS = ("retrieval_train", "ranker_train", "validation", "test")
HORIZON = c.MICROSECONDS_PER_DAY
MAX_REQUESTS_PER_USER = 20
LIGHT_HISTORY = 20
"""A user with fewer events than this at the time of the request is light; with none, new."""


class SplitError(ValueError):
    """The data cannot be cut as asked; the message says where it fails."""


@dataclass(frozen=True)
class Windows:
    """`edges[i]:edges[i + 1]` (microseconds, half open) is window i of WINDOWS; 5 edges."""

    edges: tuple[int, ...]

    def __getitem__(self, name: str) -> tuple[int, int]:
        i = WINDOWS.index(name)
        return self.edges[i], self.edges[i + 1]

    def to_json(self) -> dict[str, list[int]]:
        return {name: list(self[name]) for name in WINDOWS}


def split_windows(times: np.ndarray, fractions: tuple[float, ...]) -> Windows:
    """Cut by shares of the events, in order of time; events with equal time stay together.

    Args:
        times: (E,) int64 microseconds, any order.
        fractions: four shares in the order of WINDOWS. If they sum to less than 1 they are scaled
            up, so that the windows always cover all events.

    Raises:
        SplitError: wrong fractions, or a window would be empty.
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
                " want more events, or larger shares of it in [split] fractions"
            )
    return Windows(edges)


@dataclass(frozen=True)
class Requests:
    """Requests of one window, sorted by time, with what the user really did next."""

    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    relevant: list[list[str]]  # items of the next 24 h (cut at the window's end), item_ids
    next_set: list[list[str]]  # of them those chosen on the page asked for at `at`
    contexts: list[tuple[str | None, str | None]]  # surface and device, as the log has them

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
    """Draw at most `max_per_user` requests of each user active in `window`.

    Args:
        interactions: positive events (INTERACTIONS contract) from the beginning to at least the
            window's end;
            those before the window tell which items are new.
        window: (start, end) in microseconds, half open.
        rng: decides which requests of a busy user are kept.
        horizon: microseconds after a request in which the user's new items count as relevant.
        asked: (E,) int64 microseconds, when the page of each event was asked for; then
            `interactions` is sorted by time. None: at the event's own time.
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
            (str(name), *request, tuple(column[rows[place]] for column in where))
            for place, *request in _user_requests(
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
    """Of one user, (place of the first event on the page, at, relevant, next_set) each."""
    previous = previous_times(items, time)
    inside = int(np.searchsorted(time, start))
    moments, places = np.unique(np.maximum(asked[inside:], start), return_index=True)
    if len(moments) > max_per_user:
        kept = np.sort(rng.choice(len(moments), size=max_per_user, replace=False))
        moments, places = moments[kept], places[kept]
    requests = []
    for at, place in zip(moments, inside + places, strict=True):
        low, high = np.searchsorted(time, [at, at + horizon])
        # An item counts at its first event since the request, if a list could have had it.
        before = previous[low:high]
        new = (before < at) & may_be_found(before, at, after=repeat_after)
        if new.any():
            own = np.maximum(asked[low:high], start)[new] == at
            relevant = items[low:high][new]
            requests.append((int(place), int(at), relevant.tolist(), relevant[own].tolist()))
    return requests


def previous_times(items: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(E,) items in order of time -> (E,) time of the same item's event before, -1 for none. Of
    events of one moment the first counts.
    """
    _, code = np.unique(items, return_inverse=True)
    order = np.argsort(code, kind="stable")
    previous = np.full(len(items), -1, dtype=np.int64)
    again = code[order][1:] == code[order][:-1]
    previous[order[1:][again]] = time[order[:-1][again]]
    return previous
