"""First-stage retrieval: one FAISS index of pooled vectors with codes of four bits proposes candidates.

MaxSim is at most K_q times the best inner product, and the vectors of a passage are similar, so the ranking by pooled
vectors is close: in our measurement, 99.8 % of the exact top 10 by MaxSim were in the top 100 by exact pooled scores.
Scanning all codes is better than inverted lists for collections of up to a million passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...files.atomic import whole_file
from ...scoring.ranking import MOST_TIED

_SCAN_ALL = 1_000_000  # passages; larger collections are split into lists
_PROBED = 8  # a search reads one of so many lists
_MOST_LISTS = 4096  # more need longer training, and a search reads the same share of the collection
_SAMPLE_PER_LIST = 40
_SPARE = 64  # passages requested beyond the candidates, so that a tie of usual length ends


def lists_for(count: int) -> int:
    """Return the number of inverted lists for ``count`` passages; 1 if all are scanned."""
    return 1 if count <= _SCAN_ALL else 1 << round(np.log2(min(_MOST_LISTS, 4 * count**0.5)))


def code_nibbles(dimension: int, budget: int) -> int:
    """Return the number of half bytes in a pooled vector's code, each for two or more components.

    They take about an eighth of the passage's ``budget``. The number is even, unless ``dimension`` is odd.
    """
    limit = min(budget // 7, dimension // 4)
    sizes = [m for m in range(1, dimension + 1) if dimension % m == 0 and (m % 2 == 0 or dimension % 2)]
    return max((m for m in sizes if -(-m // 2) <= limit), default=sizes[0])


def passage_bytes(dimension: int, budget: int, count: int) -> int:
    """Return the bytes per passage of the first stage, with its number in an inverted list."""
    return -(-code_nibbles(dimension, budget) // 2) + (8 if lists_for(count) > 1 else 0)


def sample_size(count: int) -> int:
    """Return the number of pooled vectors for training."""
    return min(count, max(1 << 15, _SAMPLE_PER_LIST * lists_for(count)))


def train_candidates(sample: np.ndarray, budget: int, count: int) -> Any:
    """Return an empty index for ``count`` pooled vectors, trained on ``sample``, float32 [n, H]."""
    import faiss

    width, lists = sample.shape[1], lists_for(count)
    name = f"PQ{code_nibbles(width, budget)}x4fs"
    index: Any = faiss.index_factory(width, name if lists == 1 else f"IVF{lists},{name}", faiss.METRIC_INNER_PRODUCT)
    if lists > 1:
        index.nprobe = max(1, lists // _PROBED)
        index.cp.min_points_per_centroid = 1
    index.pq.cp.min_points_per_centroid = 1
    least = max(lists, 16)
    index.train(sample if len(sample) >= least else np.resize(sample, (least, width)))
    return index


def write_index(path: Path, index: Any) -> None:
    """Write FAISS's file of ``index`` to ``path``, completely or not at all, without a copy in memory."""
    import faiss

    with whole_file(path) as partial:
        faiss.write_index(index, str(partial))


Proposals = tuple[np.ndarray, np.ndarray]
"""Candidates of a query: passage numbers int64 [n], and scores of the first stage float32 [n], best first."""


def propose(index: Any, query: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of ``count`` candidates for a query [K_q, H] and of all that tie with the last, unordered.

    There are fewer if the lists that are read hold fewer. FAISS breaks ties, which are frequent among codes of four
    bits, in an undocumented order, so ties are not cut here.
    """
    return np.arange(index.ntotal) if count >= index.ntotal else scored_proposals(index, query, count)[0]


def scored_proposals(index: Any, query: np.ndarray, count: int) -> Proposals:
    """Return the candidates of :func:`propose` with their scores, to compare them with those of other shards."""
    pooled = np.ascontiguousarray(query.sum(axis=0, keepdims=True), np.float32)
    count = min(count, index.ntotal)
    most = min(index.ntotal, max(2 * count, MOST_TIED))
    size = min(count + _SPARE, most)
    while True:
        all_scores, all_rows = index.search(pooled, size)
        scores, rows = all_scores[0], all_rows[0]
        proposed: np.ndarray = (rows >= 0) & (scores >= scores[count - 1])
        if size >= most or not proposed[-1]:
            return rows[proposed], scores[proposed]
        size = min(4 * size, most)


def best_of_shards(shards: Sequence[Proposals], count: int) -> list[np.ndarray]:
    """Return the numbers of one query's ``count`` best candidates in each of ``shards``, and of ties with the last."""
    scores = np.concatenate([scores for _, scores in shards])
    if len(scores) <= count:
        return [rows for rows, _ in shards]
    least = np.partition(scores, -count)[-count]
    return [rows[scores >= least] for rows, scores in shards]
