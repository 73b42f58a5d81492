"""Exact MaxSim over a store compared with the equation, and the properties of MaxSim."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.multivector import exact
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex, RowHits
from diffretriever_pyserini.runtime.threads import torch_threads
from diffretriever_pyserini.scoring.pairwise import maxsim
from diffretriever_pyserini.store.store import Store

from ..conftest import made_up_store
from .conftest import made_up_vectors, write_store


def assert_best(hits: RowHits, expected: np.ndarray, depth: int) -> None:
    """Assert that ``hits`` are the best ``depth`` of the scores ``expected`` [n]."""
    rows, scores = hits
    assert len(rows) == len(set(rows.tolist())) == min(depth, len(expected))
    np.testing.assert_allclose(scores, expected[rows], atol=1e-5)
    np.testing.assert_allclose(scores, np.sort(expected)[::-1][: len(rows)], atol=1e-5)


@pytest.mark.parametrize("depth", [1, 10, 5000])
def test_every_passage_is_scored(
    store: Store, vectors: np.ndarray, queries: list[np.ndarray], depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_CHUNK_BYTES", 1 << 13)  # many chunks per part
    monkeypatch.setattr(exact, "_PRODUCT_BYTES", 1 << 12)  # and blocks per chunk
    expected = maxsim(np.stack(queries), vectors)
    for hits, scores in zip(ExactIndex(store).search_many(queries, depth, 2), expected, strict=True):
        assert_best(hits, scores, depth)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_narrower_stores(vectors: np.ndarray, queries: list[np.ndarray], dtype: str, tmp_path: Path) -> None:
    index = ExactIndex(write_store(tmp_path / "S", vectors[:230], dtype=dtype))
    stored = np.concatenate([part.vectors() for part in index.store.parts])
    for query in queries[:5]:
        assert_best(index.search(query, 20), maxsim(query[None], stored)[0], 20)
    np.testing.assert_array_equal(index.vectors(np.array([0, 229, 101])), stored[[0, 229, 101]])


def test_one_vector_is_the_dot_product(tmp_path: Path) -> None:
    vectors = made_up_vectors(150, k=1)
    index = ExactIndex(write_store(tmp_path / "S", vectors))
    query = made_up_vectors(1, k=1, seed=9)[0]
    assert_best(index.search(query, 150), (vectors[:, 0] @ query[0]).clip(0), 150)


def test_queries_of_several_lengths(store: Store, queries: list[np.ndarray]) -> None:
    index = ExactIndex(store)
    mixed = [queries[0], queries[1][:1], np.zeros((0, 32), np.float32)]
    for query, (rows, scores) in zip(mixed, index.search_many(mixed, 30), strict=True):
        alone = index.search(query, 30)
        assert rows.tolist() == alone[0].tolist()
        np.testing.assert_allclose(scores, alone[1], atol=1e-5)


def test_the_order_of_a_passages_vectors_does_not_matter(tmp_path: Path, queries: list[np.ndarray]) -> None:
    vectors = made_up_vectors(120)
    mixed = np.stack([row[np.random.default_rng(i).permutation(4)] for i, row in enumerate(vectors)])
    one, other = (ExactIndex(write_store(tmp_path / name, v)) for name, v in (("a", vectors), ("b", mixed)))
    for query in queries:
        a, b = one.search(query, 120), other.search(query, 120)
        np.testing.assert_allclose(a[1], b[1], atol=1e-6)


@pytest.mark.parametrize("depth", [1, 5, 120, 1000])
def test_equal_scores_are_ordered_by_falling_docid(tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_CHUNK_BYTES", 1 << 13)  # ties continue across chunks
    vectors = np.repeat(made_up_vectors(2), [250, 10], axis=0)
    index = ExactIndex(write_store(tmp_path / "S", vectors))
    tied = sorted((f"p{row}" for row in range(250)), reverse=True)
    docids = index.docids(index.search(vectors[0], depth)[0])
    assert docids[:250] == tied[:depth] and len(docids) == min(depth, 260)
    docids = index.docids(index.search(np.zeros_like(vectors[0]), depth)[0])
    assert docids == sorted((f"p{row}" for row in range(260)), reverse=True)[:depth]


def test_threads_and_batches_do_not_change_the_hits(store: Store, queries: list[np.ndarray]) -> None:
    index = ExactIndex(store)
    alone = [index.search(query, 50) for query in queries]
    together = index.search_many(queries, 50, 2)
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda query: index.search(query, 50), queries))
    for expected, *others in zip(alone, together, at_once, strict=True):
        for hits in others:
            np.testing.assert_allclose(hits[1], expected[1], atol=1e-5)


def test_each_search_has_its_own_number_of_threads(store: Store, queries: list[np.ndarray]) -> None:
    """Two searches overlap, each with another number; afterwards the numbers are as before, also in new threads."""
    before, both = torch.get_num_threads(), threading.Barrier(2)

    def in_new_thread() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    default = in_new_thread()

    def search(count: int) -> tuple[int, int]:
        with torch_threads(count):
            both.wait(30)
            ExactIndex(store).search(queries[0], 5)
            within = torch.get_num_threads()
            both.wait(30)
        return within, torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(search, (3, 5))) == [(3, default), (5, default)]
    assert (torch.get_num_threads(), in_new_thread()) == (before, default)


def test_ids(store: Store) -> None:
    index = ExactIndex(store)
    assert index.docids(np.array([999, 0, 123])) == ["p999", "p0", "p123"]
    assert (index.row_of("p123"), index.row_of("nobody")) == (123, None)


def test_pooled_vectors_are_not_enough(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has one pooled vector per passage"):
        ExactIndex(made_up_store(tmp_path / "S", count=20, vectors="pooled"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_finds_the_same(store: Store, queries: list[np.ndarray]) -> None:
    cpu, gpu = ExactIndex(store), ExactIndex(store, "cuda")
    for one, other in zip(cpu.search_many(queries, 30), gpu.search_many(queries, 30), strict=True):
        np.testing.assert_allclose(other[1], one[1], atol=1e-4)
