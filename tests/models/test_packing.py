"""Packed rows hold each history exactly once, and layouts describe them correctly."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sequence.batches import pack
from models.sequence.bsarec import FrequencyFilter, low_pass

lengths_strategy = st.lists(st.integers(0, 12), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(lengths_strategy, st.integers(13, 20))
def test_every_history_stands_once_and_whole(lengths, width):
    places = pack(np.array(lengths), width=width)
    layout = places.layout
    assert layout.segment.shape[1] == width
    taken = np.concatenate([places.start, places.flat])
    assert len(np.unique(taken)) == len(taken) == sum(lengths) + len(lengths)
    assert int((layout.segment > 0).sum()) == len(taken)
    position, segment = layout.position.ravel().numpy(), layout.segment.ravel().numpy()
    for history, length in enumerate(lengths):
        own = np.append(places.start[history], places.flat[places.history == history])
        assert own.tolist() == list(range(own[0], own[0] + length + 1))
        assert own[0] // width == own[-1] // width
        assert position[own].tolist() == list(range(length + 1))
        assert len(set(segment[own])) == 1
    for row in layout.segment.numpy():
        # Segment numbers increase from 1, and only the end of a row is padding.
        real = row[row > 0]
        assert (row[: len(real)] == real).all()
        assert (np.diff(real) >= 0).all()
        assert real[0] == 1


@settings(max_examples=40, deadline=None)
@given(lengths_strategy)
def test_the_mask_lets_through_the_own_past_only(lengths):
    layout = pack(np.array(lengths), width=13).layout
    for segment, position, mask in zip(
        layout.segment.numpy(), layout.position.numpy(), layout.mask.numpy(), strict=True
    ):
        for i in np.flatnonzero(segment):
            seen = np.flatnonzero(mask[i])
            assert (segment[seen] == segment[i]).all()
            assert position[seen].tolist() == list(range(position[i] + 1))
        assert mask.any(1).all()  # each softmax has at least one entry


@settings(max_examples=40, deadline=None)
@given(lengths_strategy)
def test_unpacked_gives_each_history_its_places(lengths):
    places = pack(np.array(lengths), width=13)
    flat, length = places.layout.unpacked
    own = {int(row[0]): row[: int(n)].tolist() for row, n in zip(flat, length, strict=True)}
    for history, start in enumerate(places.start):
        events = places.flat[places.history == history].tolist()
        assert own[int(start)] == [int(start), *events]
    assert len(own) == len(lengths)


def test_dense_packing():
    """Less than 15% of a batch is padding, with history lengths distributed as in Amazon Beauty."""
    lengths = np.minimum(np.random.default_rng(0).geometric(0.2, size=256), 50)
    places = pack(lengths, width=51)
    assert len(places.flat) + len(lengths) > 0.85 * places.size


def test_the_filter_is_the_transform_at_the_newest_position():
    """At the newest position, the filter equals the Fourier transform of the paper.

    The paper keeps the lowest frequencies of a row that is padded on the left.
    """
    rng = np.random.default_rng(1)
    width, history, kept = 12, 7, 3
    layout = pack(np.array([history - 1]), width=width).layout
    x = torch.zeros(1, width, 2, dtype=torch.float32)
    x[0, :history] = torch.from_numpy(rng.normal(size=(history, 2)))
    filtered = FrequencyFilter(2, length=width, num_frequencies=kept)
    with torch.no_grad():
        filtered.fast.copy_(torch.tensor([0.0, 0.5]))
        out = filtered(x, layout)[0, history - 1].numpy()
    padded = np.zeros((width, 2))
    padded[-history:] = x[0, :history].numpy()  # the paper pads on the left
    waves = np.fft.rfft(padded, axis=0)
    waves[kept:] = 0
    slow = np.fft.irfft(waves, n=width, axis=0)[-1]
    expected = slow + np.array([0.0, 0.25]) * (padded[-1] - slow)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_all_waves_let_everything_through():
    """A low-pass filter that keeps all frequencies is the identity."""
    weight = low_pass(9, num_frequencies=5)
    torch.testing.assert_close(weight, torch.eye(9)[0], atol=1e-6, rtol=0)
