"""Layers with fixed weights, so that the numbers do not hang on a random generator."""

import math

import pytest
import torch
from torch import nn

from models.layers import Attention, AttentionPool, Dropout, TransformerBlock, prepare

# The same block written out in numpy, in float64.
GOLDEN_FIRST = [0.01333, 0.47472, 0.30922, 0.11271]
GOLDEN_LAST = [-0.76992, -0.46658, -0.13224, 0.82900]


CAUSAL = torch.ones(1, 8, 8, dtype=torch.bool).tril()


def fix_weights(module: nn.Module) -> None:
    """Weights that rise evenly from -0.5 to 0.5, in the order of the parameters."""
    for parameter in module.parameters():
        values = torch.linspace(-0.5, 0.5, parameter.numel())
        parameter.data = values.reshape(parameter.shape)


def fixed_input(*shape: int) -> torch.Tensor:
    return torch.linspace(-5, 5, math.prod(shape)).sin().reshape(shape)


def test_transformer_block_golden_numbers():
    block = TransformerBlock(4, num_heads=2, hidden=8, dropout=0.3).eval()
    fix_weights(block)
    out = block(fixed_input(1, 3, 4), CAUSAL[:, :3, :3])
    assert out.shape == (1, 3, 4)
    torch.testing.assert_close(out[0, 0], torch.tensor(GOLDEN_FIRST), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[0, 2], torch.tensor(GOLDEN_LAST), atol=1e-4, rtol=0)


def test_attention_by_hand_and_causal():
    attention = Attention(2, num_heads=1)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.eye(2).repeat(3, 1))  # q = k = v = x
        attention.qkv.bias.zero_()
        attention.out.weight.copy_(torch.eye(2))
        attention.out.bias.zero_()
    x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    out = attention(x, CAUSAL[:, :2, :2])
    torch.testing.assert_close(out[0, 0], x[0, 0])  # the first position sees itself only
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
