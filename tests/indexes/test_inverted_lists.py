"""Inverted lists written in bounded memory: the bytes are those of FAISS's writer, and no work file is left behind."""

from __future__ import annotations

import functools
import io
import os
import resource
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tqdm.auto import tqdm

from diffretriever_pyserini.errors import DiffRetrieverError
from diffretriever_pyserini.indexes import faiss as dense_module
from diffretriever_pyserini.indexes import inverted_lists as lists_module
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.indexes.inverted_lists import ListedCodes, ListsFile, lists_head

from .conftest import made_up_store

DIMENSION = 16


def random_vectors(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)


def trained(lists: int) -> Any:
    """An empty index of ``lists`` lists, trained on noise."""
    return faiss.clone_index(_trained(lists))


@functools.cache
def _trained(lists: int) -> Any:
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(DIMENSION), DIMENSION, lists, 2, 8, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(random_vectors(600, 0))
    return index


def written_by_us(index: Any, batches: list[np.ndarray], path: Path) -> bytes:
    head = lists_head(index)
    assert head is not None
    file = ListsFile(path, index, head, sum(map(len, batches)))
    for batch in batches:
        file.add(batch)
    file.close()
    return path.read_bytes()


def written_by_faiss(index: Any, batches: list[np.ndarray], path: Path) -> bytes:
    for batch in batches:
        index.add(batch)
    faiss.write_index(index, str(path))
    return path.read_bytes()


@pytest.mark.parametrize("buffer", [1, 1000, 16 << 20])  # one row, several, all
@pytest.mark.parametrize(
    ("lists", "sizes"), [(1, [1]), (1, [300, 1]), (8, [5]), (8, [1, 2, 0, 700]), (64, [20]), (64, [900, 900, 13])]
)
def test_the_bytes_are_those_that_faiss_writes(
    lists: int, sizes: list[int], buffer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists_module, "_BUFFER", buffer)
    index, batches = trained(lists), [random_vectors(size, seed) for seed, size in enumerate(sizes)]
    assert written_by_us(index, batches, tmp_path / "ours") == written_by_faiss(index, batches, tmp_path / "faiss")
    read, queries = faiss.read_index(str(tmp_path / "ours")), random_vectors(20, 99)
    index.nprobe = read.nprobe = max(1, lists // 4)
    for result, expected in zip(read.search(queries, 10), index.search(queries, 10), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("used", range(9))
def test_any_number_of_lists_in_use(used: int, tmp_path: Path) -> None:
    """FAISS writes all sizes, or only those of the lists in use if these are at most half."""
    index = trained(8)
    centroids = np.repeat(index.quantizer.reconstruct_n(0, 8), 3, axis=0)
    nearest = index.quantizer.assign(centroids, 1)[:, 0]
    assert len(set(nearest.tolist())) == 8
    batches = [centroids[nearest < used]]
    assert written_by_us(index, batches, tmp_path / "ours") == written_by_faiss(index, batches, tmp_path / "faiss")
    assert (b"sprs" in (tmp_path / "ours").read_bytes()) == (used <= 4)


def test_a_batch_of_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists_module, "_BLOCK", 7)
    index, batches = trained(8), [random_vectors(100), random_vectors(3, 2)]
    assert written_by_us(index, batches, tmp_path / "ours") == written_by_faiss(index, batches, tmp_path / "faiss")


def test_a_nan_vector_is_counted_and_in_no_list(tmp_path: Path) -> None:
    index, batch = trained(8), random_vectors(30)
    batch[[0, 17]] = np.nan
    assert written_by_us(index, [batch], tmp_path / "ours") == written_by_faiss(index, [batch], tmp_path / "faiss")


def test_another_layout_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    product, index = faiss.METRIC_INNER_PRODUCT, trained(8)
    assert lists_head(index) is not None
    refined = faiss.IndexIVFPQR(faiss.IndexFlatL2(DIMENSION), DIMENSION, 8, 2, 8, 2, 8)  # more after the lists
    refined.train(random_vectors(600))
    assert lists_head(refined) is None
    flat = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIMENSION), DIMENSION, 8, product)
    flat.train(random_vectors(600))
    assert lists_head(flat) is not None  # other codes, the same lists
    monkeypatch.setattr(lists_module, "_written_sizes", lambda sizes: b"full" + bytes(8))
    assert lists_head(index) is None


def test_another_code_is_detected() -> None:
    index = trained(8)
    encode = index.encode_vectors

    def without_residuals(*arguments: Any) -> None:
        index.by_residual = False
        encode(*arguments)
        index.by_residual = True

    index.encode_vectors = without_residuals
    assert lists_head(index) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_an_index_of_a_store(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made_up_store(tmp_path / "S", count=3000, rows_per_part=700)
    options = IndexOptions(dense="ivfpq", lexical=False, threads=threads, quiet=True)
    build_index(store, tmp_path / "ours", options)
    assert {path.name for path in (tmp_path / "ours" / "dense").iterdir()} == {"index", "docid", "diffretriever.json"}
    monkeypatch.setattr(dense_module, "lists_head", lambda index: None)  # as with a FAISS of another layout
    build_index(store, tmp_path / "faiss", IndexOptions(dense="ivfpq", lexical=False, threads=1, quiet=True))
    one, other = (tmp_path / name / "dense" / "index" for name in ("ours", "faiss"))
    assert one.read_bytes() == other.read_bytes()


class Discarding(io.BytesIO):
    """A file that discards what is written."""

    def write(self, values: Any) -> int:
        return len(memoryview(values).cast("B"))


def test_memory_does_not_grow_with_the_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists_module, "_BUFFER", 1 << 16)
    index, batch = trained(8), random_vectors(1000)
    head = lists_head(index)
    assert head is not None

    def peak(batches: int) -> int:
        with (tmp_path / "scratch").open("w+b") as scratch:
            codes = ListedCodes(index, head, scratch)
            tracemalloc.start()
            for _ in range(batches):
                codes.add(batch)
            codes.write(Discarding())
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return size

    peak(2)
    assert peak(200) < 1.2 * peak(20)
    assert index.ntotal == 0  # FAISS, whose memory is not traced, holds no vectors


@pytest.mark.parametrize("limit", [17_400, 40_000])  # too small for the codes; for the index
def test_a_full_disk_leaves_no_index_and_no_codes(limit: int, tmp_path: Path) -> None:
    store = made_up_store(tmp_path / "S", count=3000, rows_per_part=700)
    options = IndexOptions(dense="ivfpq", lexical=False, threads=1, quiet=True)
    build_index(store, tmp_path / "uninterrupted", options)
    child = os.fork()
    if child == 0:
        code = 1
        tqdm.set_lock(threading.RLock())  # tqdm's lock is shared with this process
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            build_index(store, tmp_path / "I", options)
        except DiffRetrieverError as error:
            code = 3 if "free some space and run the command again" in str(error) else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert not (tmp_path / "I").exists()
    assert {path.name for path in (tmp_path / "I.unfinished" / "dense").iterdir()} <= {"docid", "index"}
    build_index(store, tmp_path / "I", options)
    assert not (tmp_path / "I.unfinished").exists()
    one, other = (tmp_path / name / "dense" / "index" for name in ("I", "uninterrupted"))
    assert one.read_bytes() == other.read_bytes()
