"""The training loop, tested with linear regression."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.training import (
    OptimiserConfig,
    TrainingError,
    TrainingOptions,
    limited_threads,
    train,
)

X = torch.linspace(-1, 1, 16)[:, None]


def fit(
    validate,
    *,
    seed: int = 0,
    lines: list[str] | None = None,
    batches=None,
    epochs: int | None = None,
    **config,
):
    """Fit y = 3 x with one weight; `validate` gets the model and returns the validation metric."""
    options = TrainingOptions(seed=seed, epochs=epochs)
    model = nn.Linear(1, 1, bias=False)
    nn.init.normal_(model.weight, generator=options.generator("weights"))
    rng = options.rng("batches")

    def shuffled(epoch: int):
        order = torch.from_numpy(rng.permutation(16))
        return order.split(4)

    history = train(
        model,
        batches or shuffled,
        name="line",
        loss=lambda rows: ((model(X[rows]) - 3 * X[rows]) ** 2).mean(),
        config=OptimiserConfig(**{"learning_rate": 0.1, "warmup_steps": 0} | config),
        validate=lambda: validate(model),
        options=options,
        about={},
        progress=(lines if lines is not None else []).append,
    )
    return model, history


def test_learns_and_tells_each_epoch():
    lines: list[str] = []
    model, history = fit(
        lambda m: -abs(m.weight.item() - 3), lines=lines, num_epochs=40, patience=40
    )
    assert model.weight.item() == pytest.approx(3, abs=0.05)
    assert history.losses[-1] < history.losses[0] / 100
    assert len(lines) == history.epochs == 40
    assert lines[0].startswith("line: epoch 1/40 loss ")
    assert "validation ndcg" in lines[0]
    assert not model.training


@pytest.mark.parametrize("optimiser", [{}, {"schedule": "cosine", "average_decay": 0.9}])
def test_frozen_epochs_give_the_weights_that_validation_chose(optimiser):
    figures = iter([0.1, 0.5, 0.9, 0.2, 0.3])
    chosen, history = fit(lambda m: next(figures), num_epochs=12, patience=2, **optimiser)
    assert (history.best_epoch, history.epochs) == (3, 5)

    def never(model):
        raise AssertionError("a refit doesn't validate")

    again, refitted = fit(never, num_epochs=12, patience=2, epochs=3, **optimiser)
    assert (refitted.best_epoch, refitted.epochs) == (3, 3)
    assert again.weight.item() == chosen.weight.item()


def test_stops_early_and_keeps_the_best_weights():
    figures = iter([0.1, 0.5, 0.3, 0.5, 0.2, 0.9])
    weights = []

    def validate(model) -> float:
        assert not model.training
        weights.append(model.weight.item())
        return next(figures)

    model, history = fit(validate, num_epochs=30, patience=3)
    assert (history.epochs, history.best_epoch, history.best_ndcg) == (5, 2, 0.5)
    assert model.weight.item() == weights[1] != weights[-1]


def test_without_validation_the_last_weights_are_kept():
    _, history = fit(lambda m: math.nan, num_epochs=7, patience=1)
    assert (history.epochs, history.best_epoch) == (7, 7)
    assert math.isnan(history.best_ndcg)


def test_the_seed_decides_everything():
    def run(seed: int, global_seed: int):
        torch.manual_seed(global_seed)
        model, history = fit(lambda m: 0.0, seed=seed, num_epochs=3, patience=9)
        return model.weight.item(), history.losses

    assert run(1, 10) == run(1, 20)
    assert run(1, 10) != run(2, 10)


def test_warms_up_and_clips():
    steps = []

    def validate(model) -> float:
        steps.append(model.weight.item())
        return 0.0

    one_batch = lambda epoch: [torch.arange(16)]  # noqa: E731
    config = {"num_epochs": 3, "patience": 9, "learning_rate": 0.04, "warmup_steps": 3}
    fit(validate, batches=one_batch, **config)
    # While the gradient keeps its sign, a step of Adam is as long as the learning rate.
    first, second = steps[1] - steps[0], steps[2] - steps[1]
    assert abs(first) == pytest.approx(0.04 * 2 / 4, rel=0.05)
    assert abs(second) == pytest.approx(0.04 * 3 / 4, rel=0.05)


def test_the_cosine_ends_with_the_epochs_or_with_the_time_whatever_is_sooner():
    config = OptimiserConfig(learning_rate=1.0, warmup_steps=0, schedule="cosine", num_epochs=10)
    half = 0.05 + 0.95 / 2
    assert config.rate(step=9, epoch=5) == pytest.approx(half)
    assert config.rate(step=9, epoch=1, time_spent=0.5) == pytest.approx(half)
    assert config.rate(step=9, epoch=5, time_spent=0.1) == pytest.approx(half)
    assert config.rate(step=9, epoch=1, time_spent=1.7) == pytest.approx(0.05)


def test_names_what_went_wrong():
    """An epoch without batches and a loss that isn't finite give clear errors."""
    with pytest.raises(TrainingError, match="line: epoch 1 had no batch"):
        fit(lambda m: 0.0, batches=lambda epoch: [])
    with pytest.raises(TrainingError, match=r"loss is (inf|nan) in epoch .* learning_rate below"):
        fit(lambda m: 0.0, learning_rate=1e30, num_epochs=30, patience=30)


def test_streams_have_names():
    """Random streams are reproducible by their name, and independent of each other."""
    options = TrainingOptions(seed=4)
    draws = {name: tuple(options.rng(name).integers(1000, size=4)) for name in ("a", "b")}
    assert draws["a"] != draws["b"]
    assert tuple(options.rng("a").integers(1000, size=4)) == draws["a"]
    first = torch.rand(3, generator=options.generator("a"))
    torch.testing.assert_close(torch.rand(3, generator=options.generator("a")), first)
    assert not np.allclose(torch.rand(3, generator=options.generator("b")), first)


def test_threads_are_limited_inside_only():
    """`limited_threads` restores the number of threads after its block."""
    before = torch.get_num_threads()
    with limited_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with limited_threads(0):
        assert torch.get_num_threads() == before
