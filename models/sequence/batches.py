"""Histories as training batches, in one format for every sequence model.

Packing: several histories stand side by side in one row, so almost no position is padding. Each
history takes one position for its start (nothing seen yet) and one for each event: a history of L
events has L + 1 states, and state i has seen its first i events. A `Layout` says which position
belongs to which history; an encoder must not read across histories.

Targets: a request sees only events strictly before it, so events of one (user, timestamp) are one
set. The target of a state is drawn from the next set: the events at the first moment later than
the state's newest event. A state inside a set is kept, as a shorter history. Where every event has
a different time, this is plain next-item prediction. docs/experiments/sequence-targets.md compares
this with other rules.

Shapes: S histories, R rows, W positions a row, T = R * W.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.data import TrainingData
from models.queries import Queries

GAP_BUCKETS = 32
"""Time since the event before, in powers of two of a second: 2^31 seconds are 68 years."""


@dataclass(frozen=True)
class Layout:
    """Who stands where in R rows of W positions."""

    segment: Tensor  # (R, W) int64: number of the history within its row from 1, 0 is padding
    position: Tensor  # (R, W) int64: events seen there by its history, 0 at the start and padding

    @cached_property
    def mask(self) -> Tensor:
        """(R, W, W) bool: position j belongs to the same history as i and is not later.

        Padding sees padding, so that no row of a softmax is empty.
        """
        same = self.segment[:, :, None] == self.segment[:, None, :]
        width = self.segment.shape[1]
        return same & torch.ones(width, width, dtype=torch.bool, device=same.device).tril()

    @cached_property
    def lag(self) -> Tensor:
        """(R, W, W) int64: how many events j lies before i; read it where `mask` is true only."""
        return (self.position[:, :, None] - self.position[:, None, :]).clamp(min=0)

    @cached_property
    def unpacked(self) -> tuple[Tensor, Tensor]:
        """Flat positions (S, L) of each history's states, right padded with 0, and lengths (S,).

        For encoders that must walk one history after the other.
        """
        flat_segment = self.segment.ravel()
        start = torch.nonzero((self.position.ravel() == 0) & (flat_segment > 0)).ravel()
        width = self.segment.shape[1]
        # A history goes on as long as its number and row stay: count its positions.
        owner = torch.cumsum((self.position.ravel() == 0) & (flat_segment > 0), 0)
        owner = torch.where(flat_segment > 0, owner, 0)
        length = torch.bincount(owner, minlength=len(start) + 1)[1:]
        column = torch.arange(min(int(length.max()), width), device=start.device)
        place = start[:, None] + column
        return torch.where(column < length[:, None], place, 0), length

    def to(self, device: torch.device | str) -> "Layout":
        return Layout(self.segment.to(device), self.position.to(device))


@dataclass(frozen=True)
class Places:
    """Where the states of S histories stand, as flat numbers over all T positions."""

    layout: Layout
    start: np.ndarray  # (S,) int64: flat position of each history's start
    history: np.ndarray  # (V,) int64: which history each of the V events is of
    nth: np.ndarray  # (V,) int64: which event of it, from 0
    flat: np.ndarray  # (V,) int64: where it stands

    @property
    def size(self) -> int:
        return self.layout.segment.numel()


def pack(lengths: np.ndarray, *, width: int) -> Places:
    """Lay out S histories of `lengths` events in rows of `width` positions.

    Next fit by decreasing length (Johnson 1973): a row is closed when the next history does not
    fit, so Python works once a row and never for a single history.
    """
    needs = lengths + 1
    assert needs.max(initial=1) <= width, "a history is longer than a row"
    order = np.argsort(-needs, kind="stable")
    ends = np.cumsum(needs[order])
    bounds = [0]
    while bounds[-1] < len(order):
        used = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(int(np.searchsorted(ends, used + width, side="right")))
    counts = np.diff(bounds)
    first = np.asarray(bounds[:-1], dtype=np.int64)
    row_of = np.repeat(np.arange(len(counts)), counts)
    begin = ends - needs[order]
    column = begin - np.repeat(begin[first], counts)
    number = np.arange(len(order)) - np.repeat(first, counts) + 1
    start = np.empty(len(order), dtype=np.int64)
    start[order] = row_of * width + column
    segment_of = np.empty(len(order), dtype=np.int64)
    segment_of[order] = number
    history = np.repeat(np.arange(len(needs)), lengths)
    nth = np.arange(len(history)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat = start[history] + 1 + nth
    segment = np.zeros(len(counts) * width, dtype=np.int64)
    position = np.zeros_like(segment)
    segment[start] = segment_of
    segment[flat] = segment_of[history]
    position[flat] = nth + 1
    layout = Layout(
        torch.from_numpy(segment.reshape(-1, width)), torch.from_numpy(position.reshape(-1, width))
    )
    return Places(layout, start=start, history=history, nth=nth, flat=flat)


@dataclass(frozen=True)
class SequenceBatch:
    """Histories packed side by side; R rows of W positions, see `Layout`."""

    layout: Layout
    items: Tensor  # (R, W) int64 item_idx, 0 at starts and padding
    gaps: Tensor  # (R, W) int64: bucket of the time since the event before, 0 where there is none
    types: Tensor  # (R, W) int64 EVENT_CODE of the event, 0 at starts, padding and where unknown
    targets: Tensor  # (R, W) int64 item_idx; 0 means: no loss at this state


class SequenceData:
    """Cuts histories into windows of `max_history` events and draws a target for each state.

    `learn_start` says whether the state that has seen nothing is taught a user's first event.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        max_history: int,
        rng: np.random.Generator,
        learn_start: bool = True,
    ):
        self.data = data
        self.max_history = max_history
        self.rng = rng
        self.learn_start = learn_start
        self.low, self.high = next_sets(data)
        since = np.diff(data.time, prepend=data.time[:1])
        first = np.zeros(len(data.time), dtype=bool)
        first[data.offsets[:-1][np.diff(data.offsets) > 0]] = True
        self.gaps = np.where(first, 0, gap_buckets(since))

    def batches(self, batch_size: int, *, device: str = "cpu") -> Iterator[SequenceBatch]:
        """One epoch: every event but a user's last is once in a window; cuts, targets and order are
        new each time."""
        start, length = self._windows()
        order = self.rng.permutation(len(start))
        for i in range(0, len(order), batch_size):
            rows = order[i : i + batch_size]
            yield self._fill(start[rows], length[rows], device=device)

    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        """First event and number of events of each window.

        Long histories are cut at a random offset, so that an event is seen at many positions.
        """
        total = np.diff(self.data.offsets)
        limit = self.max_history
        first_cut = np.where(total > limit, self.rng.integers(1, limit + 1, size=len(total)), total)
        later = -(-(total - first_cut) // limit)  # windows after the first, the last may be short
        user = np.repeat(np.arange(len(total)), 1 + later)
        nth = np.arange(len(user)) - (np.cumsum(1 + later) - 1 - later)[user]
        start = np.where(nth == 0, 0, first_cut[user] + (nth - 1) * limit)
        length = np.where(nth == 0, first_cut[user], np.minimum(limit, total[user] - start))
        begin = start + self.data.offsets[user]
        # Nothing is predicted from a user's last event.
        length = length - (begin + length == self.data.offsets[user + 1])
        kept = (length > 0) | (self.learn_start & (start == 0) & (total[user] > 0))
        return begin[kept], length[kept]

    def _fill(self, start: np.ndarray, length: np.ndarray, *, device: str) -> SequenceBatch:
        """Windows -> one packed batch."""
        data, last = self.data, len(self.data.item_idx) - 1
        places = pack(length, width=self.max_history + 1)
        event = start[places.history] + places.nth
        items = np.zeros(places.size, dtype=np.int64)
        items[places.flat] = data.item_idx[event]
        gaps = np.zeros(places.size, dtype=np.int64)
        gaps[places.flat] = self.gaps[event]
        types = np.zeros(places.size, dtype=np.int64)
        types[places.flat] = data.type_code[event]
        # A state that has seen n events of its window stands before event start + n. It has a
        # target if the user has that event and one later set; a start only where the history
        # really begins, since else it would be taught as empty.
        flat = np.concatenate([places.start, places.flat])
        before = np.concatenate([start, event + 1])
        user = np.concatenate([data.user_row[start], data.user_row[event]])
        real = before < data.offsets[user + 1]
        real[: len(start)] &= self.learn_start & (start == data.offsets[data.user_row[start]])
        inside = np.minimum(before, last)
        low, high = self.low[inside], self.high[inside]
        real &= low < high
        drawn = low + (self.rng.random(len(low)) * (high - low)).astype(np.int64)
        targets = np.zeros(places.size, dtype=np.int64)
        targets[flat] = np.where(real, data.item_idx[np.minimum(drawn, last)], 0)
        shape = places.layout.segment.shape
        return SequenceBatch(
            layout=places.layout.to(device),
            items=torch.from_numpy(items.reshape(shape)).to(device),
            gaps=torch.from_numpy(gaps.reshape(shape)).to(device),
            types=torch.from_numpy(types.reshape(shape)).to(device),
            targets=torch.from_numpy(targets.reshape(shape)).to(device),
        )


def pack_queries(
    queries: Queries, *, max_history: int, device: torch.device | str = "cpu"
) -> tuple[SequenceBatch, Tensor]:
    """The newest `max_history` events of each query, and the flat place of its last state (B,)."""
    history, time = queries.history, queries.history_time
    total = (history > 0).sum(1)
    length = np.minimum(total, max_history)
    places = pack(length, width=max(int(length.max(initial=0)), 1) + 1)
    column = (total - length)[places.history] + places.nth
    items = np.zeros(places.size, dtype=np.int64)
    items[places.flat] = history[places.history, column]
    gaps = np.zeros(places.size, dtype=np.int64)
    since = time[places.history, column] - time[places.history, np.maximum(column - 1, 0)]
    gaps[places.flat] = np.where(column > 0, gap_buckets(since), 0)
    types = np.zeros(places.size, dtype=np.int64)
    types[places.flat] = queries.history_type[places.history, column]
    shape = places.layout.segment.shape
    batch = SequenceBatch(
        layout=places.layout.to(device),
        items=torch.from_numpy(items.reshape(shape)).to(device),
        gaps=torch.from_numpy(gaps.reshape(shape)).to(device),
        types=torch.from_numpy(types.reshape(shape)).to(device),
        targets=torch.zeros(shape, dtype=torch.int64, device=device),
    )
    return batch, torch.from_numpy(places.start + length).to(device)


def gap_buckets(microseconds: np.ndarray) -> np.ndarray:
    """(...) time differences -> (...) int64 from 1: powers of two of a second."""
    seconds = np.maximum(microseconds, 0) / 1e6
    return np.minimum(1 + np.log2(1 + seconds).astype(np.int64), GAP_BUCKETS - 1)


def next_sets(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """For the state just before each event, the range of events it has to predict.

    Returns:
        (E,) first and (E,) one past the last event of the user's first set strictly later than the
        event before; an empty range where there is none. For a user's first event: their first
        set.
    """
    num_events = len(data.item_idx)
    moments, rank = np.unique(data.time, return_inverse=True)
    key = data.user_row * (len(moments) + 1) + rank  # ascending: users, then times
    end_of_set = np.searchsorted(key, key, side="right")
    event = np.arange(num_events)
    first = event == data.offsets[data.user_row]
    low = np.where(first, event, end_of_set[np.maximum(event - 1, 0)])
    same_user = low < data.offsets[data.user_row + 1]
    high = np.where(same_user, end_of_set[np.minimum(low, num_events - 1)], low)
    return low, high
