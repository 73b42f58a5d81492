"""How much of the exact ranking a compressed index returns, measured on a sample when it is built."""

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
_PASSAGES, _VECTOR_BYTES = 10_000, 1 << 30  # at most so many, and so much of their vectors in float32
_QUERIES, _QUERY_VECTORS = 64, 1024


def sample_size(count: int, k: int, width: int) -> int:
    """Passages that are measured of ``count`` with K vectors of H components: work and memory are bounded."""
    return min(count, _PASSAGES, max(1, _VECTOR_BYTES // (4 * k * width)))


def measure_recall(index: CompressedIndex, first: Any, rows: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
    """Rank a sample of the collection exactly and as the index does; some of its passages are the queries.

    Parameters
    ----------
    first : the index's first stage as it was trained, without passages.
    rows : int64 [n], numbers of the sampled passages, ascending.
    vectors : float32 [n, K, H], their vectors.

    Returns
    -------
    The numbers of queries and passages, and the shares of the exact top 10 and top 100 in the index's top 100.
    """
    first.add(pool(vectors))
    queries = _queries(vectors)
    ranked = [
        index.rank(query, rows[propose(first, query, index.options.wanted(_DEPTH))], _DEPTH)[0] for query in queries
    ]
    exact = [best_rows(rows, scores, _DEPTH, index.docids)[0] for scores in _exact(queries, vectors)]
    shares = {f"top{n}_in_top{_DEPTH}": round(_share(exact, ranked, n), 4) for n in (10, _DEPTH)}
    return {"queries": len(queries), "passages": len(rows), **shares}


def _queries(vectors: np.ndarray) -> np.ndarray:
    """Some of the passages that have a vector, evenly drawn."""
    able = np.flatnonzero(vectors.any(axis=(1, 2)))
    count = min(len(able), _QUERIES, max(1, _QUERY_VECTORS // vectors.shape[1]))
    return vectors[able[np.linspace(0, len(able) - 1, count).astype(np.int64)]]


def _exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The scores of ``vectors`` for each query, float32 [queries, n]."""
    import torch

    if not len(queries):
        return np.empty((0, len(vectors)), np.float32)
    flat = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2])))
    scores: np.ndarray = maxsim_block(flat, torch.from_numpy(vectors), len(queries)).numpy()
    return scores


def _share(exact: Sequence[np.ndarray], ranked: Sequence[np.ndarray], n: int) -> float:
    return (
        1.0
        if not exact
        else float(np.mean([np.isin(best[:n], mine).mean() for best, mine in zip(exact, ranked, strict=True)]))
    )
