"""The development measure: nDCG@10 of dense, multi, lexical and hybrid over the passages of the development rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import scoring
from ..evaluation.metrics import evaluate
from ..model.method import LexicalScale, to_impacts, unit
from ..model.readouts import has_terms
from .data.batches import Collator
from .data.rows import Row
from .data.store import text_digest
from .gather import devices, rank, sum_to_all, sum_to_first
from .settings import METRICS

if TYPE_CHECKING:
    import torch

    from .model import MaskReader

MEASURE = "nDCG@10"
_SHOWN_AFTER = 2.0  # seconds until a progress bar comes up


@dataclass(frozen=True)
class DevelopmentSet:
    """Queries, all passages of their rows once each, and which of them are relevant."""

    queries: tuple[str, ...]
    passages: tuple[str, ...]
    qrels: dict[str, dict[str, int]]


def development_set(rows: Sequence[Row]) -> DevelopmentSet:
    """The collection of all passages of ``rows``; equal passages count once, and so do equal queries, which have the
    positives of all their rows."""
    numbers: dict[str, int] = {}
    queries: dict[bytes, tuple[str, set[int]]] = {}
    for row in rows:
        for passage in (*row.positives, *row.negatives):
            numbers.setdefault(passage.contents, len(numbers))
        _, relevant = queries.setdefault(text_digest(row.query), (row.query, set()))
        relevant.update(numbers[passage.contents] for passage in row.positives)
    qrels = {str(i): {str(j): 1 for j in sorted(relevant)} for i, (_, relevant) in enumerate(queries.values())}
    return DevelopmentSet(tuple(query for query, _ in queries.values()), tuple(numbers), qrels)


def measure(
    model: MaskReader, collator: Collator, sets: DevelopmentSet, batch_size: int = 32, hybrid_weight: float = 0.5
) -> dict[str, float]:
    """nDCG@10 of ``dense`` (pooled), ``multi``, ``lexical`` and ``hybrid`` (pooled and lexical): docs/method.md §5.

    A read-out without terms has ``dense`` alone. ``hybrid_weight`` is the share of the dense signal in the hybrid.

    Where several processes train, each encodes its share of the texts and the first scores them; all get its figures.
    """
    q, q_terms = read_texts(model, collator, sets.queries, "query", batch_size)
    p, p_terms = read_texts(model, collator, sets.passages, "passage", batch_size)
    names = METRICS if has_terms(model.readout) else ("dense",)
    figures = np.zeros(len(names))
    if rank() == 0:
        dense = scoring.pooled_scores(q.mean(axis=1), p.mean(axis=1))
        scores = {"dense": dense}
        if len(names) > 1:
            lexical = scoring.lexical_scores(q_terms, p_terms)
            hybrid = scoring.fuse(dense, lexical, hybrid_weight)
            scores |= {"multi": scoring.maxsim(q, p), "lexical": lexical, "hybrid": hybrid}
        figures = np.array([_ndcg(scores[name], sets.qrels) for name in names])
    figures = sum_to_all(figures, next(model.parameters()).device)
    return dict(zip(names, figures.tolist(), strict=True))


def _ndcg(scores: np.ndarray, qrels: dict[str, dict[str, int]]) -> float:
    best = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :10]
    run = {str(i): {str(j): float(scores[i, j]) for j in row} for i, row in enumerate(best)}
    return evaluate(run, qrels, [MEASURE]).means[MEASURE]


def read_texts(
    model: MaskReader, collator: Collator, texts: Sequence[str], side: str, batch_size: int
) -> tuple[np.ndarray, Any]:
    """Unit vectors float32 [N, K, H] and impacts CSR int32 [N, V] of ``texts``, as a finished checkpoint gives them.

    Where several processes train, all must call this together. Each encodes its share; only the first gets all results.
    """
    import torch

    device = next(model.parameters()).device
    vectors = np.zeros((len(texts), collator.layouts[side].k, model.backbone.hidden_size), dtype=np.float32)
    terms: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for rows, is_mine in _shares(texts, side, batch_size):
            batch = collator.side([texts[i] for i in rows], side)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            outputs = model(**{side: batch})
            if not is_mine:
                continue
            vectors[rows] = unit(outputs[f"{side}_hidden"]).cpu().numpy()
            for j, i in enumerate(rows if f"{side}_lexical" in outputs else ()):
                content = batch["content"][j] if "content" in batch else None
                terms[i] = _impacts(outputs[f"{side}_lexical"][j], content)
    model.train(was_training)
    return sum_to_first(vectors, device), _table(terms, len(texts), model.backbone.vocab_size, device)


def _shares(texts: Sequence[str], side: str, batch_size: int) -> Iterator[tuple[list[int], bool]]:
    """(rows of a batch's texts, whether this process keeps the results), shortest texts first, in turn by rank.

    Every process gets the same number of batches, since under FSDP they compute together; the last one of some is a
    repeated batch. The batches are those of a single process, so the figures are the same too.
    """
    from tqdm.auto import tqdm

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    quiet = True if rank() else None  # None: unless on a terminal
    name = f"development set, {side} side"
    with tqdm(total=len(texts), desc=name, delay=_SHOWN_AFTER, leave=False, disable=quiet) as bar:
        for start in range(0, len(batches), devices()):
            mine = start + rank()
            yield batches[min(mine, len(batches) - 1)], mine < len(batches)
            bar.update(sum(map(len, batches[start : start + devices()])))


def _table(terms: dict[int, tuple[np.ndarray, np.ndarray]], count: int, vocab_size: int, device: torch.device) -> Any:
    """CSR int32 [count, vocab_size] of every process's ``terms`` (ids and impacts by text), whole on the first one."""
    import scipy.sparse

    counts = np.zeros(count, dtype=np.int64)
    for i, (ids, _) in terms.items():
        counts[i] = len(ids)
    bounds = np.concatenate([[0], np.cumsum(sum_to_all(counts, device))])
    columns, values = (np.zeros(bounds[-1], dtype=np.int32) for _ in range(2))
    for i, (ids, impacts) in terms.items():
        span = slice(bounds[i], bounds[i + 1])
        columns[span], values[span] = ids, impacts
    columns, values = sum_to_first(columns, device), sum_to_first(values, device)
    return scipy.sparse.csr_matrix((values, columns, bounds), shape=(count, vocab_size))


def _impacts(weights: torch.Tensor, content: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Ids and integer impacts of one text's activations; 128 terms at most, as in the read-out of one position."""
    import torch

    ids = torch.arange(len(weights), device=weights.device) if content is None else content
    weights, ids = weights[ids >= 0], ids[ids >= 0]
    impacts = to_impacts(weights.float()[None, None], LexicalScale())[0].cpu().numpy()
    return ids.cpu().numpy()[impacts > 0], impacts[impacts > 0]
