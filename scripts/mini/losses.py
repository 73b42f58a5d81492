"""Losses of the default model, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def pooled_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """Dense single: dot product of the means of the K unit vectors; [Nq, K, H], [Np, K, H] -> [Nq, Np]."""
    return queries.mean(1) @ passages.mean(1).T


def maxsim(queries: Tensor, passages: Tensor) -> Tensor:
    """MaxSim divided by K_q, so that it has the scale of a cosine (docs/method.md §6); not clamped at 0."""
    similarity = torch.einsum("qih,pjh->qpij", queries, passages)
    return similarity.amax(-1).mean(-1)


def soft_targets(teacher: Tensor, same: Tensor, alpha: float) -> Tensor:
    """Mix of the given pairs (1 - alpha) and the teacher's softmax over the batch (alpha), [Nq, Np].

    ``same`` [Nq, Np] marks passages with the text of the positive; they share its probability.
    """
    hard = same.float() / same.float().sum(1, keepdim=True)
    return (1 - alpha) * hard + alpha * torch.softmax(teacher, dim=1)


def contrast(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of in-batch scores (already divided by their temperature) against soft targets."""
    return -(targets * functional.log_softmax(scores, dim=1)).sum(1).mean()


def cosine_distance(pooled: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of the pooled vector and the parent's embedding, averaged."""
    return 1 - functional.cosine_similarity(pooled, teacher, dim=-1).mean()


def weight_regression(weights: Tensor, targets: Tensor, allowed: Tensor) -> Tensor:
    """Mean squared error of the content terms' weights against BM25-like targets; every text counts the same."""
    error = (weights - targets).square() * allowed
    return (error.sum(1) / allowed.sum(1).clamp(min=1)).mean()
