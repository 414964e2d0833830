"""Each loss falls in training, with negatives per position or shared by the batch."""

import math

import numpy as np
import pytest

from models.sequence.fit import train_sequence
from models.sequence.sasrec import SasrecConfig
from models.training import OptimiserConfig, TrainingOptions

SAMPLED = ("sampled_softmax", "gbce", "bce")


def fit(small_world, **settings):
    """Train for two epochs; the loss of the second shows whether the first improved the model."""
    config = SasrecConfig(
        embedding_dim=16,
        max_history=20,
        batch_size=8,
        num_negatives=16,
        optimiser=OptimiserConfig(learning_rate=5e-3, warmup_steps=0, num_epochs=2),
        **settings,
    )
    return train_sequence(
        config,
        small_world[0],
        validate=lambda model: math.nan,
        options=TrainingOptions(seed=2, num_threads=1),
        progress=lambda line: None,
    )


@pytest.mark.parametrize("temperature", [0, 0.2])
@pytest.mark.parametrize(
    ("loss", "shared"),
    [("full_softmax", True), *((loss, shared) for loss in SAMPLED for shared in (True, False))],
)
def test_an_epoch_of_each_loss_teaches(small_world, loss, shared, temperature):
    settings = {"loss": loss, "shared_negatives": shared, "temperature": temperature}
    model, history = fit(small_world, **settings)
    first, second = history.losses
    assert second < first - 0.05
    vectors = model.item_vectors().detach().numpy()
    if temperature:  # scores are cosines of unit vectors, without a bias
        np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, rtol=1e-5)
    assert vectors.shape[1] == (16 if temperature else 17)


@pytest.mark.parametrize("loss", ["gbce"])
def test_shared_negatives_are_another_training(small_world, loss):
    """The setting `shared_negatives` has an effect on training."""
    _, shared = fit(small_world, loss=loss)
    _, own = fit(small_world, loss=loss, shared_negatives=False)
    assert shared.losses != own.losses
