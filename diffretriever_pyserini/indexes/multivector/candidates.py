"""The first stage: one FAISS index of pooled vectors with codes of four bits, which proposes passages.

MaxSim cannot be larger than K_q times the best inner product, and the vectors of a passage are alike, so the order by
pooled vectors is close: of the exact top 10 by MaxSim, 99.8 % were among the first 100 by exact pooled scores where it
was measured. Scanning all codes beats inverted lists until a collection has millions of passages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...files.atomic import whole_file
from ...scoring.ranking import MOST_TIED

_SCAN_ALL = 1_000_000  # passages; more are split into lists
_PROBED = 8  # one list of so many is read
_MOST_LISTS = 4096  # more would make training dear, and a search reads the same share of the collection
_SAMPLE_PER_LIST = 40
_SPARE = 64  # passages asked for beyond the wanted ones, so that a tie of usual length ends


def lists_for(count: int) -> int:
    """Inverted lists for ``count`` passages; 1 where all are scanned."""
    return 1 if count <= _SCAN_ALL else 1 << round(np.log2(min(_MOST_LISTS, 4 * count**0.5)))


def code_nibbles(dimension: int, budget: int) -> int:
    """Half bytes of a pooled vector's code: about an eighth of the passage's ``budget``, at least two components each.

    An even number, unless ``dimension`` is odd.
    """
    wanted = min(budget // 7, dimension // 4)
    sizes = [m for m in range(1, dimension + 1) if dimension % m == 0 and (m % 2 == 0 or dimension % 2)]
    return max((m for m in sizes if -(-m // 2) <= wanted), default=sizes[0])


def passage_bytes(dimension: int, budget: int, count: int) -> int:
    """Bytes that the first stage takes for a passage, its number in a list included."""
    return -(-code_nibbles(dimension, budget) // 2) + (8 if lists_for(count) > 1 else 0)


def sample_size(count: int) -> int:
    """Pooled vectors that training looks at."""
    return min(count, max(1 << 15, _SAMPLE_PER_LIST * lists_for(count)))


def train_candidates(sample: np.ndarray, budget: int, count: int) -> Any:
    """An empty, trained index for ``count`` pooled vectors like ``sample``, float32 [n, H]."""
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
    """Give ``path`` FAISS's file of ``index``, or leave it as it was; nothing is held in memory for it."""
    import faiss

    with whole_file(path) as partial:
        faiss.write_index(index, str(partial))


def propose(index: Any, query: np.ndarray, wanted: int) -> np.ndarray:
    """Numbers of ``wanted`` passages for a query [K_q, H] and of all that tie with the last of them, in no order.

    There are fewer where the lists that are read hold no more. FAISS cuts ties, which are frequent among codes of four
    bits, in an order of its own.
    """
    if wanted >= index.ntotal:
        return np.arange(index.ntotal)
    pooled = np.ascontiguousarray(query.sum(axis=0, keepdims=True), np.float32)
    most = min(index.ntotal, max(2 * wanted, MOST_TIED))
    asked = min(wanted + _SPARE, most)
    while True:
        scores, rows = (one[0] for one in index.search(pooled, asked))
        kept: np.ndarray = (rows >= 0) & (scores >= scores[wanted - 1])
        if asked >= most or not kept[-1]:
            return rows[kept]
        asked = min(4 * asked, most)
