"""Layers in numpy that encode a single query, for the request path.

For one query, a torch module costs mostly the overhead of its 20 to 30 calls: 1 to 2 ms. The same
arithmetic in numpy takes 0.1 to 0.2 ms. Of the last transformer block, only the last position is
computed. Results equal those of torch up to float32 rounding. The arrays share the memory of the
module's weights, so a module must be on the CPU.

Shapes: L history, W positions (L + 1, with the start), D dim, H heads.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.layers import (
    Attention,
    AttentionPool,
    FeedForward,
    GatedFeedForward,
    ItemEmbedding,
    LigrBlock,
    TransformerBlock,
)
from models.queries import Queries

Apply = Callable[[np.ndarray], np.ndarray]


def array(tensor: Tensor) -> np.ndarray:
    """Return a view of a tensor's memory."""
    return tensor.detach().numpy()


def newest_items(queries: Queries, *, max_history: int) -> tuple[np.ndarray, int]:
    """Return the newest items of a single query's history, and the column of the first of them."""
    total = int(np.count_nonzero(queries.history[0]))
    first = max(total - max_history, 0)
    return queries.history[0, first:total], first


def linear(module: nn.Linear) -> Apply:
    weight = array(module.weight).T
    if module.bias is None:
        return lambda x: x @ weight
    bias = array(module.bias)
    return lambda x: x @ weight + bias


def layer_norm(module: nn.LayerNorm) -> Apply:
    weight, bias, eps, size = (
        array(module.weight),
        array(module.bias),
        np.float32(module.eps),
        np.float32(module.normalized_shape[0]),
    )

    def apply(x: np.ndarray) -> np.ndarray:
        x = x - np.add.reduce(x, axis=-1, keepdims=True) / size
        variance = np.add.reduce(x * x, axis=-1, keepdims=True) / size
        return x / np.sqrt(variance + eps) * weight + bias

    return apply


def normalised(x: np.ndarray) -> np.ndarray:
    """Return x over its length, like `F.normalize`: (D,) -> (D,)."""
    return x / max(math.sqrt(x @ x), 1e-12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis."""
    x = np.exp(x - np.maximum.reduce(x, axis=-1, keepdims=True))
    return x / np.add.reduce(x, axis=-1, keepdims=True)


def feed_forward(module: FeedForward | GatedFeedForward) -> Apply:
    from scipy.special import erf

    up, down = linear(module.up), linear(module.down)
    if isinstance(module, GatedFeedForward):

        def gated(x: np.ndarray) -> np.ndarray:
            gate, value = np.split(up(x), 2, axis=-1)
            return down(gate * sigmoid(gate) * value)

        return gated
    root, half = np.float32(math.sqrt(0.5)), np.float32(0.5)

    def apply(x: np.ndarray) -> np.ndarray:
        x = up(x)
        return down(half * x * (1 + erf(x * root)))

    return apply


def attention_pool(module: AttentionPool) -> Apply:
    """Return the pooling of one history without padding, (L, D) -> (D,)."""
    weight, bias, recency = (
        array(module.score.weight)[0],
        array(module.score.bias),
        array(module.recency),
    )

    def apply(x: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.zeros(x.shape[1], dtype=np.float32)
        logits = x @ weight + bias + recency[len(x) - 1 :: -1]
        return softmax(logits) @ x

    return apply


def embedding(module: ItemEmbedding) -> Apply:
    """Return the embedding of (L,) item_idx, (L, D)."""
    if module.frozen is not None:
        frozen = array(module.frozen)
        return lambda items: frozen[items]

    def apply(items: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(items))).numpy()

    return apply


def attention(module: Attention) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Return causal attention: (W, D) -> (W, D), or (1, D), the last position, if asked."""
    heads = module.num_heads
    weight, bias = array(module.qkv.weight).T, array(module.qkv.bias)
    out = linear(module.out)

    def apply(x: np.ndarray, last: bool) -> np.ndarray:
        W, D = x.shape
        of_keys = (x @ weight[:, D:] + bias[D:]).reshape(W, 2, heads, D // heads)
        of_query = x[-1:] if last else x
        q = (of_query @ weight[:, :D] + bias[:D]).reshape(-1, heads, D // heads)
        k, v = of_keys.transpose(1, 2, 0, 3)  # each (H, W, D / H)
        logits = q.transpose(1, 0, 2) @ k.transpose(0, 2, 1) / np.float32(math.sqrt(D // heads))
        if not last:
            logits[:, np.triu(np.ones((W, W), dtype=bool), 1)] = -np.inf
        attended = softmax(logits) @ v
        return out(attended.transpose(1, 0, 2).reshape(-1, D))

    return apply


def block(module: nn.Module) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Return a transformer block, (W, D) -> (W, D), or (1, D), the last position, if asked."""
    assert isinstance(module, TransformerBlock | LigrBlock)
    attend, feed = attention(module.attention), feed_forward(module.feed_forward)
    before_attention = layer_norm(module.attention_norm)
    before_feed = layer_norm(module.feed_forward_norm)
    gates: Any = None
    if isinstance(module, LigrBlock):
        gates = linear(module.attention_gate), linear(module.feed_forward_gate)

    def apply(x: np.ndarray, last: bool) -> np.ndarray:
        attended = attend(before_attention(x), last)
        x = x[-1:] if last else x
        x = x + (attended if gates is None else attended * sigmoid(gates[0](x)))
        fed = feed(before_feed(x))
        return x + (fed if gates is None else fed * sigmoid(gates[1](x)))

    return apply
