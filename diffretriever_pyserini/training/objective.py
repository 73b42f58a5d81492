"""The loss of one batch: InfoNCE on MaxSim and on the lexical products, and the optional terms (docs/method.md §6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..model.method import unit
from . import losses
from .gather import devices, gather_ids, gather_rows, rank
from .settings import TrainSettings


def objective(
    outputs: dict[str, Tensor],
    batch: dict[str, Any],
    settings: TrainSettings,
    vocab_size: int,
    teacher: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The loss and its parts, unweighted, each a scalar; ``loss`` is their weighted sum.

    ``masked`` counts the pairs of a query and a passage that are left out because the passage is another positive of
    the query; ``negatives`` counts the pairs that are used.

    ``outputs`` are MaskReader's for ``batch`` (the collator's); without lexical ones there is no lexical loss.
    ``teacher`` holds unit embeddings ``query`` [Nq, H] and ``passage`` [Np, H]. With several devices, the passages of
    all devices are negatives.
    """
    queries, passages = unit(outputs["query_hidden"]), unit(outputs["passage_hidden"])
    positives, local_passages, keys = batch["positives"], passages, batch["passage_keys"]
    weights, content = outputs.get("passage_lexical"), batch["passage"].get("content")
    if settings.cross_device_negatives and devices() > 1:
        positives = positives + rank() * len(passages)
        passages, keys = gather_rows(passages), gather_ids(keys)
        if content is not None and weights is not None:
            content = gather_ids(content)
            weights = pad(weights, (0, content.shape[1] - weights.shape[1]))
        weights = None if weights is None else gather_rows(weights)
    masked = losses.other_positives(batch["known_keys"], keys.squeeze(1), positives)
    parts: dict[str, Tensor] = {"masked": masked.sum().float()}
    parts["negatives"] = masked.numel() - len(masked) - parts["masked"]
    products = losses.interactions(queries, passages)
    similarities = losses.maxsim(products) / queries.shape[1]
    budgets = settings.prefix_budgets or ()
    parts["dense"] = losses.dense_loss(products, positives, settings.temperature, masked, budgets)
    total = parts["dense"]
    signals = {"relational_kl": similarities / settings.temperature}
    if weights is not None and settings.uses_terms:
        query_content = batch["query"].get("content")
        scores = losses.lexical_scores(outputs["query_lexical"], weights, query_content, content, vocab_size)
        scores = scores / settings.lexical_temperature
        parts["lexical"] = losses.contrastive(scores, positives, masked=masked)
        total = total + settings.lexical_weight * parts["lexical"]
        signals |= {"lexical_kl": scores, "fused_kl": signals["relational_kl"] + scores}
        if settings.fused_weight:
            parts["fused"] = losses.contrastive(signals["fused_kl"], positives, masked=masked)
            total = total + settings.fused_weight * parts["fused"]
    if settings.diversity_weight:
        parts["diversity"] = (losses.diversity_loss(queries) + losses.diversity_loss(local_passages)) / 2
        total = total + settings.diversity_weight * parts["diversity"]
    if settings.denoising_weight and "denoising" in outputs:
        parts["denoising"] = outputs["denoising"]
        total = total + settings.denoising_weight * parts["denoising"]
    terms = []
    if settings.distils_scores:
        terms += _from_scores(similarities, signals, positives, batch["teacher_scores"], settings)
    if teacher is not None:
        terms += _from_embeddings(queries.mean(dim=1), local_passages.mean(dim=1), teacher, settings)
    for name, weight, value in terms:
        parts[name] = value
        total = total + weight * value
    return {"loss": total} | parts


Term = tuple[str, float, Tensor]
"""Name, weight and value of one distillation loss."""


def _from_scores(
    similarities: Tensor, signals: dict[str, Tensor], positives: Tensor, scores: Tensor, settings: TrainSettings
) -> list[Term]:
    """Losses against the teacher's ``scores`` [Nq, n] in the rows, of ``similarities`` [Nq, Np], MaxSim / K_q, and of
    the ``signals`` [Nq, Np], which are divided by their temperatures, under the names of their KL divergences."""
    candidates = positives.unsqueeze(1) + torch.arange(scores.shape[1], device=scores.device)
    terms: list[Term] = []
    if settings.margin_mse_weight:
        mse = losses.margin_mse(similarities.gather(1, candidates), scores)
        terms.append(("margin_mse", settings.margin_mse_weight, mse))
    for name, ours in signals.items():
        if weight := getattr(settings, f"{name}_weight"):
            kl = losses.relational_kl(ours.gather(1, candidates), scores, 1.0, settings.teacher_temperature)
            terms.append((name, weight, kl))
    return terms


def _from_embeddings(
    queries: Tensor, passages: Tensor, teacher: dict[str, Tensor], settings: TrainSettings
) -> list[Term]:
    """Losses of pooled ``queries`` [Nq, H] and ``passages`` [Np, H] against the base's embeddings of the texts."""
    terms: list[Term] = []
    if settings.embedding_weight:
        both = torch.cat([queries, passages]), torch.cat([teacher["query"], teacher["passage"]])
        terms.append(("embedding", settings.embedding_weight, losses.embedding_distance(*both)))
    if settings.embedding_kl_weight:
        theirs = teacher["query"] @ teacher["passage"].T
        kl = losses.relational_kl(queries @ passages.T, theirs, settings.temperature, settings.teacher_temperature)
        terms.append(("embedding_kl", settings.embedding_kl_weight, kl))
    return terms
