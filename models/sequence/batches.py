"""Packed batches of histories, the input of all sequence models.

Packing: several histories share a row, so that almost no position is padding. A history of L events
takes L + 1 positions: a start position, then one per event. The encoder's output at a position is
the model's state after that event. A `Layout` tells which history each position belongs to; an
encoder must not read across histories.

Targets: a served request sees only events strictly before it. So the user's events at one timestamp
form a set, whose members must not predict each other. The target of a state is drawn from the next
set: the user's events at the first timestamp later than the state's newest event. A state in the
middle of a set is trained as well, with a shorter history. If all timestamps of a user differ, this
is next-item prediction. docs/experiments/sequence-targets.md compares it with other rules.

Shapes: S histories, R rows, W positions per row, T = R * W, V events in a batch, E events in total.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.data import TrainingData
from models.incremental import Increment
from models.queries import Queries

GAP_BUCKETS = 32
"""Number of buckets of the time since the previous event. Bucket 0 means no previous event. Each
other bucket covers one power of two of the seconds; the last one starts at 2^30 seconds (34 years).
"""


@dataclass(frozen=True)
class Layout:
    """Assignment of R rows of W positions to histories."""

    segment: Tensor  # (R, W) int64: number of the history in its row, from 1; 0 padding
    position: Tensor  # (R, W) int64: number of the event in its history, from 1; else 0

    @cached_property
    def mask(self) -> Tensor:
        """(R, W, W) bool: [r, i, j] is True if j is in the same history as i and not later.

        Padding attends to padding, so that each softmax has at least one entry.
        """
        same = self.segment[:, :, None] == self.segment[:, None, :]
        width = self.segment.shape[1]
        return same & torch.ones(width, width, dtype=torch.bool, device=same.device).tril()

    @cached_property
    def lag(self) -> Tensor:
        """(R, W, W) int64: [r, i, j] is the number of positions from j to i.

        Valid only where `mask` is True.
        """
        return (self.position[:, :, None] - self.position[:, None, :]).clamp(min=0)

    @cached_property
    def unpacked(self) -> tuple[Tensor, Tensor]:
        """Flat positions of each history, (S, L), right padded with 0; and their number, (S,).

        A flat position is an index into the R * W positions. For encoders that need one history per
        row.
        """
        flat_segment = self.segment.ravel()
        start = torch.nonzero((self.position.ravel() == 0) & (flat_segment > 0)).ravel()
        width = self.segment.shape[1]
        # A history's positions are contiguous, so a running count of starts numbers the histories.
        owner = torch.cumsum((self.position.ravel() == 0) & (flat_segment > 0), 0)
        owner = torch.where(flat_segment > 0, owner, 0)
        length = torch.bincount(owner, minlength=len(start) + 1)[1:]
        column = torch.arange(min(int(length.max()), width), device=start.device)
        index = start[:, None] + column
        return torch.where(column < length[:, None], index, 0), length

    def to(self, device: torch.device | str) -> "Layout":
        return Layout(self.segment.to(device), self.position.to(device))


@dataclass(frozen=True)
class Packing:
    """Where S histories and their V events lie in a layout of R rows of W positions.

    A flat position is an index into the T = R * W positions, row after row.
    """

    layout: Layout
    start: np.ndarray  # (S,) int64: flat position of each history's start
    history: np.ndarray  # (V,) int64: history of each event
    nth: np.ndarray  # (V,) int64: index of the event within its history, from 0
    flat: np.ndarray  # (V,) int64: flat position of the event

    @property
    def size(self) -> int:
        return self.layout.segment.numel()


def pack(lengths: np.ndarray, *, width: int) -> Packing:
    """Pack S histories of `lengths` (S,) events into rows of `width` positions.

    The method is next fit by decreasing length (Johnson 1973): a history that does not fit into the
    current row starts a new row. The Python loop runs once per row, not once per history.
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
    return Packing(layout, start=start, history=history, nth=nth, flat=flat)


@dataclass(frozen=True)
class SequenceBatch:
    """Packed histories with their targets: R rows of W positions, assigned by `layout`."""

    layout: Layout
    items: Tensor  # (R, W) int64 item_idx, 0 at starts and padding
    gaps: Tensor  # (R, W) int64: bucket of the time since the previous event, 0 if there is none
    types: Tensor  # (R, W) int64 EVENT_CODE; 0 at starts, padding and where unknown
    targets: Tensor  # (R, W) int64 item_idx; 0 at states without a target


class SequenceData:
    """Training histories, cut into windows of up to `max_history` events, with a target per state.

    With `learn_start`, the start state (empty history) is trained to predict a user's first event.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        max_history: int,
        rng: np.random.Generator,
        learn_start: bool = True,
        increment: Increment | None = None,
    ):
        """
        Args:
            increment: use only windows with a new event, and a sample of the others; None: all.
        """
        self.data = data
        self.increment = increment
        self.max_history = max_history
        self.rng = rng
        self.learn_start = learn_start
        self.low, self.high = next_sets(data)
        since = np.diff(data.time, prepend=data.time[:1])
        first = np.zeros(len(data.time), dtype=bool)
        first[data.offsets[:-1][np.diff(data.offsets) > 0]] = True
        self.gaps = np.where(first, 0, gap_buckets(since))

    def batches(self, batch_size: int, *, device: str = "cpu") -> Iterator[SequenceBatch]:
        """Yield the batches of one epoch, with new random window cuts, targets and order.

        Each event except a user's last is in exactly one window.
        """
        start, length = self._windows()
        order = self.rng.permutation(len(start))
        for i in range(0, len(order), batch_size):
            rows = order[i : i + batch_size]
            yield self._fill(start[rows], length[rows], device=device)

    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first event and the number of events of each window.

        Long histories are cut at a random offset, so that an event's position varies.
        """
        total = np.diff(self.data.offsets)
        limit = self.max_history
        first_cut = np.where(total > limit, self.rng.integers(1, limit + 1, size=len(total)), total)
        # Number of windows after the first; the last one may be short.
        later = -(-(total - first_cut) // limit)
        user = np.repeat(np.arange(len(total)), 1 + later)
        nth = np.arange(len(user)) - (np.cumsum(1 + later) - 1 - later)[user]
        start = np.where(nth == 0, 0, first_cut[user] + (nth - 1) * limit)
        length = np.where(nth == 0, first_cut[user], np.minimum(limit, total[user] - start))
        begin = start + self.data.offsets[user]
        # A user's last event has no next event to predict.
        length = length - (begin + length == self.data.offsets[user + 1])
        kept = (length > 0) | (self.learn_start & (start == 0) & (total[user] > 0))
        begin, length = begin[kept], length[kept]
        if self.increment is not None:
            newest = self.data.time[begin + length]  # of the last event that the window predicts
            chosen = self.increment.examples(newest, self.rng)
            begin, length = begin[chosen], length[chosen]
        return begin, length

    def _fill(self, start: np.ndarray, length: np.ndarray, *, device: str) -> SequenceBatch:
        """Pack windows into a batch and draw the target of each state."""
        data, last = self.data, len(self.data.item_idx) - 1
        packing = pack(length, width=self.max_history + 1)
        event = start[packing.history] + packing.nth
        items = np.zeros(packing.size, dtype=np.int64)
        items[packing.flat] = data.item_idx[event]
        gaps = np.zeros(packing.size, dtype=np.int64)
        gaps[packing.flat] = self.gaps[event]
        types = np.zeros(packing.size, dtype=np.int64)
        types[packing.flat] = data.type_code[event]
        # `before` is the index of the event that follows each state. A state has a target only if
        # this event is of the same user and `next_sets` gives a non-empty range for it. A start
        # state has a target only in a user's first window: in later windows the true history isn't
        # empty.
        flat = np.concatenate([packing.start, packing.flat])
        before = np.concatenate([start, event + 1])
        user = np.concatenate([data.user_row[start], data.user_row[event]])
        real = before < data.offsets[user + 1]
        real[: len(start)] &= self.learn_start & (start == data.offsets[data.user_row[start]])
        inside = np.minimum(before, last)
        low, high = self.low[inside], self.high[inside]
        real &= low < high
        drawn = low + (self.rng.random(len(low)) * (high - low)).astype(np.int64)
        targets = np.zeros(packing.size, dtype=np.int64)
        targets[flat] = np.where(real, data.item_idx[np.minimum(drawn, last)], 0)
        shape = packing.layout.segment.shape
        return SequenceBatch(
            layout=packing.layout.to(device),
            items=torch.from_numpy(items.reshape(shape)).to(device),
            gaps=torch.from_numpy(gaps.reshape(shape)).to(device),
            types=torch.from_numpy(types.reshape(shape)).to(device),
            targets=torch.from_numpy(targets.reshape(shape)).to(device),
        )


def pack_queries(
    queries: Queries, *, max_history: int, device: torch.device | str = "cpu"
) -> tuple[SequenceBatch, Tensor]:
    """Pack the newest `max_history` events of each query into a batch without targets.

    Returns:
        The batch, and the flat position of each query's last state, (B,).
    """
    history, time = queries.history, queries.history_time
    total = (history > 0).sum(1)
    length = np.minimum(total, max_history)
    packing = pack(length, width=max(int(length.max(initial=0)), 1) + 1)
    column = (total - length)[packing.history] + packing.nth
    items = np.zeros(packing.size, dtype=np.int64)
    items[packing.flat] = history[packing.history, column]
    gaps = np.zeros(packing.size, dtype=np.int64)
    since = time[packing.history, column] - time[packing.history, np.maximum(column - 1, 0)]
    gaps[packing.flat] = np.where(column > 0, gap_buckets(since), 0)
    types = np.zeros(packing.size, dtype=np.int64)
    types[packing.flat] = queries.history_type[packing.history, column]
    shape = packing.layout.segment.shape
    batch = SequenceBatch(
        layout=packing.layout.to(device),
        items=torch.from_numpy(items.reshape(shape)).to(device),
        gaps=torch.from_numpy(gaps.reshape(shape)).to(device),
        types=torch.from_numpy(types.reshape(shape)).to(device),
        targets=torch.zeros(shape, dtype=torch.int64, device=device),
    )
    return batch, torch.from_numpy(packing.start + length).to(device)


def gap_buckets(microseconds: np.ndarray) -> np.ndarray:
    """Return the bucket of each time difference: 1 + floor(log2(1 + seconds)), int64.

    The result is at most GAP_BUCKETS - 1.
    """
    seconds = np.maximum(microseconds, 0) / 1e6
    return np.minimum(1 + np.log2(1 + seconds).astype(np.int64), GAP_BUCKETS - 1)


def next_sets(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of possible targets of the state just before each event.

    A set is the events of one user at one timestamp. The range is the user's first set strictly
    later than the previous event, or empty if there is none. For a user's first event, it is the
    user's first set.

    Returns:
        (E,) first event of the range, (E,) last event of the range + 1.
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
