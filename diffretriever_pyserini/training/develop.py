"""The development measure: nDCG@10 of each view of the model over the passages of the development rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import scoring
from ..evaluation.metrics import evaluate
from ..lexical import batch_impacts
from .batches import Collator
from .losses import unit
from .rows import Row

if TYPE_CHECKING:
    import torch

    from .model import MaskReader

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class DevelopmentSet:
    """Queries, all passages of their rows once each, and which of them are relevant."""

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    qrels: dict[str, dict[str, int]]


def development_set(rows: Sequence[Row]) -> DevelopmentSet:
    """The passages of all ``rows`` make the collection; a text is one passage however often it occurs."""
    places: dict[str, int] = {}
    qrels: dict[str, dict[str, int]] = {}
    for i, row in enumerate(rows):
        for passage in (*row.positives, *row.negatives):
            places.setdefault(passage.text, len(places))
        qrels[str(i)] = {str(places[passage.text]): 1 for passage in row.positives}
    return DevelopmentSet(tuple(row.query for row in rows), tuple(places), qrels)


def measure(model: MaskReader, collator: Collator, sets: DevelopmentSet, batch_size: int = 32) -> dict[str, float]:
    """``dense`` (pooled), ``multi`` (MaxSim), ``lexical`` and ``hybrid`` (pooled and lexical, METHOD section 5)."""
    q, q_terms = read_texts(model, collator, sets.queries, "query", batch_size)
    p, p_terms = read_texts(model, collator, sets.passages, "passage", batch_size)
    dense = scoring.pooled_scores(q.mean(axis=1), p.mean(axis=1))
    lexical = scoring.lexical_scores(q_terms, p_terms)
    views = {
        "dense": dense,
        "multi": scoring.maxsim(q, p),
        "lexical": lexical,
        "hybrid": scoring.fuse(dense, lexical),
    }
    return {name: _ndcg(scores, sets.qrels) for name, scores in views.items()}


def _ndcg(scores: np.ndarray, qrels: dict[str, dict[str, int]]) -> float:
    best = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :10]
    run = {str(i): {str(j): float(scores[i, j]) for j in row} for i, row in enumerate(best)}
    return evaluate(run, qrels, [MEASURE]).means[MEASURE]


def read_texts(
    model: MaskReader, collator: Collator, texts: Sequence[str], side: str, batch_size: int
) -> tuple[np.ndarray, Any]:
    """Unit vectors float32 [N, K, H] and impacts CSR int32 [N, V] of ``texts``, as a finished checkpoint has them."""
    import scipy.sparse
    import torch

    device = next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors: list[Any] = [None] * len(texts)
    terms: list[Any] = [None] * len(texts)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = collator.side([texts[i] for i in places], side)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            outputs = model(**{side: batch})
            rows = unit(outputs[f"{side}_hidden"]).cpu().numpy()
            for j, i in enumerate(places):
                vectors[i] = rows[j]
                terms[i] = _impacts(outputs[f"{side}_lexical"][j], batch["content"][j] if "content" in batch else None)
    model.train(was_training)
    ids, values = zip(*terms, strict=True)
    bounds = np.cumsum([0, *map(len, ids)])
    shape = (len(texts), model.backbone.vocab_size)
    table = scipy.sparse.csr_matrix((np.concatenate(values), np.concatenate(ids), bounds), shape=shape, dtype=np.int32)
    return np.stack(vectors), table


def _impacts(weights: torch.Tensor, content: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids and integer impacts of one text's activations; 128 terms at most, as in the read-out of one place."""
    import torch

    kept = torch.arange(len(weights), device=weights.device) if content is None else content
    weights, kept = weights[kept >= 0], kept[kept >= 0]
    impacts = batch_impacts(torch.expm1(weights.float())[None, None])[0].cpu().numpy()
    return kept.cpu().numpy()[impacts > 0], impacts[impacts > 0]
