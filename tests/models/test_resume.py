"""A training resumed from a checkpoint equals an uninterrupted one bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import CheckpointError
from models.sequence.fit import train_sequence
from models.sequence.sasrec import SasrecConfig
from models.training import OptimiserConfig, TrainingOptions


class CutOff(Exception):
    """Raised to simulate a killed process."""


def fit(
    small_world, *, checkpoints: Path | None, cut_at: int | None = None, loss=None, **optimiser
):
    """Train a small SASRec for four epochs with all options that keep state between epochs.

    Validation returns given nDCG values that fall and then rise.

    Args:
        cut_at: epoch in whose validation CutOff is raised, as if the process was killed.
    """
    config = SasrecConfig(
        embedding_dim=8,
        max_history=12,
        loss=loss or "sampled_softmax",
        num_negatives=16,
        optimiser=OptimiserConfig(
            **{
                "learning_rate": 1e-2,
                "num_epochs": 4,
                "patience": 9,
                "schedule": "cosine",
                "average_decay": 0.9,
            }
            | optimiser
        ),
    )
    epochs: list[str] = []

    def validate(model) -> float:
        nth = len(epochs) + (2 if cut_at is None and resumed else 0)
        if cut_at is not None and nth == cut_at:
            raise CutOff
        return (0.3, 0.1, 0.2, 0.25)[nth]

    resumed = checkpoints is not None and (checkpoints / "sasrec.safetensors").exists()
    return train_sequence(
        config,
        small_world[0],
        validate=validate,
        options=TrainingOptions(seed=5, num_threads=1, checkpoints=checkpoints),
        progress=epochs.append,
    )


def test_a_resumed_training_equals_an_uninterrupted_one(small_world, tmp_path):
    model, history = fit(small_world, checkpoints=None)
    with pytest.raises(CutOff):
        fit(small_world, checkpoints=tmp_path, cut_at=2)  # the checkpoint has two epochs
    again, resumed = fit(small_world, checkpoints=tmp_path)
    assert resumed.losses == history.losses
    assert resumed.figures == history.figures == (0.3, 0.1, 0.2, 0.25)
    assert (resumed.epochs, resumed.best_epoch) == (4, 1)
    for (name, own), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other), name


def test_a_finished_training_is_not_trained_again(small_world, tmp_path):
    model, history = fit(small_world, checkpoints=tmp_path)
    stamp = (tmp_path / "sasrec.safetensors").stat().st_mtime_ns
    again, loaded = fit(small_world, checkpoints=tmp_path)
    assert loaded == history
    assert (tmp_path / "sasrec.safetensors").stat().st_mtime_ns == stamp
    assert torch.equal(model.embed.id.weight, again.embed.id.weight)


def test_a_checkpoint_of_another_training_is_refused(small_world, tmp_path):
    fit(small_world, checkpoints=tmp_path, num_epochs=1)
    wanted = r"sasrec.safetensors: belongs to another training \(config.optimiser.learning_rate is"
    with pytest.raises(CheckpointError, match=wanted):
        fit(small_world, checkpoints=tmp_path, num_epochs=1, learning_rate=3e-3)
    wanted = r"\(config.loss is 'sampled_softmax', here 'bce'\)"
    with pytest.raises(CheckpointError, match=wanted):
        fit(small_world, checkpoints=tmp_path, num_epochs=1, loss="bce")


def test_a_checkpoint_of_other_data_is_refused(small_world, tmp_path):
    fit(small_world, checkpoints=tmp_path, num_epochs=1)
    data = small_world[0]
    swapped = data.item_idx.copy()
    swapped[[0, 1]] = swapped[[1, 0]]  # the same events in another order
    other = replace(data, item_idx=swapped)
    with pytest.raises(CheckpointError, match=r"another training \(data.events is '\w+', here"):
        fit((other, small_world[1]), checkpoints=tmp_path, num_epochs=1)
    other = replace(data, user_ids=[f"other {user}" for user in data.user_ids])
    with pytest.raises(CheckpointError, match=r"\(data.users is '\w+', here"):
        fit((other, small_world[1]), checkpoints=tmp_path, num_epochs=1)


def test_the_average_of_the_weights_is_judged_and_kept(small_world):
    """With averaging, validation uses and training returns the averaged weights.

    The best epoch is the first one with and without averaging, but the weights differ.
    """
    plain, first = fit(small_world, checkpoints=None, average_decay=0.0)
    averaged, second = fit(small_world, checkpoints=None)
    assert first.best_epoch == second.best_epoch == 1
    assert not torch.equal(plain.embed.id.weight, averaged.embed.id.weight)
