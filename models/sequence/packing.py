"""Several histories side by side in one row, so that almost no position is padding.

Shapes: S histories, R rows, W positions a row, T = R * W. Each history takes one position for its
start (nothing seen yet) and one for each event; a layout says which position belongs to whom, and
an encoder that keeps to it treats each history as if it stood alone.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


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
