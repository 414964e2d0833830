"""Joins the slates (lists) shown in a time window with the users' later events.

The current window has the monitored traffic, the reference window the lists that the release made
for the test window. Both go through the same functions. A user takes an item by a target event,
such as a click or a purchase.

Shapes: B requests, K positions, N items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist import columns as c
from shortlist.contracts import INTERACTIONS, SERVING_LOG, check, microseconds, sort_by_time
from shortlist.items.catalogue import Catalogue
from shortlist.splits import HORIZON

GRADES = ("rating", "review", "survey")
"""Event types whose value (1 to 5) is the user's grade of an item."""


class MonitorError(ValueError):
    """A window can't be evaluated; the message names the window and what is missing."""


@dataclass(frozen=True)
class Window:
    """The slates shown in a time window, and all events up to the window's end.

    `log` has the schema SERVING_LOG and `interactions` the schema INTERACTIONS. `interactions`
    contains all events since the first one of the data: they decide which items are new to a user.
    """

    name: str
    log: pa.Table
    interactions: pa.Table
    latency_ms: np.ndarray | None = None  # (B,) measured by the client that sent the requests

    def checked(self) -> "Window":
        """Return a copy with validated tables and events sorted by time.

        Raises:
            ContractError: a table violates its contract.
            MonitorError: the serving log is empty.
        """
        log = check(self.log, SERVING_LOG, where=f"{self.name} window: serving log")
        if log.num_rows == 0:
            raise MonitorError(
                f"{self.name} window: the serving log is empty; send requests to the service"
                " (`shortlist replay`) first"
            )
        events = check(self.interactions, INTERACTIONS, where=f"{self.name} window: interactions")
        return Window(self.name, log, sort_by_time(events), self.latency_ms)


@dataclass(frozen=True)
class SharedData:
    """Data that both windows share."""

    catalogue: Catalogue
    item_counts: np.ndarray  # (N + 1,) number of target events of each item before both windows
    feature_names: Sequence[str]  # F names, in the order of the release's ranking schema
    target_events: Sequence[str]  # event types by which a user takes an item
    users: pa.Table  # USERS contract
    k: int = 10


@dataclass(frozen=True)
class Slates:
    """B requests in order of time with the K positions shown to each.

    Empty positions have item_idx 0 and score NaN.
    """

    request_ids: list[str]
    user_ids: list[str]
    at: np.ndarray  # (B,) int64 microseconds
    item_idx: np.ndarray  # (B, K) int64
    source: np.ndarray  # (B, K) str, '' at empty positions
    score: np.ndarray  # (B, K) float64
    relevant: list[np.ndarray]  # item_idx that the user took, see `slates_of`
    grade: np.ndarray  # (B, K) mean GRADES value that the user gave in the next 24 h, or NaN
    history_length: np.ndarray  # (B,) target events of the user strictly before `at`
    known: np.ndarray  # (B,) bool: the feature store had a state of the user
    skipped: np.ndarray  # (B,) bool: some stage was skipped

    def __len__(self) -> int:
        return len(self.request_ids)

    @property
    def hit(self) -> np.ndarray:
        """(B, K) bool: whether the user took the item shown at this position."""
        return np.stack(
            [np.isin(r, w) & (r > 0) for r, w in zip(self.item_idx, self.relevant, strict=True)]
        )


def slates_of(window: Window, shared: SharedData) -> Slates:
    """Convert a window's log to arrays, joined with the users' events in the next 24 h.

    An item counts as taken if the user has a target event with it within 24 h, and this event is
    either the user's first one with the item or has the id of this request. The first condition is
    that of the evaluation of runs (`shortlist.splits`).

    Args:
        window: the result of `Window.checked`.
    """
    log = window.log.sort_by(
        [(c.EVENT_TIMESTAMP, "ascending"), (c.REQUEST_ID, "ascending"), (c.POSITION, "ascending")]
    )
    ids = log.column(c.REQUEST_ID).to_numpy(zero_copy_only=False)
    _, start, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(start, kind="stable")  # by time; np.unique sorted by request_id
    row = np.argsort(order)[inverse]
    first = start[order]
    # Positions continue over the pages of one list. Here each page is a separate list from 0 on.
    position = log.column(c.POSITION).to_numpy()
    rank_in_group = position - position[start][inverse]
    shown = rank_in_group < shared.k
    shape = (len(first), shared.k)
    item_idx = np.zeros(shape, dtype=np.int64)
    source = np.full(shape, "", dtype=object)
    score = np.full(shape, np.nan)
    encoded = shared.catalogue.vocab.encode(log.column(c.ITEM_ID).to_pylist())
    at_place = row[shown], rank_in_group[shown]
    item_idx[at_place] = encoded[shown]
    source[at_place] = log.column(c.SOURCE).to_numpy(zero_copy_only=False)[shown]
    score[at_place] = log.column(c.SCORE).to_numpy()[shown]
    heads = log.take(first)
    at = microseconds(heads.column(c.EVENT_TIMESTAMP)).to_numpy()
    user_ids = heads.column(c.USER_ID).to_pylist()
    request_ids = heads.column(c.REQUEST_ID).to_pylist()
    targets = TargetEvents.of(window.interactions, shared)
    grades = Grades.of(window.interactions, shared)
    grade = np.full(shape, np.nan)
    relevant, lengths = [], []
    for rank_in_group, (request_id, user_id, now) in enumerate(
        zip(request_ids, user_ids, at, strict=True)
    ):
        items, length = targets.after(user_id, int(now), request_id=request_id)
        relevant.append(items)
        lengths.append(length)
        grade[rank_in_group] = grades.after(user_id, int(now), item_idx[rank_in_group])
    as_of = microseconds(heads.column("user_as_of")).fill_null(0).to_numpy()
    skipped = pc.list_value_length(heads.column("skipped_stages")).to_numpy() > 0
    return Slates(
        request_ids=request_ids,
        user_ids=user_ids,
        at=at,
        item_idx=item_idx,
        source=source,
        score=score,
        relevant=relevant,
        grade=grade,
        history_length=np.array(lengths, dtype=np.int64),
        known=as_of > 0,
        skipped=skipped,
    )


@dataclass(frozen=True)
class TargetEvents:
    """Target events of each user, in order of time."""

    time: dict[str, np.ndarray]
    item_idx: dict[str, np.ndarray]
    new: dict[str, np.ndarray]  # bool: whether it is the user's first event with this item
    request_id: dict[str, np.ndarray]

    @classmethod
    def of(cls, interactions: pa.Table, shared: SharedData) -> "TargetEvents":
        kinds = pa.array(list(shared.target_events), pa.string())
        table = interactions.filter(pc.is_in(interactions.column(c.EVENT_TYPE), value_set=kinds))
        users = table.column(c.USER_ID).to_numpy(zero_copy_only=False).astype(str)
        item_idx = shared.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist())
        time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
        requests = table.column(c.REQUEST_ID).to_numpy(zero_copy_only=False)
        names, user = np.unique(users, return_inverse=True)
        order = np.argsort(user, kind="stable")
        bounds = np.searchsorted(user[order], np.arange(len(names) + 1))
        _, first = np.unique(user * (item_idx.max(initial=0) + 1) + item_idx, return_index=True)
        new = np.zeros(len(users), dtype=bool)
        new[first] = True
        rows = {str(n): order[bounds[u] : bounds[u + 1]] for u, n in enumerate(names)}
        return cls(
            time={n: time[r] for n, r in rows.items()},
            item_idx={n: item_idx[r] for n, r in rows.items()},
            new={n: new[r] for n, r in rows.items()},
            request_id={n: requests[r] for n, r in rows.items()},
        )

    def after(self, user_id: str, at: int, *, request_id: str) -> tuple[np.ndarray, int]:
        """Return the item_idx that the user took within 24 h from `at` on, and the number of the
        user's earlier target events.
        """
        if user_id not in self.time:
            return np.empty(0, dtype=np.int64), 0
        low, high = np.searchsorted(self.time[user_id], [at, at + HORIZON])
        span = slice(low, high)
        taken = self.new[user_id][span] | (self.request_id[user_id][span] == request_id)
        taken &= self.item_idx[user_id][span] > 0
        return np.unique(self.item_idx[user_id][span][taken]), int(low)


@dataclass(frozen=True)
class Grades:
    """Grades (values of GRADES events) by user and item: sorted times, and values."""

    given: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, interactions: pa.Table, shared: SharedData) -> "Grades":
        kinds = pa.array(GRADES, pa.string())
        table = interactions.filter(
            pc.and_(
                pc.is_in(interactions.column(c.EVENT_TYPE), value_set=kinds),
                pc.is_valid(interactions.column(c.VALUE)),
            )
        )
        item_idx = shared.catalogue.vocab.encode(table.column(c.ITEM_ID).to_pylist())
        time = microseconds(table.column(c.EVENT_TIMESTAMP)).to_numpy()
        value = table.column(c.VALUE).to_numpy()
        rows: dict[tuple[str, int], list[int]] = {}
        users = table.column(c.USER_ID).to_pylist()
        for row, key in enumerate(zip(users, item_idx.tolist(), strict=True)):
            rows.setdefault(key, []).append(row)
        return cls({key: (time[places], value[places]) for key, places in rows.items()})

    def after(self, user_id: str, at: int, shown: np.ndarray) -> np.ndarray:
        """Return the user's mean grade of each shown item in the next 24 h: (K,) item_idx -> (K,).

        NaN for items without a grade.
        """
        found = np.full(len(shown), np.nan)
        for index, item in enumerate(shown.tolist()):
            if item and (user_id, item) in self.given:
                times, values = self.given[user_id, item]
                low, high = np.searchsorted(times, [at, at + HORIZON])
                if high > low:
                    found[index] = values[low:high].mean()
        return found
