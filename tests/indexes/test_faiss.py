"""FAISS indexes of a store: recall, equal bytes in every run, bounded memory, and complete or absent outputs."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import faiss
import numpy as np
import pytest
from tqdm.auto import tqdm

from diffretriever_pyserini import scoring
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.indexes import faiss as dense_module
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.indexes.codes import file_layout
from diffretriever_pyserini.indexes.faiss import KINDS, DensePlan, empty_index, training_sample
from diffretriever_pyserini.indexes.multivector.build import MultiBuild
from diffretriever_pyserini.store.index_record import IndexRecord, read_index_record
from diffretriever_pyserini.store.part import part_path
from diffretriever_pyserini.store.store import Store

from .conftest import all_pooled, made_up_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 700 passages in parts of 100."""
    return made_up_store(tmp_path_factory.mktemp("made-up") / "S")


def build(store: Store, output: Path, kind: str = "flat", **options: object) -> dict:
    return build_index(store, output, IndexOptions(**{"dense": kind, "lexical": False, "threads": 1} | options))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def queries(store: Store) -> np.ndarray:
    rows = all_pooled(store)[::7]
    return rows + 0.05 * np.random.default_rng(3).standard_normal(rows.shape, dtype=np.float32)


def test_flat_gives_the_exact_pooled_scores(store: Store, tmp_path: Path) -> None:
    facts = build(store, tmp_path / "I")
    index = faiss.read_index(str(tmp_path / "I" / "dense" / "index"))
    assert type(index).__name__ == "IndexFlatIP" and index.ntotal == len(store) == facts["passages"]
    expected = scoring.pooled_scores(queries(store), all_pooled(store))
    scores, rows = index.search(queries(store), len(store))
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), scores, atol=1e-6)
    assert (tmp_path / "I" / "dense" / "docid").read_text().split() == list(store.docids())
    record = IndexRecord(store.spec.provenance, store.spec.dimension, len(store))
    assert read_index_record(tmp_path / "I" / "dense") == record
    assert json.loads((tmp_path / "I" / "index.json").read_text()) == facts
    assert facts["lexical"] is None and facts["dense"]["kind"] == "flat" and facts["format"] == 2


@pytest.mark.parametrize(("kind", "least"), [("sq8", 0.97), ("pq", 0.3), ("ivfpq", 0.3), ("hnsw", 0.97)])
def test_the_recall_of_the_other_kinds(store: Store, tmp_path: Path, kind: str, least: float) -> None:
    build(store, tmp_path / "I", kind)
    index = faiss.read_index(str(tmp_path / "I" / "dense" / "index"))
    assert index.ntotal == len(store) and index.metric_type == faiss.METRIC_INNER_PRODUCT
    truth = np.argsort(-scoring.pooled_scores(queries(store), all_pooled(store)), axis=1)[:, :10]
    _, rows = index.search(queries(store), 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])
    assert recall > least  # by chance it would be 10 of 700, 0.014


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_store_gives_the_same_bytes(store: Store, tmp_path: Path, kind: str) -> None:
    for name in "ab":
        build(store, tmp_path / name, kind, threads=None)
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("kind", ["flat", "sq8", "pq"])
def test_streamed_files_are_those_that_faiss_writes(
    store: Store, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, tmp_path / "streamed", kind)
    monkeypatch.setattr(dense_module, "file_layout", lambda index: None)  # as with a FAISS of another layout
    build(store, tmp_path / "faiss", kind)
    assert files(tmp_path / "streamed") == files(tmp_path / "faiss")


def test_a_file_that_cannot_be_streamed_is_detected() -> None:
    assert file_layout(empty_index(DensePlan("flat", 5, 8))) is not None
    assert file_layout(faiss.IndexLSH(8, 16)) is not None  # any other flat code works too
    graph = empty_index(DensePlan("hnsw", 5, 8))
    graph.sa_encode = lambda vectors: vectors  # its file holds more than codes
    assert file_layout(graph) is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("vectors", ["all", "pooled"])
def test_every_format_of_store(tmp_path: Path, dtype: str, vectors: str) -> None:
    store = made_up_store(tmp_path / "S", count=30, dtype=dtype, vectors=vectors)
    build(store, tmp_path / "I")
    index = faiss.read_index(str(tmp_path / "I" / "dense" / "index"))
    np.testing.assert_array_equal(index.reconstruct_n(0, 30), all_pooled(store))
    assert np.abs(all_pooled(store)).sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_passage_is_enough(tmp_path: Path, kind: str) -> None:
    store = made_up_store(tmp_path / "S", count=1)
    build(store, tmp_path / "I", kind)
    index = faiss.read_index(str(tmp_path / "I" / "dense" / "index"))
    assert index.search(all_pooled(store), 1)[1].tolist() == [[0]]


def test_the_sample_is_uniform_and_the_same_in_every_run(store: Store) -> None:
    for size in (5, 300, 700):
        sample = training_sample(store, size)
        np.testing.assert_array_equal(sample, training_sample(store, size))
        all_rows = {row.tobytes() for row in all_pooled(store)}
        assert len({row.tobytes() for row in sample} & all_rows) == size
    first_half = {row.tobytes() for row in all_pooled(store)[:350]}
    share = np.mean([row.tobytes() in first_half for row in training_sample(store, 300)])
    assert 0.4 < share < 0.6


def test_too_little_memory_is_an_error_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    for kind in ("flat", "hnsw"):
        with pytest.raises(DiffRetrieverError, match="limit") as error:
            build(store, tmp_path / "I", kind, max_memory=4e-5)
        for part in (kind, "sq8", "ivfpq", "--max-memory", "700 vectors"):
            assert part in str(error.value)
    assert not list(tmp_path.iterdir())
    build(store, tmp_path / "I", "sq8", max_memory=4e-5)


def test_the_default_limit_is_a_share_of_the_free_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffretriever_pyserini.indexes.job.available_bytes", lambda: 50_000)
    with pytest.raises(DiffRetrieverError, match="80% of the free memory"):
        build(store, tmp_path / "I")
    monkeypatch.setattr("diffretriever_pyserini.indexes.job.available_bytes", lambda: 60_000)
    build(store, tmp_path / "I")  # 700 x 16 x 4 = 44,800 bytes


def test_figures_at_scale() -> None:
    flat, ivfpq = DensePlan("flat", 8_841_823, 4096), DensePlan("ivfpq", 8_841_823, 4096)
    assert flat.memory == 8_841_823 * 4096 * 4
    assert (ivfpq.lists, ivfpq.code_bytes, ivfpq.sample) == (1024, 512, 40_960)
    assert DensePlan("pq", 10, 100).code_bytes == 10, "the number of codes must divide the dimension"
    assert DensePlan("pq", 10, 7).code_bytes == 1
    with pytest.raises(InputError, match="'cube' is not one of flat"):
        DensePlan("cube", 1, 1)


def damage(store: Store, number: int) -> Path:
    path = part_path(store.folder, number)
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    return path


def test_a_damaged_part_is_named_and_the_old_index_stays(tmp_path: Path) -> None:
    store = made_up_store(tmp_path / "S", count=300)
    build(store, tmp_path / "I")
    before = files(tmp_path / "I")
    path = damage(store, 1)
    with pytest.raises(InputError, match=f"{path}: the checksum is wrong"):
        build(Store(store.folder), tmp_path / "I", rebuild=True)
    assert files(tmp_path / "I") == before
    build(Store(store.folder), tmp_path / "trusting", verify=False)


@pytest.mark.parametrize("twin", [7, 250])
def test_an_id_that_occurs_twice_is_named(tmp_path: Path, twin: int) -> None:
    docids = [f"p{i}" for i in range(300)]
    docids[twin] = "p3"
    store = made_up_store(tmp_path / "S", count=300, docids=docids)
    with pytest.raises(InputError, match="'p3'") as error:
        build(store, tmp_path / "I")
    first, second = (str(part_path(store.folder, number)) for number in (0, twin // 100))
    assert first in str(error.value) and second in str(error.value)
    assert not (tmp_path / "I").exists()


def test_ids_that_only_share_a_hash_are_different(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffretriever_pyserini.store.docids._hash", lambda docid: (len(docid), 0))
    build(store, tmp_path / "I")


def test_an_index_of_another_store_is_never_lost(store: Store, tmp_path: Path) -> None:
    build(store, tmp_path / "I")
    other = made_up_store(tmp_path / "S", count=30)
    with pytest.raises(DiffRetrieverError, match="holds a dense index of another store"):
        build_index(other, tmp_path / "I", IndexOptions(dense=None, lexical=False, multi=MultiBuild()))
    with pytest.raises(InputError, match="No index is selected"):
        IndexOptions(dense=None, lexical=False)


@pytest.mark.parametrize("links", [True, False])
def test_an_existing_signal_stays(store: Store, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:  # as on file systems without hard links
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "not permitted")))
    build(store, tmp_path / "I")
    before = files(tmp_path / "I" / "dense")
    multi = MultiBuild(bytes_per_vector=8)
    facts = build_index(store, tmp_path / "I", IndexOptions(dense=None, lexical=False, multi=multi, quiet=True))
    assert facts["dense"]["kind"] == "flat"
    assert facts["multi"]["bytes_per_passage"] <= 16
    assert files(tmp_path / "I" / "dense") == before
    facts = build(store, tmp_path / "I", "sq8")
    assert (facts["dense"]["kind"], facts["multi"]["recall"]["top10_in_top100"] > 0.5) == ("sq8", True)
    assert (tmp_path / "I" / "multi" / "multi.json").is_file()


def test_a_signal_stays_if_a_kill_came_while_the_index_was_replaced(store: Store, tmp_path: Path) -> None:
    """Between the two renames the older index has only its temporary name."""
    build(store, tmp_path / "I")
    before = files(tmp_path / "I" / "dense")
    (tmp_path / "I").rename(tmp_path / "I.replaced")
    options = IndexOptions(dense=None, lexical=False, multi=MultiBuild(bytes_per_vector=8), quiet=True)
    assert build_index(store, tmp_path / "I", options)["dense"]["kind"] == "flat"
    assert files(tmp_path / "I" / "dense") == before
    assert not (tmp_path / "I.replaced").exists()


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no passages"):
        build(made_up_store(tmp_path / "S", count=0), tmp_path / "I")


def test_a_missing_gpu_is_an_error(store: Store, tmp_path: Path) -> None:
    if faiss.get_num_gpus():
        pytest.skip("FAISS sees a GPU here")
    with pytest.raises(DiffRetrieverError, match="sees no GPU"):
        build(store, tmp_path / "I", "ivfpq", gpu=True)


@pytest.mark.parametrize("kind", ["flat", "sq8", "ivfpq"])
def test_after_a_kill_the_next_run_writes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    store = made_up_store(tmp_path / "S", count=2000, dimension=32, rows_per_part=50)
    started = time.monotonic()
    build(store, tmp_path / "uninterrupted", kind)
    seconds = time.monotonic() - started
    expected = files(tmp_path / "uninterrupted")
    generator = np.random.default_rng(8)
    killed = 0
    for _ in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            tqdm.set_lock(threading.RLock())  # that of the product's class is shared: a killed child may hold it
            try:
                build(store, tmp_path / "I", kind, rebuild=True, quiet=True)
                code = 0
            finally:
                os._exit(code)
        time.sleep(generator.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert not (tmp_path / "I").exists() or files(tmp_path / "I") == expected
    assert killed
    build(store, tmp_path / "I", kind, rebuild=True)
    assert files(tmp_path / "I") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"S", "I", "uninterrupted"}
