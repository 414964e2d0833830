"""Loss functions of candidate sources (models that retrieve candidates) and rankers.

Shapes: M predictions, D dim, N items, K negatives; B requests, C candidates. Item 0 is padding and
is excluded from all losses.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 1 << 23
"""Size in bytes of a chunk of logits on a CPU. 8 MB fit into the last-level cache; with chunks of
64 MB, the loss takes a third longer on the Amazon Beauty data set.
"""
CHUNK_BYTES_GPU = 1 << 29
"""Size in bytes of a chunk of logits on a GPU."""


def full_softmax(
    queries: Tensor, items: Tensor, targets: Tensor, *, bias: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of the targets over the whole catalogue.

    Computes loss and gradients together, one chunk of predictions at a time. Only one chunk of the
    (M, N) logits exists at a time, so memory doesn't grow with M * N.

    Args:
        queries: (M, D).
        items: (N + 1, D); row 0 is excluded from the softmax.
        targets: (M,) int64 item_idx, from 1.
        bias: (N + 1,) added to each item's logit.

    Returns:
        Scalar, mean over predictions.
    """
    with _without_autocast(queries):
        return _FullSoftmax.apply(  # pyright: ignore
            _as_float32(queries),
            _as_float32(items),
            targets,
            None if bias is None else _as_float32(bias),
        )


def _without_autocast(like: Tensor) -> torch.autocast:
    """Return a context without autocast: sums over the catalogue need float32, not bfloat16."""
    return torch.autocast(like.device.type, enabled=False)


def _as_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class _FullSoftmax(torch.autograd.Function):
    """Autograd function of `full_softmax`. The forward pass also computes the gradients.

    Each chunk takes one softmax and three matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, items: Tensor, targets: Tensor, bias: Tensor | None
    ) -> Tensor:
        real, place = items[1:], targets - 1
        M, N = len(queries), len(real)
        limit = CHUNK_BYTES if queries.device.type == "cpu" else CHUNK_BYTES_GPU
        chunk = max(1, min(M, limit // (N * queries.element_size())))
        total = queries.new_zeros(())
        with_gradients = any(ctx.needs_input_grad)
        grad_queries = torch.empty_like(queries)
        grad_items = torch.zeros_like(items)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        buffer = queries.new_empty(chunk, N)
        for start in range(0, M, chunk):
            q, t = queries[start : start + chunk], place[start : start + chunk, None]
            logits = buffer[: len(q)]
            if bias is None:
                torch.mm(q, real.T, out=logits)
            else:
                torch.addmm(bias[1:], q, real.T, out=logits)
            if not with_gradients:
                picked = logits.gather(1, t)
                total += (logits.logsumexp(1, keepdim=True) - picked).sum()
                continue
            p = torch.softmax(logits, 1, out=logits)
            # Reusing p is cheaper than another pass for logsumexp. The clamp keeps the loss finite
            # if p underflows to 0.
            total -= p.gather(1, t).log().clamp(min=-80).sum()
            p.scatter_add_(1, t, torch.full_like(t, -1, dtype=p.dtype))
            torch.mm(p, real, out=grad_queries[start : start + chunk])
            grad_items[1:].addmm_(p.T, q)
            if grad_bias is not None:
                grad_bias[1:] += p.sum(0)
        ctx.save_for_backward(grad_queries, grad_items, grad_bias)
        ctx.count = max(M, 1)
        return total / ctx.count

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_queries, grad_items, grad_bias = ctx.saved_tensors
        scale = grad_outputs[0] / ctx.count
        return (
            grad_queries * scale,
            grad_items * scale,
            None,
            None if grad_bias is None else grad_bias * scale,
        )


def sampled_softmax(
    positive_scores: Tensor,
    negative_scores: Tensor,
    positives: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """Return the softmax loss over sampled negatives with the logQ correction.

    The correction makes the sum over negatives an unbiased estimate of the sum over all other
    items. It doesn't apply to the positive. Each prediction has the weight 1 - p, where p is the
    positive's estimated probability. The gradient is then an estimate of that of the full softmax.
    Negatives equal to the row's positive (accidental hits) are masked.

    Sources: Yi et al. 2019 (logQ); Khrylchenko et al. 2025, "Correcting the LogQ Correction".

    Args:
        positive_scores: (M,).
        negative_scores: (M, K).
        positives: (M,) int64 item_idx.
        negatives: int64 item_idx, (K,) shared by all rows or (M, K); 0 is masked.
        log_expected: log of the expected number of draws of each negative; shape of `negatives`.

    Returns:
        Scalar, mean over predictions.
    """
    masked = (negatives == positives[:, None]) | (negatives == 0)
    # Not -inf, which gives NaN if all negatives of a row are masked. With -1e4, p is 1 in such a
    # row, so its weight is 0.
    partition = (negative_scores - log_expected).masked_fill(masked, -1e4).logsumexp(1)
    p = torch.sigmoid(positive_scores - partition).detach()
    return ((1 - p) * (partition - positive_scores)).mean()


def shared_softmax(
    queries: Tensor,
    items: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """Return the `sampled_softmax` loss for one uniform sample of negatives, shared by all rows.

    Each negative represents N / K items, so the logQ correction is the same for all. This saves the
    large intermediate arrays of `sampled_softmax`.

    Args:
        queries: (M, D).
        items: (N + 1, D); row 0 is padding.
        targets: (M,) int64 item_idx, from 1.
        negatives: (K,) int64 item_idx, from 1, ascending and distinct.
        bias: (N + 1,) added to each item's score.

    Returns:
        Scalar, mean over predictions.
    """
    with _without_autocast(queries):
        queries, items = _as_float32(queries), _as_float32(items)
        positive = (queries * F.embedding(targets, items)).sum(1)
        drawn = F.embedding(negatives, items)
        drawn_bias = None if bias is None else _as_float32(bias[negatives])
        if bias is not None:
            positive = positive + _as_float32(bias[targets])
        place = torch.searchsorted(negatives, targets).clamp(max=len(negatives) - 1)
        hit = torch.nonzero(negatives[place] == targets).ravel()
        log_expected = math.log(len(negatives) / (len(items) - 1))
        partition = _LogPartition.apply(queries, drawn, drawn_bias, hit, place[hit])
        partition = partition - log_expected
        p = torch.sigmoid(positive - partition).detach()
        return ((1 - p) * (partition - positive)).mean()


class _LogPartition(torch.autograd.Function):
    """Log partition function (M,) of logits (M, K) = queries (M, D) @ items (K, D).T + bias (K,).

    This is logsumexp over K. The entries at (row[i], column[i]), negatives equal to the row's
    target, are excluded.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        items: Tensor,
        bias: Tensor | None,
        row: Tensor,
        column: Tensor,
    ) -> Tensor:
        logits = queries @ items.T if bias is None else torch.addmm(bias, queries, items.T)
        # Not -inf, which gives NaN if all negatives of a row are excluded.
        logits[row, column] = -1e4
        top = logits.amax(1, keepdim=True)
        total = logits.sub_(top).exp_().sum(1, keepdim=True)
        ctx.save_for_backward(queries, items, logits, total)
        ctx.has_bias = bias is not None
        return (top + total.log()).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        queries, items, powers, total = ctx.saved_tensors
        with _without_autocast(queries):
            share = powers * (grad_outputs[0][:, None] / total)
            grad_bias = share.sum(0) if ctx.has_bias else None
            return share @ items, share.T @ queries, grad_bias, None, None


def binary_cross_entropy(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Return the binary cross-entropy of scores of positives (M,) and their negatives (M, K).

    The result is a scalar: the sum over a positive and its negatives, averaged over positives.
    """
    return (F.softplus(-positive_scores) + F.softplus(negative_scores).sum(1)).mean()


def calibrated_binary_cross_entropy(
    positive_scores: Tensor,
    negative_scores: Tensor,
    *,
    num_items: int,
    calibration: float,
) -> Tensor:
    """Return gBCE: binary cross-entropy with the positive's probability raised to the power beta.

    Beta corrects the overconfidence caused by negative sampling. Source: Petrov & Macdonald 2023,
    "gSASRec".

    Args:
        positive_scores: (M,).
        negative_scores: (M, K), uniform draws.
        num_items: N, the number of items that negatives are drawn from.
        calibration: t in the paper, 0 (plain binary cross-entropy) to 1 (fully calibrated).

    Returns:
        Scalar, mean over positives.
    """
    rate = negative_scores.shape[1] / max(num_items - 1, 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    return (beta * F.softplus(-positive_scores) + F.softplus(negative_scores).sum(1)).mean()


def listwise_softmax(scores: Tensor, labels: Tensor, *, mask: Tensor) -> Tensor:
    """Return the cross-entropy of softmax(scores) and a uniform distribution over relevant items.

    Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach".

    Args:
        scores: (B, C).
        labels: (B, C) float, 1 where relevant, 0 elsewhere.
        mask: (B, C) bool, False where padded.

    Returns:
        (B,) loss of each request; 0 for a request without a relevant candidate.
    """
    log_p = scores.masked_fill(~mask, -torch.inf).log_softmax(1).masked_fill(~mask, 0)
    relevant = labels * mask
    return -(log_p * relevant).sum(1) / relevant.sum(1).clamp(min=1)
