"""Layers with fixed weights, so that expected numbers don't depend on a random generator."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.layers import (
    Attention,
    AttentionPool,
    Dropout,
    GatedFeedForward,
    LigrBlock,
    TransformerBlock,
    prepare,
)
from models.sequence.batches import pack
from models.sequence.bsarec import BsarecBlock, BsarecConfig
from models.sequence.simple import AverageConfig, AverageEncoder, GruConfig, GruEncoder

# Expected outputs at the first and last of three positions, computed in float64 with numpy.
GOLDEN = {
    "transformer": ([0.01333, 0.47472, 0.30922, 0.11271], [-0.76992, -0.46658, -0.13224, 0.82900]),
    "gated": ([-0.34227, -0.12081, 0.10066, 0.32212], [-0.50458, -0.16825, 0.16809, 0.50443]),
    "ligr": ([0.75200, 0.70316, 0.18350, -0.19821], [0.16835, -0.23974, -0.58898, -0.28327]),
    "bsarec": ([-0.15385, 0.46942, 0.28191, -0.23344], [-0.64795, -0.43909, -0.45689, 0.11120]),
    "gru": ([-0.97970, -0.32048, 0.33874, 0.99796], [-0.95943, -0.29966, 0.36010, 1.01987]),
    "average": ([-1.11744, -0.50449, 0.10846, 0.72141], [-0.55701, -0.22368, 0.10966, 0.44299]),
}


CAUSAL = torch.ones(1, 8, 8, dtype=torch.bool).tril()


def fix_weights(module: nn.Module) -> None:
    """Set the values of each parameter to evenly spaced numbers from -0.5 to 0.5."""
    for parameter in module.parameters():
        values = torch.linspace(-0.5, 0.5, parameter.numel())
        parameter.data = values.reshape(parameter.shape)


def fixed_input(*shape: int) -> torch.Tensor:
    return torch.linspace(-5, 5, math.prod(shape)).sin().reshape(shape)


def check_golden(name: str, module: nn.Module, *layout) -> None:
    fix_weights(module.eval())
    out = module(fixed_input(1, 3, 4), *layout)
    assert out.shape == (1, 3, 4)
    first, last = GOLDEN[name]
    torch.testing.assert_close(out[0, 0], torch.tensor(first), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[0, 2], torch.tensor(last), atol=1e-4, rtol=0)


def test_golden_numbers_of_blocks():
    mask = CAUSAL[:, :3, :3]
    sizes = {"num_heads": 2, "dropout": 0.3}
    check_golden("transformer", TransformerBlock(4, hidden=8, **sizes), mask)
    check_golden("ligr", LigrBlock(4, hidden=6, **sizes), mask)
    check_golden("gated", GatedFeedForward(4, hidden=6, dropout=0.3))


def test_golden_numbers_of_a_bsarec_block():
    """The expected low-pass part is a Fourier transform of six positions, padded on the left."""
    config = BsarecConfig(
        embedding_dim=4, max_history=5, num_heads=2, hidden_factor=2, num_frequencies=2
    )
    check_golden("bsarec", BsarecBlock(config), pack(np.array([2]), width=3).layout)


def test_golden_numbers_of_the_gru_and_the_average():
    layout = pack(np.array([2]), width=3).layout
    check_golden("gru", GruEncoder(GruConfig(embedding_dim=4)), layout)
    check_golden("average", AverageEncoder(AverageConfig(embedding_dim=4)), layout)


def test_attention_by_hand_and_causal():
    attention = Attention(2, num_heads=1)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(2).repeat(3, 1))  # q = k = v = x
        attention.qkv.bias.zero_()
        attention.out.weight.copy_(torch.eye(2))
        attention.out.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    out = attention(x, CAUSAL[:, :2, :2])
    torch.testing.assert_close(out[0, 0], x[0, 0])  # the first position attends only to itself
    own, other = math.exp(4 / math.sqrt(2)), math.exp(0)
    expected = torch.tensor([other / (own + other), 2 * own / (own + other)])
    torch.testing.assert_close(out[0, 1], expected)


def test_attention_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="embedding_dim 6 is not a multiple of num_heads 4"):
        Attention(6, num_heads=4)


def test_attention_pool_is_a_mean_until_it_has_learned_otherwise():
    pool = AttentionPool(2, max_length=3)
    with torch.no_grad():
        pool.score.weight.zero_()
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pool(x, mask), torch.tensor([[2.0, 4.0]]))
    with torch.no_grad():
        pool.recency[0] = math.log(3)  # the newest counts three times
    torch.testing.assert_close(pool(x, mask), torch.tensor([[2.5, 5.0]]))


def test_attention_pool_of_nothing_is_zero_with_finite_gradients():
    pool = AttentionPool(2, max_length=3)
    x = torch.ones(1, 3, 2, requires_grad=True)
    out = pool(x, torch.zeros(1, 3, dtype=torch.bool))
    out.sum().backward()
    torch.testing.assert_close(out, torch.zeros(1, 2))
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(pool.recency.grad).all()


def test_dropout_keeps_the_mean_and_draws_from_its_own_generator():
    dropout = Dropout(0.25)
    dropout.generator = torch.Generator().manual_seed(0)
    x = torch.ones(200, 500)
    out = dropout(x)
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    dropout.generator.manual_seed(0)
    torch.manual_seed(5)
    torch.testing.assert_close(dropout(x), out)
    torch.testing.assert_close(dropout.eval()(x), x)


def test_prepare_draws_everything_from_the_generator():
    def weights(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        model = nn.Sequential(nn.Embedding(5, 4), nn.GRU(4, 4), nn.Linear(4, 2), Dropout(0.5))
        generator = torch.Generator().manual_seed(7)
        prepare(model, generator)
        assert model[3].generator is generator
        return [parameter.detach() for parameter in model.parameters()]

    for first, second in zip(weights(1), weights(2), strict=True):
        torch.testing.assert_close(first, second)
