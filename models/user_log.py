"""All target events of the training window, and the states and histories of users at any time.

Target events are those of the types that models learn to predict. A state is a set of aggregates,
such as counts and decayed sums. Training requests read states and histories from here. They follow
the rules of `shortlist/behaviour/counting.py`, so they equal what the service would have read at
that time.

Shapes: U users, M events, B requests, L history.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shortlist.behaviour.counting import TARGET_STATE, counted
from shortlist.behaviour.repeats import may_be_found
from shortlist.features.finalize import MAX_HISTORY
from shortlist.splits import previous_times


@dataclass(frozen=True)
class UserLog:
    """Target events of all users, sorted by user, then by the time at which they became known.

    The events of user row u are `offsets[u]:offsets[u + 1]`.
    """

    num_items: int  # of the catalogue; an item with a larger item_idx is outside the catalogue
    offsets: np.ndarray  # (U + 1,) int64
    item_idx: np.ndarray  # (M,) int64, 0 for an event without an item
    time: np.ndarray  # (M,) int64 microseconds
    known: np.ndarray  # (M,) int64 microseconds: when it became known, by `counting.known_at`
    value: np.ndarray  # (M,) float64, NaN where the event has none
    type_code: np.ndarray  # (M,) int64 EVENT_CODE, 0 where unknown
    place: np.ndarray  # (M,) int64: rank of the event by time; ties in the order of the log
    repeat_after: int | None = None
    """Microseconds after which an item may be recommended again; None: never."""

    @classmethod
    def build(
        cls,
        user_row: np.ndarray,
        *,
        num_users: int,
        num_items: int,
        item_idx: np.ndarray,
        time: np.ndarray,
        known: np.ndarray,
        value: np.ndarray,
        type_code: np.ndarray,
        repeat_after: int | None = None,
    ) -> "UserLog":
        """Build from (M,) arrays in the order of the log, which breaks ties of equal times."""
        place = np.empty(len(time), dtype=np.int64)
        place[np.argsort(time, kind="stable")] = np.arange(len(time))
        order = np.lexsort((np.arange(len(time)), known, user_row))
        return cls(
            num_items=num_items,
            offsets=np.searchsorted(user_row[order], np.arange(num_users + 1)),
            item_idx=item_idx[order],
            time=time[order],
            known=known[order],
            value=value[order],
            type_code=type_code[order],
            place=place[order],
            repeat_after=repeat_after,
        )

    @property
    def once(self) -> bool:
        """True: histories contain each item once. False: they contain every event."""
        return self.repeat_after is None

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def user_row(self) -> np.ndarray:
        """(M,) int64: the user row of each event."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    @cached_property
    def with_items(self) -> "UserLog":
        """The events that have an item, inside or outside the catalogue."""
        return self._only(self.item_idx > 0)

    @cached_property
    def in_catalogue(self) -> "UserLog":
        """The events whose item is in the catalogue. Models use no other items."""
        return self._only((self.item_idx > 0) & (self.item_idx <= self.num_items))

    def _only(self, kept: np.ndarray) -> "UserLog":
        return type(self)(
            num_items=self.num_items,
            offsets=np.searchsorted(self.user_row[kept], np.arange(self.num_users + 1)),
            item_idx=self.item_idx[kept],
            time=self.time[kept],
            known=self.known[kept],
            value=self.value[kept],
            type_code=self.type_code[kept],
            place=self.place[kept],
            repeat_after=self.repeat_after,
        )

    def target_rows(self) -> np.ndarray:
        """Return the rows of the events that models are trained to predict.

        These are the first event of each user and item. If repeats are allowed, events at least
        `repeat_after` later than the previous event of that user and item are added. Sorted by
        user, then `place`.
        """
        order, pair = self._pairs()
        previous = previous_times(pair, self.time[order])
        return order[may_be_found(previous, self.time[order], after=self.repeat_after)]

    def history_rows(self) -> np.ndarray:
        """Return rows of the events in the final histories, sorted by user, then `place`."""
        return self.newest(*self._pairs())

    def newest(self, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Return the last row of each key; all rows if repeats are allowed.

        Args:
            rows: rows sorted by `place` within each key.
            key: for each row, a code of the item (of one user) or of the (user, item) pair.
        """
        if not self.once:
            return rows
        _, last = np.unique(key[::-1], return_index=True)
        return rows[np.sort(len(rows) - 1 - last)]

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows sorted by user, then `place`; and a code of each row's (user, item)."""
        order = np.lexsort((self.place, self.user_row))
        return order, self.user_row[order] * (self.item_idx.max(initial=0) + 1) + self.item_idx[
            order
        ]

    def known_by(self, user: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return (B,): the row after the last event of each user that was known at time `at`.

        The events known by then are the rows from `offsets[user]` to the row before this one.
        """
        moments, rank = np.unique(np.concatenate([self.known, at]), return_inverse=True)
        key = np.concatenate([self.user_row, user]) * (len(moments) + 1) + rank
        return np.searchsorted(key[: len(self.known)], key[len(self.known) :], side="right")

    def states(self, user: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        """Return TARGET_STATE of users (B,) at times `at` (B,): (B,) arrays, 0 without events."""
        end = self.known_by(user, at)
        some = end > self.offsets[user]
        newest = np.maximum(end - 1, 0)
        if not len(self.time):
            return {name: np.zeros(len(at)) for name in TARGET_STATE}
        return {name: np.where(some, all_[newest], 0) for name, all_ in self._running.items()}

    @cached_property
    def _running(self) -> dict[str, np.ndarray]:
        """TARGET_STATE of the user right after each event: {name: (M,)}.

        Computed in steps: step n counts the n-th event of all users at once.
        """
        lengths = np.diff(self.offsets)
        longest_first = np.argsort(-lengths, kind="stable")
        begin, lengths = self.offsets[longest_first], lengths[longest_first]
        state: dict[str, np.ndarray] = {name: np.zeros(len(begin)) for name in TARGET_STATE}
        out = {name: np.zeros(len(self.time)) for name in TARGET_STATE}
        for nth in range(int(lengths.max(initial=0))):
            # Users are sorted by their number of events: the first `some` have more than `nth`.
            some = int(np.searchsorted(-lengths, -nth, side="left"))
            rows = begin[:some] + nth
            before = {name: values[:some] for name, values in state.items()}
            state = counted(before, self.time[rows].astype(np.float64), self.value[rows])
            for name, values in state.items():
                out[name][rows] = values
        return out

    def histories(self, user: np.ndarray, end: np.ndarray, *, limit: int) -> np.ndarray:
        """Return rows of the newest `limit` events of each history, oldest first: (B, L).

        Padded with -1 on the right.

        Args:
            end: (B,) result of `known_by` for the same users.
        """
        length = np.minimum(end - self.offsets[user], limit)
        column = np.arange(max(int(length.max(initial=0)), 1))
        rows = np.where(column < length[:, None], (end - length)[:, None] + column, -1)
        for i in np.flatnonzero(~self._contiguous[user]):
            own = self.history(user[i], end[i])[-limit:]
            rows[i] = -1
            rows[i, : len(own)] = own
        return rows

    def history_times(self, user: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        """Return the times of each history's newest MAX_HISTORY events: B arrays.

        MAX_HISTORY is also the number of events that stored user states keep.
        """
        return [
            self.time[max(begin, e - MAX_HISTORY) : e]
            if contiguous
            else self.time[self.history(u, e)[-MAX_HISTORY:]]
            for u, begin, e, contiguous in zip(
                user, self.offsets[user], end, self._contiguous[user], strict=True
            )
        ]

    def history(self, user: int, end: int) -> np.ndarray:
        """Return the rows of one user's history, oldest first, from the events before row `end`."""
        begin = self.offsets[user]
        rows = begin + np.argsort(self.place[begin:end])
        return self.newest(rows, self.item_idx[rows])

    @cached_property
    def _contiguous(self) -> np.ndarray:
        """(U,) bool: whether the user's history is a contiguous slice of the log at any time.

        True if no event became known late, and no item has several events of which the history
        keeps only the newest.
        """
        late = (np.diff(self.place) < 0) & (np.diff(self.user_row) == 0)
        in_time = np.bincount(self.user_row[1:][late], minlength=self.num_users) == 0
        kept = np.bincount(self.user_row[self.history_rows()], minlength=self.num_users)
        return in_time & (kept == np.diff(self.offsets))
