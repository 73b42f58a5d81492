"""Development scores: how well each mode ranks the passage of a held-out pair among others of its source."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mini.student import Student, lexical_weights, unit
from mini.texts import TokenisedTexts

VOCABULARY = 30522


@torch.no_grad()
def encode(student: Student, texts: TokenisedTexts, k: int, device: torch.device, amp: bool, parent: bool = False):
    """(vectors float32 [N, K, H], weights CSR float32 [N, V], parent embeddings [N, H] or None), texts in order."""
    import scipy.sparse as sp

    order = np.argsort(np.diff(texts.pieces.starts), kind="stable")
    vectors: list[Tensor] = [torch.empty(0)] * len(texts)
    parents: list[Tensor] = [torch.empty(0)] * len(texts)
    values: list[np.ndarray] = [np.empty(0)] * len(texts)
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        rows = [texts.pieces[i] for i in chosen]
        hidden = student.masks(rows, k, device, amp)
        embeddings = student.teacher(rows, device, amp) if parent else None
        for row, i in enumerate(chosen):
            vectors[i] = unit(hidden[row]).cpu()
            if embeddings is not None:
                parents[i] = embeddings[row].cpu()
            terms = torch.as_tensor(texts.content[i].astype(np.int64), device=device)
            logits = student.logits(hidden[row : row + 1], terms)
            weights = lexical_weights(logits, torch.ones(1, len(terms), device=device))
            values[i] = (weights[0] * 100).round().cpu().numpy()
    table = sp.csr_matrix(
        (np.concatenate(values), texts.content.values, texts.content.starts), shape=(len(texts), VOCABULARY)
    )
    return torch.stack(vectors), table, torch.stack(parents) if parent else None


def maxsim(queries: Tensor, passages: Tensor) -> np.ndarray:
    """Sum over query vectors of the best passage vector (docs/method.md §5), float32 [Nq, Np]."""
    return torch.einsum("qih,pjh->qpij", queries, passages).amax(-1).clamp(min=0).sum(-1).numpy()


def equal_size(queries: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides on the first H / K_p principal directions of the passages' vectors, so that K_p of them take the
    space of one vector of H."""
    k, width = passages.shape[1:]
    flat = passages.reshape(-1, width)
    directions = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -(width // k) :]
    return unit(queries @ directions), unit(passages @ directions)


def min_max(scores: np.ndarray) -> np.ndarray:
    """Each row scaled to [0, 1] over the whole list (docs/method.md §5)."""
    low, high = scores.min(1, keepdims=True), scores.max(1, keepdims=True)
    return (scores - low) / np.maximum(high - low, 1e-9)


def ndcg(scores: np.ndarray) -> float:
    """Mean nDCG@10 where only passage i is relevant to query i; ties count as their mean rank."""
    relevant = scores[np.arange(len(scores)), np.arange(len(scores))][:, None]
    rank = (scores > relevant).sum(1) + ((scores == relevant).sum(1) - 1) / 2
    return float(np.where(rank < 10, 1 / np.log2(2 + rank), 0).mean())


def develop(
    student: Student,
    sets: dict[str, tuple[TokenisedTexts, TokenisedTexts]],
    device: torch.device,
    amp: bool,
    parent: bool = False,
) -> dict[str, dict[str, float]]:
    """nDCG@10 of every mode on every development set, and the mean over the sets under ``mean``."""
    results: dict[str, dict[str, float]] = {}
    for name, (queries, passages) in sets.items():
        q, q_terms, q_parent = encode(student, queries, student.k_query, device, amp, parent)
        p, p_terms, p_parent = encode(student, passages, student.k_passage, device, amp, parent)
        pooled = (q.mean(1) @ p.mean(1).T).numpy()
        multi = maxsim(q, p)
        small = maxsim(*equal_size(q, p))
        lexical = (q_terms @ p_terms.T).toarray()
        modes = {
            "pooled": pooled,
            "multi": multi,
            "multi_small": small,
            "lexical": lexical,
            "hybrid": min_max(pooled) + min_max(lexical),
            "hybrid_multi": min_max(multi) + min_max(lexical),
        }
        if q_parent is not None and p_parent is not None:
            modes["parent"] = (q_parent @ p_parent.T).numpy()
        results[name] = {mode: ndcg(scores) for mode, scores in modes.items()}
    names = next(iter(results.values()))
    results["mean"] = {mode: float(np.mean([row[mode] for row in results.values()])) for mode in names}
    return results
