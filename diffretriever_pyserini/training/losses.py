"""The losses of docs/method.md §6 as pure functions of torch tensors that return float32 scalars or score matrices.

``queries`` and ``passages`` are unit vectors [N, K, H]; passage ``labels[i]`` is the positive of query ``i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..model.method import term_weights

if TYPE_CHECKING:
    from torch import Tensor


def interactions(queries: Tensor, passages: Tensor) -> Tensor:
    """Dot products of all vectors, [Nq, Np, K_q, K_p]."""
    from torch import einsum

    return einsum("qih,pjh->qpij", queries.float(), passages.float())


def maxsim(products: Tensor) -> Tensor:
    """MaxSim [Nq, Np] from :func:`interactions`: each query vector's largest dot product, summed.

    It is not clamped at 0, unlike in search. ``products[:, :, :a, :b]`` gives that of prefixes.
    """
    return products.amax(dim=3).sum(dim=2)


def prefix_sizes(budgets: Sequence[int], k_query: int, k_passage: int) -> list[tuple[int, int]]:
    """The prefixes (query's, passage's) that are trained: those of each budget, and all vectors (docs/method.md §6)."""
    sizes = {(min(budget, k_query), min(budget, k_passage)) for budget in budgets}
    return sorted(sizes | {(k_query, k_passage)})


def lexical_activations(logits: Tensor, content: Tensor | None = None, factors: Tensor | None = None) -> Tensor:
    """Raw lexical weights: max over the K positions of log(1 + relu(logit)), times ``factors``, float32.

    Parameters
    ----------
    logits : of the output head, [N, K, C] for the columns ``content``; [N, K, V] without.
    content : int64 [N, C], each text's content token ids, padded with -1; None keeps the whole vocabulary.
    factors : float32 [N, C], for how often each of them occurs (docs/method.md §4.1); None is 1 for all.

    Returns
    -------
    [N, C], 0 where ``content`` is -1; or [N, V]. The mask's id is not filtered out, as in the published training.
    """
    activations = term_weights(logits).amax(dim=1)
    if content is None:
        return activations
    activations = activations * (content >= 0)
    return activations if factors is None else activations * factors


def lexical_scores(
    queries: Tensor,
    passages: Tensor,
    query_content: Tensor | None = None,
    passage_content: Tensor | None = None,
    vocab_size: int = 0,
) -> Tensor:
    """Dot products [Nq, Np] of the activations that :func:`lexical_activations` gave with the same content ids.

    With content ids only the queries are expanded to ``vocab_size`` columns, which limits memory.
    """
    if query_content is None or passage_content is None:
        return queries @ passages.T
    # Padding has weight 0, so any id may represent it.
    expanded = queries.new_zeros(len(queries), vocab_size).scatter_add(1, query_content.clamp(min=0), queries)
    shared = expanded[:, passage_content.clamp(min=0)]
    return (shared * passages).sum(dim=2)


def contrastive(scores: Tensor, labels: Tensor, temperature: float = 1.0, masked: Tensor | None = None) -> Tensor:
    """InfoNCE: mean cross entropy of ``scores`` [Nq, Np] / temperature with the positives at ``labels`` [Nq].

    Passages where ``masked`` bool [Nq, Np] is true are not negatives of the query.
    """
    from torch.nn.functional import cross_entropy

    scores = scores.float() / temperature
    return cross_entropy(scores if masked is None else scores.masked_fill(masked, -float("inf")), labels)


def dense_loss(
    products: Tensor,
    labels: Tensor,
    temperature: float = 0.01,
    masked: Tensor | None = None,
    budgets: Sequence[int] = (),
) -> Tensor:
    """InfoNCE(MaxSim / K_q / temperature), the mean over the prefixes of :func:`prefix_sizes`.

    ``products`` [Nq, Np, K_q, K_p] are those of :func:`interactions`.
    """
    from torch import stack

    sizes = prefix_sizes(budgets, *products.shape[2:])
    parts = [contrastive(maxsim(products[:, :, :a, :b]) / a, labels, temperature, masked) for a, b in sizes]
    return stack(parts).mean()


def other_positives(known_keys: Tensor, passage_keys: Tensor, labels: Tensor) -> Tensor:
    """Which passages are positives of a query besides the one at its label, bool [Nq, Np].

    ``known_keys`` int64 [Nq, C] are the keys of each query's positives, ``passage_keys`` int64 [Np] those of the
    passages.
    """
    from torch import isin, stack

    positives = stack([isin(passage_keys, known) for known in known_keys])
    return positives.scatter(1, labels.unsqueeze(1), False)


def denoising_loss(logits: Tensor, targets: Tensor, ratios: Tensor, tokens: int) -> Tensor:
    """Masked diffusion's bound (LLaDA, eq. 3): cross entropy at the masked text tokens, each weighted by 1 / ratio.

    ``logits`` [M, V] at the M masked tokens, ``targets`` int64 [M], ``ratios`` [M] (the masked share of the token's
    text, 0 < t <= 1), ``tokens`` the number of text tokens, masked or not.
    """
    from torch.nn.functional import cross_entropy

    return (cross_entropy(logits.float(), targets, reduction="none") / ratios).sum() / max(tokens, 1)


def diversity_loss(vectors: Tensor) -> Tensor:
    """Mean squared cosine between different vectors of the same text; ``vectors`` [N, K, H], 0 for K = 1."""
    k = vectors.shape[1]
    if k == 1:
        return vectors.sum() * 0.0
    squares = (vectors.float() @ vectors.float().transpose(1, 2)).square()
    off_diagonal = squares.sum(dim=(1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(dim=1)
    return (off_diagonal / (k * (k - 1))).mean()


def margin_mse(scores: Tensor, teacher: Tensor) -> Tensor:
    """MarginMSE: squared error of (positive - negative), student against teacher.

    Both [Nq, C]: each query's own candidates, the positive in column 0. C = 1 has no margin and raises ValueError.
    """
    if scores.shape[1] < 2:
        raise ValueError("MarginMSE needs at least one negative per query.")
    ours, theirs = scores[:, :1] - scores[:, 1:], teacher[:, :1] - teacher[:, 1:]
    return (ours.float() - theirs.float()).square().mean()


def relational_kl(
    scores: Tensor, teacher: Tensor, temperature: float = 1.0, teacher_temperature: float = 1.0
) -> Tensor:
    """KL(teacher || student) of the distributions over candidates, [Nq, C] each, mean over queries."""
    from torch.nn.functional import kl_div, log_softmax

    ours = log_softmax(scores.float() / temperature, dim=1)
    theirs = log_softmax(teacher.float() / teacher_temperature, dim=1)
    return kl_div(ours, theirs, reduction="batchmean", log_target=True)


def embedding_distance(pooled: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between pooled vectors and a teacher's embeddings, [N, H] each."""
    from torch.nn.functional import cosine_similarity

    return (1 - cosine_similarity(pooled.float(), teacher.float(), dim=1)).mean()
