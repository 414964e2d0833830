"""Losses of candidate models, as pure functions.

Shapes: M predictions, D dim, N items, K negatives. Item 0 is padding and never a candidate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def full_softmax(queries: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the whole catalogue.

    Args:
        queries: (M, D).
        items: (N + 1, D); row 0 is left out of the softmax.
        targets: (M,) int64 from 1.

    Returns:
        Scalar mean.
    """
    logits = queries @ items[1:].T  # (M, N)
    return F.cross_entropy(logits, targets - 1)


def sampled_softmax(
    positive_scores: Tensor,
    negative_scores: Tensor,
    positives: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
) -> Tensor:
    """Softmax over sampled negatives with the logQ correction, the positive left uncorrected.

    The correction makes the sum over negatives an unbiased estimate of that over all other items;
    the weight 1 - p makes the gradient that of the full softmax. Negatives that are the row's own
    positive (accidental hits) are masked.
    Source: Yi et al. 2019 (logQ); Khrylchenko et al. 2025, "Correcting the LogQ Correction".

    Args:
        positive_scores: (M,).
        negative_scores: (M, K), negatives shared by the batch or drawn for each row.
        positives: (M,) int64 item_idx.
        negatives: (K,) or (M, K) int64 item_idx; 0 is masked.
        log_expected: shape of `negatives`: log of how often each negative was expected to be drawn.

    Returns:
        Scalar mean.
    """
    masked = (negatives == positives[:, None]) | (negatives == 0)
    # Not -inf: a row that lost all its negatives would give NaN; like this its weight is 0.
    partition = (negative_scores - log_expected).masked_fill(masked, -1e4).logsumexp(1)
    p = torch.sigmoid(positive_scores - partition).detach()
    return ((1 - p) * (partition - positive_scores)).mean()


def binary_cross_entropy(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Each positive against its own negatives: (M,) and (M, K) -> scalar mean over positives."""
    return (F.softplus(-positive_scores) + F.softplus(negative_scores).sum(1)).mean()


def listwise_softmax(scores: Tensor, labels: Tensor, *, mask: Tensor) -> Tensor:
    """Cross-entropy between a request's relevant candidates (all alike) and its scores' softmax.

    Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach".

    Args:
        scores: (B, C).
        labels: (B, C) float, 1 where relevant, 0 elsewhere.
        mask: (B, C) bool, False where padded.

    Returns:
        (B,), 0 for a request without a relevant candidate.
    """
    log_p = scores.masked_fill(~mask, -torch.inf).log_softmax(1).masked_fill(~mask, 0)
    relevant = labels * mask
    return -(log_p * relevant).sum(1) / relevant.sum(1).clamp(min=1)
