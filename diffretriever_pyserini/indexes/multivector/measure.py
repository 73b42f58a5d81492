"""Measures on a sample, when an index is built, how much of the exact ranking it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...model.method import pool
from ...scoring.ranking import best_rows
from .candidates import propose
from .exact import maxsim_block
from .index import CompressedIndex

_DEPTH = 100
_PASSAGES, _VECTOR_BYTES = 10_000, 1 << 30  # limits of the sample: passages, and bytes of their vectors in float32
_QUERIES, _QUERY_VECTORS = 64, 1024


def sample_size(count: int, k: int, width: int) -> int:
    """Return the number of sampled passages of ``count`` with K vectors of H components; it bounds work and memory."""
    return min(count, _PASSAGES, max(1, _VECTOR_BYTES // (4 * k * width)))


def measure_recall(index: CompressedIndex, first_stage: Any, rows: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
    """Rank a sample of the collection exactly and by the index; some of its passages serve as queries.

    Parameters
    ----------
    first_stage : the index's first stage, trained and without passages.
    rows : int64 [n], numbers of the sampled passages, ascending.
    vectors : float32 [n, K, H], their vectors.

    Returns
    -------
    The numbers of queries and passages, and which shares of the exact top 10 and top 100 are in the index's top 100.
    """
    first_stage.add(pool(vectors))
    queries = _queries(vectors)
    count = index.options.candidate_count(_DEPTH)
    ranked = [index.rank(query, rows[propose(first_stage, query, count)], _DEPTH)[0] for query in queries]
    exact = [best_rows(rows, scores, _DEPTH, index.docids)[0] for scores in _exact(queries, vectors)]
    shares = {f"top{n}_in_top{_DEPTH}": round(_share(exact, ranked, n), 4) for n in (10, _DEPTH)}
    return {"queries": len(queries), "passages": len(rows), **shares}


def _queries(vectors: np.ndarray) -> np.ndarray:
    """Return evenly spaced passages that have a vector."""
    rows = np.flatnonzero(vectors.any(axis=(1, 2)))
    count = min(len(rows), _QUERIES, max(1, _QUERY_VECTORS // vectors.shape[1]))
    return vectors[rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]]


def _exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the scores of ``vectors`` for each query, float32 [queries, n]."""
    import torch

    if not len(queries):
        return np.empty((0, len(vectors)), np.float32)
    flat = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2])))
    scores: np.ndarray = maxsim_block(flat, torch.from_numpy(vectors), len(queries)).numpy()
    return scores


def _share(exact: Sequence[np.ndarray], ranked: Sequence[np.ndarray], n: int) -> float:
    """Return the mean share of the exact top ``n`` in the rankings; 1 without queries."""
    shares = [np.isin(best[:n], rows).mean() for best, rows in zip(exact, ranked, strict=True)]
    return float(np.mean(shares)) if shares else 1.0
