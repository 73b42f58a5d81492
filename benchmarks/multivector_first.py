"""First stages for MaxSim, which propose the passages to be scored. Run by benchmarks/multivector_codecs.py."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from multivector import Bench, Rows
from muvera import FixedEncodings

from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.indexes.multivector import candidates
from diffretriever_pyserini.indexes.multivector.build import batches_of
from diffretriever_pyserini.model.method import pool
from diffretriever_pyserini.runtime.threads import faiss_threads
from diffretriever_pyserini.searching import open_index

PROPOSED = 500
OURS, LEXICAL = "**pooled, 4-bit codes** (ours at 1/{})", "the lexical index"
_TRAINED_ON = 1 << 16
_PER_VECTOR = 4096  # hits of each query vector among the flattened ones
_FINAL = (1280, 2560)  # minimum components of fixed dimensional encodings

Search = Callable[[np.ndarray], np.ndarray]
"""A query in the form that its index takes -> passage numbers, best first."""


class Table:
    """Rows of the table, one per first stage."""

    def __init__(self, bench: Bench):
        self._bench = bench
        self.rows: Rows = [["first stage", "bytes per passage", "10 in 100", "10 in 500", "ms per query"]]
        self.results: dict[str, tuple[float, list[np.ndarray], float]] = {}

    def add(self, name: str, size: float, rankings: list[np.ndarray], ms: float) -> None:
        """Add a row."""
        self.results[name] = size, rankings, ms
        shares = (f"{self._bench.overlap(rankings, 10, depth):.4f}" for depth in (100, PROPOSED))
        self.rows.append([name, f"{size:.0f}", *shares, f"{ms:.2f}"])
        print(*self.rows[-1], sep=" | ", flush=True)

    def search(self, name: str, size: float, queries: np.ndarray, search: Search) -> None:
        """Add a row for ``search`` of each of ``queries``, in one thread."""
        rankings, seconds = [], []
        with faiss_threads(1):
            for query in queries:
                started = time.perf_counter()
                rankings.append(search(query))
                seconds.append(time.perf_counter() - started)
        self.add(name, size, rankings, 1000 * statistics.median(seconds))


def first_stages(bench: Bench) -> Rows:
    """The share of the exact top 10 that each first stage proposes."""
    table = Table(bench)
    by_pooled(bench, table)
    by_fixed_encodings(bench, table)
    by_each_vector(bench, table)
    by_terms(bench, table)
    by_both(table)
    return table.rows


def over(bench: Bench, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``function`` of all passages, float32 [n, K, H] at a time."""
    return np.concatenate([function(vectors) for part in bench.store.parts for _, vectors in batches_of(part)])


def lists_of(count: int) -> int:
    """Number of inverted lists, as in our indexes of more than a million passages."""
    return 1 << round(np.log2(4 * count**0.5))


def sampled(values: np.ndarray) -> np.ndarray:
    """Rows to train on."""
    return np.ascontiguousarray(values[:: -(-len(values) // _TRAINED_ON)])


def filled(name: str, values: np.ndarray, probed: int = 0) -> Any:
    """An index of FAISS's factory that holds ``values``."""
    index = faiss.index_factory(values.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(sampled(values))
    index.add(values)
    if probed:
        index.nprobe = probed
    return index


def nearest(index: Any) -> Search:
    """Search of a single vector in ``index``."""
    return lambda query: index.search(query[None], PROPOSED)[1][0]


def by_pooled(bench: Bench, table: Table) -> None:
    """One vector per passage, the mean of its K."""
    pooled, summed = over(bench, pool), bench.queries.sum(axis=1)
    width, lists = pooled.shape[1], lists_of(len(pooled))
    sizes = {share: candidates.code_nibbles(width, bench.float16_bytes // share) for share in (16, 32)}
    nibbles = sizes[16]
    for share, size in sizes.items():
        name = f"PQ{size}x4fs"
        table.search(OURS.format(share), size / 2, summed, nearest(filled(name, pooled)))
    table.search("pooled, Flat", 4 * width, summed, nearest(filled("Flat", pooled)))
    for name in (f"RR{width},RaBitQ", f"RR{width},RaBitQfs"):
        index = filled(name, pooled)
        table.search(f"pooled, {name}", index.sa_code_size(), summed, nearest(index))
    name = f"IVF{lists},PQ{nibbles}x4fs"
    for probed in (lists // 8, lists // 4):
        index = filled(name, pooled, probed)
        table.search(f"pooled, {name}, {probed} lists", nibbles / 2 + 8, summed, nearest(index))


def by_fixed_encodings(bench: Bench, table: Table) -> None:
    """MUVERA: 20 repetitions of 16 buckets, as in the paper, and few buckets that keep all components."""
    width = bench.store.spec.dimension
    nibbles = candidates.code_nibbles(width, bench.float16_bytes // 16)
    variants = {
        f"{size} of 20 times 16 buckets of 16": FixedEncodings(width, size)
        for size in (-(-final // nibbles) * nibbles for final in _FINAL)  # so that codes can have the bytes of ours
    }
    for repetitions in (1, 2):
        name = f"{repetitions} times 4 buckets of {width}"
        variants[name] = FixedEncodings(width, None, bits=2, inner=None, repetitions=repetitions)
    for variant, encodings in variants.items():
        passages, queries = over(bench, encodings.passages), encodings.queries(bench.queries)
        final = encodings.components
        codes = {f"PQ{nibbles}x4fs": nibbles / 2, f"PQ{final // 4}x4fs": final / 8, "Flat": 4 * final}
        for name, size in codes.items():
            table.search(f"MUVERA, {variant}, {name}", size, queries, nearest(filled(name, passages)))


def by_each_vector(bench: Bench, table: Table) -> None:
    """All K vectors of all passages in one IVF-PQ index: the best score per passage, summed over query vectors."""
    k, width, count = bench.store.spec.k_passage, bench.store.spec.dimension, len(bench.store)
    lists = lists_of(k * count)
    index = faiss.index_factory(width, f"IVF{lists},PQ{width // 8}np", faiss.METRIC_INNER_PRODUCT)
    picked = over(bench, lambda v: v[:, :: max(1, k // 4)].reshape(-1, width)[:: max(1, 4 * count // (40 * lists))])
    index.train(picked)
    for part in bench.store.parts:
        for _, vectors in batches_of(part):
            index.add(vectors.reshape(-1, width))

    def search(query: np.ndarray) -> np.ndarray:
        total = np.zeros(count, np.float32)
        for scores, rows in zip(*index.search(query, _PER_VECTOR), strict=True):
            scores, rows = scores[rows >= 0], rows[rows >= 0]
            passages, firsts = np.unique(rows // k, return_index=True)  # the first score is the best
            total[passages] += scores[firsts] - scores[-1]  # passages without a hit get the last score
        best = np.argpartition(-total, PROPOSED)[:PROPOSED]
        return best[np.argsort(-total[best])]

    for share in (64, 16):
        index.nprobe = max(1, lists // share)
        name = f"all vectors, IVF{lists},PQ{width // 8}, {index.nprobe} lists"
        table.search(name, k * (index.sa_code_size() - index.coarse_code_size() + 8), bench.queries, search)


def by_terms(bench: Bench, table: Table) -> None:
    """The lexical index."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "index")
        build_index(bench.store, folder, IndexOptions(dense=None, lexical=True))
        size = sum(path.stat().st_size for path in (folder / "lexical").rglob("*") if path.is_file())
        numbers = {docid: number for number, docid in enumerate(bench.docids)}
        with open_index(folder) as index:
            index.search(dict(list(bench.topics.items())[:64]), mode="lexical", hits=PROPOSED, threads=1)  # warm up
            before = index.seconds["lexical"]
            run = index.search(bench.topics, mode="lexical", hits=PROPOSED, threads=1)
            ms = 1000 * (index.seconds["lexical"] - before) / len(run)
        rankings = [np.array([numbers[docid] for docid, _ in run[qid]], np.int64) for qid in bench.topics]
        table.add(LEXICAL, size / len(bench.store), rankings, ms)


def by_both(table: Table) -> None:
    """Passages of the pooled and the lexical list alternately, each once."""
    pooled_bytes, pooled, pooled_ms = table.results[OURS.format(16)]
    lexical_bytes, lexical, lexical_ms = table.results[LEXICAL]
    rankings = []
    for lists in zip(pooled, lexical, strict=True):
        alternating = (int(row) for pair in itertools.zip_longest(*lists) for row in pair if row is not None)
        rankings.append(np.array(list(dict.fromkeys(alternating))[:PROPOSED], np.int64))
    table.add("both, alternating", pooled_bytes + lexical_bytes, rankings, pooled_ms + lexical_ms)
