"""Losses, compared with direct computations of their definitions."""

import math

import numpy as np
import pytest
import torch

from models import losses
from models.losses import (
    binary_cross_entropy,
    calibrated_binary_cross_entropy,
    full_softmax,
    sampled_softmax,
    shared_softmax,
)
from models.sampling import MixedNegatives, draw_distinct


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    queries = torch.from_numpy(rng.normal(size=(5, 4)))
    items = torch.from_numpy(rng.normal(size=(8, 4)))
    return queries, items


def test_full_softmax_is_minus_log_probability_without_padding(numbers):
    queries, items = numbers
    targets = [3, 1, 7, 7, 2]
    expected = 0.0
    for query, target in zip(queries, targets, strict=True):
        powers = [math.exp(float(query @ items[i])) for i in range(1, 8)]
        expected -= math.log(powers[target - 1] / sum(powers)) / 5
    assert full_softmax(queries, items, torch.tensor(targets)).item() == pytest.approx(expected)


@pytest.mark.parametrize("chunk_bytes", [1, 3 * 7 * 8, 1 << 20])
def test_full_softmax_in_chunks_has_the_loss_and_gradients_of_torchs(
    numbers, monkeypatch, chunk_bytes
):
    """Chunks of one, three and all predictions equal the cross-entropy of all logits."""
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk_bytes)
    targets = torch.tensor([3, 1, 7, 7, 2])
    bias = torch.linspace(-1, 1, 8, dtype=torch.float64)
    ours = [x.clone().requires_grad_() for x in (*numbers, bias)]
    theirs = [x.clone().requires_grad_() for x in (*numbers, bias)]
    loss = full_softmax(ours[0], ours[1], targets, bias=ours[2])
    expected = torch.nn.functional.cross_entropy(
        theirs[0] @ theirs[1][1:].T + theirs[2][1:], targets - 1
    )
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)
    with torch.no_grad():
        torch.testing.assert_close(full_softmax(*ours[:2], targets, bias=ours[2]), expected)


def test_full_softmax_survives_a_hopeless_target():
    """Extreme logits give a finite loss and the right gradient."""
    queries = torch.tensor([[200.0]], requires_grad=True)
    items = torch.tensor([[0.0], [1.0], [-1.0]])
    loss = full_softmax(queries, items, torch.tensor([2]))
    loss.backward()
    assert math.isfinite(loss.item())
    # A gradient step moves away from item 1 and towards item 2.
    assert queries.grad.item() == pytest.approx(2.0)


def test_gbce_by_hand_and_uncalibrated_it_is_plain():
    def minus_log_sigmoid(x: float) -> float:
        return math.log(1 + math.exp(-x))

    positive, negative = torch.tensor([2.0]), torch.tensor([[0.5, -1.0]])
    # 2 of 9 negatives are drawn, so the rate is 2/9 and beta = 2/9 (t (1 - 9/2) + 9/2).
    beta = 2 / 9 * (0.75 * (1 - 4.5) + 4.5)
    expected = beta * minus_log_sigmoid(2.0) + minus_log_sigmoid(-0.5) + minus_log_sigmoid(1.0)
    loss = calibrated_binary_cross_entropy(positive, negative, num_items=10, calibration=0.75)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    plain = calibrated_binary_cross_entropy(positive, negative, num_items=10, calibration=0.0)
    assert plain.item() == pytest.approx(binary_cross_entropy(positive, negative).item())


def test_sampled_softmax_is_weighted_and_masks_accidental_hits():
    positive, negative = torch.tensor([1.0, 0.5]), torch.tensor([[0.2, 1.0, -1.0]] * 2)
    log_expected = torch.tensor([0.1, 0.7, -0.3])
    # Row 0 masks negative 4, its own positive. Negative 0 is padding. Row 1 keeps 6 and 4.
    loss = sampled_softmax(
        positive, negative, torch.tensor([4, 5]), torch.tensor([6, 4, 0]), log_expected
    )
    first_partition = math.exp(0.2 - 0.1)
    second_partition = math.exp(0.2 - 0.1) + math.exp(1.0 - 0.7)
    first_p = math.exp(1.0) / (math.exp(1.0) + first_partition)
    second_p = math.exp(0.5) / (math.exp(0.5) + second_partition)
    first = (1 - first_p) * (math.log(first_partition) - 1.0)
    second = (1 - second_p) * (math.log(second_partition) - 0.5)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_shared_softmax_is_sampled_softmax_with_uniform_draws(numbers):
    """The one-pass implementation has the loss and gradients of the general one."""
    targets, negatives = torch.tensor([3, 1, 7, 7, 2]), torch.tensor([1, 2, 4, 7])
    bias = torch.linspace(-1, 1, 8, dtype=torch.float64)
    ours = [x.clone().requires_grad_() for x in (*numbers, bias)]
    theirs = [x.clone().requires_grad_() for x in (*numbers, bias)]
    loss = shared_softmax(ours[0], ours[1], targets, negatives, bias=ours[2])
    expected = sampled_softmax(
        (theirs[0] * theirs[1][targets]).sum(1) + theirs[2][targets],
        theirs[0] @ theirs[1][negatives].T + theirs[2][negatives],
        targets,
        negatives,
        torch.full((4,), math.log(4 / 7), dtype=torch.float64),
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_distinct_draws_are_ascending_alike_likely_and_end_with_the_catalogue():
    generator = torch.Generator().manual_seed(3)
    count = torch.zeros(6)
    for _ in range(600):
        drawn = draw_distinct(2, num_items=5, generator=generator)
        assert drawn[0] < drawn[1]
        count[drawn] += 1
    assert count[0] == 0
    # In 600 draws of 2 of 5 items, each item is expected 240 times, with a deviation of 12.
    assert ((count[1:] - 240).abs() < 48).all()
    assert draw_distinct(9, num_items=5, generator=generator).tolist() == [1, 2, 3, 4, 5]


def test_a_row_without_negatives_has_no_loss_and_no_gradient():
    positive = torch.tensor([0.3], requires_grad=True)
    loss = sampled_softmax(
        positive, torch.zeros(1, 2), torch.tensor([4]), torch.tensor([4, 0]), torch.zeros(2)
    )
    loss.backward()
    assert loss.item() == 0
    assert positive.grad.item() == 0


def test_with_every_other_item_as_negative_the_gradient_is_that_of_full_softmax(numbers):
    queries, items = numbers
    targets = torch.tensor([3, 1, 7, 7, 2])
    items_full = items.clone().requires_grad_()
    full_softmax(queries, items_full, targets).backward()
    items_sampled = items.clone().requires_grad_()
    every = torch.arange(8)
    sampled_softmax(
        (queries * items_sampled[targets]).sum(1),
        queries @ items_sampled.T,
        targets,
        every,
        torch.zeros(8),
    ).backward()
    torch.testing.assert_close(items_sampled.grad, items_full.grad)


def test_mixed_negatives_with_logq_estimate_the_full_gradient(numbers):
    """With logQ correction, the mean gradient over many draws equals that of the full softmax.

    The targets are mostly popular items, so the uncorrected gradient is biased.
    """
    queries, items = numbers
    counts = torch.tensor([0, 50, 20, 10, 8, 6, 4, 2])
    targets = torch.multinomial(
        counts.double(), 256, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    users = queries[torch.arange(256) % 5]
    items_full = items.clone().requires_grad_()
    full_softmax(users, items_full, targets).backward()
    sampler = MixedNegatives(
        torch.bincount(targets, minlength=8),
        num_uniform=64,
        generator=torch.Generator().manual_seed(2),
    )
    total = torch.zeros_like(items)
    biased = torch.zeros_like(items)
    for _ in range(40):
        for gradient, corrected in ((total, True), (biased, False)):
            items_sampled = items.clone().requires_grad_()
            negatives, log_expected = sampler.draw(targets)
            sampled_softmax(
                (users * items_sampled[targets]).sum(1),
                users @ items_sampled[negatives].T,
                targets,
                negatives,
                log_expected if corrected else torch.zeros_like(log_expected),
            ).backward()
            gradient += items_sampled.grad / 40
    wrong = (total - items_full.grad).abs().max()
    assert wrong < 0.05 * items_full.grad.abs().max()
    assert wrong < (biased - items_full.grad).abs().max() / 4


def test_mixed_negatives_expect_what_they_draw():
    sampler = MixedNegatives(
        torch.tensor([0, 6, 3, 1]), num_uniform=30, generator=torch.Generator().manual_seed(0)
    )
    negatives, log_expected = sampler.draw(torch.tensor([1, 1, 2, 3]))
    assert negatives[:4].tolist() == [1, 1, 2, 3]
    assert len(negatives) == 34
    assert set(negatives[4:].tolist()) == {1, 2, 3}
    # Expected counts: 4 positives with the shares 6/10, 3/10 and 1/10, plus 30 uniform draws of 3
    # items.
    expected = {1: 4 * 0.6 + 10, 2: 4 * 0.3 + 10, 3: 4 * 0.1 + 10}
    for item, value in zip(negatives.tolist(), log_expected.tolist(), strict=True):
        assert math.exp(value) == pytest.approx(expected[item], rel=1e-5)


def test_binary_cross_entropy_by_hand():
    def minus_log_sigmoid(x: float) -> float:
        return math.log(1 + math.exp(-x))

    loss = binary_cross_entropy(torch.tensor([2.0, -1.0]), torch.tensor([[0.0], [3.0]]))
    first = minus_log_sigmoid(2.0) + minus_log_sigmoid(-0.0)
    second = minus_log_sigmoid(-1.0) + minus_log_sigmoid(-3.0)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("loss", ["full", "shared"])
def test_under_half_precision_a_loss_is_that_of_float32(loss, with_bias):
    """The encoder may output bfloat16 states; the loss is still computed in float32."""
    rng = torch.Generator().manual_seed(0)
    states = torch.randn(6, 4, generator=rng).to(torch.bfloat16)
    table, bias = torch.randn(9, 4, generator=rng), torch.randn(9, generator=rng)
    targets, negatives = torch.tensor([1, 8, 3, 3, 5, 2]), torch.tensor([2, 5, 7])

    def run(queries: torch.Tensor) -> tuple[float, torch.Tensor]:
        items = table.clone().requires_grad_()
        given = {"bias": bias} if with_bias else {}
        value = (
            full_softmax(queries, items, targets, **given)
            if loss == "full"
            else shared_softmax(queries, items, targets, negatives, **given)
        )
        value.backward()
        assert items.grad is not None
        return value.item(), items.grad

    want, slope = run(states.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, same_slope = run(states.requires_grad_())
    assert got == pytest.approx(want, rel=1e-6)
    torch.testing.assert_close(same_slope, slope)
    assert states.grad is not None
    assert states.grad.dtype == torch.bfloat16
