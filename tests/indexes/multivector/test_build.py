"""Building the compressed index: complete or absent, resumed after a kill, and searched."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.indexes.multivector import build, candidates, measure
from diffretriever_pyserini.indexes.multivector import index as multi_index
from diffretriever_pyserini.indexes.multivector.build import MultiBuild, MultiJob
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex
from diffretriever_pyserini.indexes.multivector.index import CompressedIndex, MultiOptions
from diffretriever_pyserini.indexes.multivector.manifest import read_manifest
from diffretriever_pyserini.scoring.pairwise import maxsim
from diffretriever_pyserini.store.part import part_path
from diffretriever_pyserini.store.store import Store

from ..conftest import made_up_store
from .conftest import built, made_up_vectors, write_store


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def index(store: Store, tmp_path_factory: pytest.TempPathFactory) -> CompressedIndex:
    return built(store, tmp_path_factory.mktemp("built") / "multi", bytes_per_vector=12)


def overlap(index: CompressedIndex, store: Store, queries: list[np.ndarray], depth: int) -> float:
    """Return the share of the exact top ``depth`` that the index returns."""
    exact = ExactIndex(store).search_many(queries, depth)
    hits = index.search_many(queries, depth)
    return float(np.mean([len(np.intersect1d(a[0], b[0])) / depth for a, b in zip(exact, hits, strict=True)]))


def test_the_manifest_has_the_bytes_per_passage(index: CompressedIndex, store: Store) -> None:
    manifest = index.manifest
    assert manifest.stride + manifest.candidate_bytes <= 12 * 4
    assert (index.passages, manifest.encoder) == (len(store), store.spec.encoder)
    assert index.docids(np.array([999, 4])) == ["p999", "p4"]
    assert manifest.recall["top10_in_top100"] > 0.95
    assert (manifest.recall["queries"], manifest.recall["passages"]) == (64, 1000)
    assert set(files(index.folder)) == {
        "candidates.faiss",
        "codec.safetensors",
        "diffretriever.json",
        "docid_bounds.i64",
        "docids.utf8",
        "multi.json",
        "records.u8",
    }


@pytest.mark.parametrize(
    ("count", "k", "width"), [(300, 4, 32), (9_000_000, 4, 384), (9_000_000, 16, 3584), (138_000_000, 64, 8192)]
)
def test_the_measured_sample_is_bounded(count: int, k: int, width: int) -> None:
    size = measure.sample_size(count, k, width)
    assert 1 <= size <= min(count, 10_000)
    assert size * k * width * 4 <= 1 << 30
    rows = build.sample_rows(count, size)
    assert len(np.unique(rows)) == size
    np.testing.assert_array_equal(rows, build.sample_rows(count, size))


def test_recall_is_the_overlap_with_the_exact_ranking(index: CompressedIndex, store: Store, tmp_path: Path) -> None:
    """If every passage is in the sample, it is the overlap of two searches."""
    coarse = built(store, tmp_path / "coarse", bytes_per_vector=3)
    queries = list(measure._queries(build.sample_vectors(store, 1000)))
    shares = [overlap(tested, store, queries, 100) for tested in (index, coarse)]
    assert [tested.manifest.recall["top100_in_top100"] for tested in (index, coarse)] == pytest.approx(shares, abs=1e-3)
    assert shares[1] < shares[0] - 0.02


def test_recall_is_measured_on_a_sample(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_PASSAGES", 400)
    monkeypatch.setattr(measure, "_QUERY_VECTORS", 50)
    recall = built(store, tmp_path / "I", bytes_per_vector=12).manifest.recall
    assert (recall["queries"], recall["passages"]) == (12, 400)
    assert 0.9 < recall["top10_in_top100"] <= 1


def test_a_collection_without_vectors_has_no_recall(tmp_path: Path) -> None:
    recall = built(
        write_store(tmp_path / "S", np.zeros((5, 2, 8), np.float32)), tmp_path / "I", bytes_per_vector=8
    ).manifest.recall
    assert (recall["queries"], recall["passages"]) == (0, 5)


def test_scores_are_maxsim_with_the_decoded_vectors(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    for query in queries:
        rows, scores = index.search(query, 50)
        np.testing.assert_allclose(scores, maxsim(query[None], index.vectors(rows))[0], atol=2e-5)
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert len(set(rows.tolist())) == 50


def test_more_bytes_give_more_recall(store: Store, queries: list[np.ndarray], tmp_path: Path) -> None:
    real = [query for query in queries if query.any()]
    recalls = [overlap(built(store, tmp_path / str(b), bytes_per_vector=b), store, real, 20) for b in (3, 12, 40)]
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.9
    refined = built(store, tmp_path / "R", bytes_per_vector=12, refine="int8")
    assert overlap(refined, store, real, 20) > max(0.95, recalls[1])


def test_a_depth_beyond_the_collection_returns_all_passages(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    rows, scores = index.search(queries[0], 5000)
    assert sorted(rows.tolist()) == list(range(1000))
    assert (scores >= 0).all()


def test_threads_and_batches_do_not_change_the_hits(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    alone = [index.search(query, 30) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda query: index.search(query, 30), queries))
    for others in (index.search_many(queries, 30), index.search_many(queries, 30, 3), at_once):
        for (rows, scores), (expected, known) in zip(others, alone, strict=True):
            assert rows.tolist() == expected.tolist()
            np.testing.assert_array_equal(scores, known)


def test_threads_share_a_query_of_much_work(
    index: CompressedIndex, queries: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [index.search(query, 30, threads=1) for query in queries]
    shared: list[bool] = []
    scores = multi_index.QueryScorer.scores
    monkeypatch.setattr(multi_index, "_SHARED_BYTES", 30 * index.manifest.stride)
    monkeypatch.setattr(
        multi_index.QueryScorer,
        "scores",
        lambda tables, records: (shared.append(tables._workers is not None), scores(tables, records))[1],
    )
    index._threads.count = 3  # independent of this machine
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda query: index.search(query, 30), queries))
    assert any(shared)
    for (rows, values), (expected, known) in zip(at_once, alone, strict=True):
        assert rows.tolist() == expected.tolist()
        np.testing.assert_array_equal(values, known)
    shared.clear()
    index.search_many(queries, 30, 2)
    index.search(queries[0], 30, threads=1)
    assert not any(shared)


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded")
def test_a_forked_process_searches_too(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    """Servers may open an index before they fork; a fork does not copy its threads."""
    expected = index.search(queries[0], 20)[0].tolist()
    child = os.fork()
    if not child:
        signal.alarm(30)
        rows = index.search(queries[0], 20)[0].tolist()
        os._exit(rows != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert index.search(queries[0], 20)[0].tolist() == expected


@pytest.mark.parametrize(("k", "width", "size"), [(1, 32, 9), (3, 37, 16), (9, 2, 4), (4, 45, 30)])
def test_widths_and_numbers_of_vectors(k: int, width: int, size: int, tmp_path: Path) -> None:
    vectors = made_up_vectors(100, k=k, width=width)
    index = built(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=size)
    assert index.manifest.stride + index.manifest.candidate_bytes <= k * size
    assert index.first_stage.sa_code_size() == index.manifest.candidate_bytes
    rows, scores = index.search(vectors[3], 10)
    assert 3 in rows.tolist()
    np.testing.assert_allclose(scores, maxsim(vectors[3:4], index.vectors(rows))[0], atol=1e-4)


def test_inverted_lists(
    store: Store, queries: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of collections of millions, on a small one."""
    monkeypatch.setattr(candidates, "_SCAN_ALL", 100)
    monkeypatch.setattr(candidates, "_PROBED", 2)
    index = built(store, tmp_path / "I", bytes_per_vector=12)
    assert index.first_stage.nlist == candidates.lists_for(1000) > 16
    real = [query for query in queries if query.any()]
    assert overlap(index, store, real, 10) > 0.7


def test_the_same_command_gives_the_same_bytes(store: Store, index: CompressedIndex, tmp_path: Path) -> None:
    again = built(store, tmp_path / "again", bytes_per_vector=12)
    assert files(again.folder) == files(index.folder)


def test_a_build_continues_after_a_kill(
    store: Store, index: CompressedIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after each part, with half a part written, a build trains and encodes nothing twice."""
    work, coded = tmp_path / "multi.work", []
    arrays = build.record_arrays

    def interrupted(codec: object, vectors: np.ndarray, refine: str | None) -> dict[str, np.ndarray]:
        coded.append(len(vectors))
        if len(coded) % 3 == 0:
            raise KeyboardInterrupt
        return arrays(codec, vectors, refine)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "record_arrays", interrupted)
    for _ in range(10):
        try:
            MultiJob(store, MultiBuild(bytes_per_vector=12), work).build(tmp_path / "multi")
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "multi").exists()
            monkeypatch.setattr(build, "train_codec", None)
            with (work / "records.u8").open("ab") as file:
                file.write(b"half a part")
    assert len(coded) == 14  # ten parts, and four interrupted ones
    assert files(tmp_path / "multi") == files(index.folder)


_BUILD = """
import sys
from pathlib import Path
from diffretriever_pyserini.indexes.multivector.build import MultiBuild, MultiJob
from diffretriever_pyserini.store.store import Store
folder = Path(sys.argv[2])
MultiJob(Store(sys.argv[1]), MultiBuild(bytes_per_vector=12), folder.with_name("work")).build(folder)
"""


def test_kill_9(store: Store, index: CompressedIndex, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BUILD, str(store.folder), str(tmp_path / "multi")]
    for _ in range(3):  # each time as soon as another part is written
        process = subprocess.Popen(command)
        records, before = tmp_path / "work/records.u8", 0
        if records.is_file():
            before = records.stat().st_size
        while process.poll() is None and not (records.is_file() and records.stat().st_size > before):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if not (tmp_path / "multi").exists():
        subprocess.run(command, check=True)
    assert files(tmp_path / "multi") == files(index.folder)


def test_other_options_start_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(MultiJob, "_stream", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            MultiJob(store, MultiBuild(bytes_per_vector=3), work).build(tmp_path / "multi")
    MultiJob(store, MultiBuild(bytes_per_vector=12), work).build(tmp_path / "multi")
    assert read_manifest(tmp_path / "multi").stride > 12


def test_another_store_of_the_same_shape_starts_again(
    store: Store, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus changed without changing its file sizes: a build must not continue with the old store's records."""
    options, work = MultiBuild(bytes_per_vector=12), tmp_path / "work"
    other = write_store(tmp_path / "S", vectors[::-1].copy())
    assert other.spec == store.spec
    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure_recall", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            MultiJob(other, options, work).build(tmp_path / "multi")
    MultiJob(store, options, work).build(tmp_path / "multi")
    assert files(tmp_path / "multi") == files(built(store, tmp_path / "alone", bytes_per_vector=12).folder)


def test_invalid_options_and_stores_are_errors(store: Store, tmp_path: Path) -> None:
    for options, message in (
        ({"bytes_per_vector": 0}, "bytes_per_vector=0"),
        ({"refine": "int4"}, "refine='int4' must be one of 'int8'"),
    ):
        with pytest.raises(InputError, match=message):
            MultiBuild(**options)
    with pytest.raises(InputError, match="has one pooled vector per passage"):
        built(made_up_store(tmp_path / "P", count=20, vectors="pooled"), tmp_path / "I")
    with pytest.raises(InputError, match="no passages"):
        built(write_store(tmp_path / "E", np.zeros((0, 2, 8), np.float32)), tmp_path / "I")
    damaged = write_store(tmp_path / "D", made_up_vectors(30))
    path = part_path(damaged.folder, 0)
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(InputError, match="checksum is wrong"):
        built(Store(damaged.folder), tmp_path / "I")
    assert not (tmp_path / "I").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_very_small_collections(count: int, tmp_path: Path) -> None:
    vectors = made_up_vectors(count)
    index = built(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=16)
    rows, scores = index.search(vectors[0], 10)
    assert rows[0] == 0
    assert len(rows) == count
    assert scores[0] == pytest.approx(maxsim(vectors[:1], vectors[:1])[0, 0], abs=0.05)


@pytest.mark.parametrize("refine", [None, "int8"])
def test_an_open_index_can_be_searched_after_it_is_replaced(
    store: Store, queries: list[np.ndarray], refine: str | None, tmp_path: Path
) -> None:
    """The index was opened, but not yet searched, when its folder was replaced."""
    opened, other = (built(store, tmp_path / name, bytes_per_vector=12, refine=refine) for name in "AB")
    shutil.rmtree(opened.folder)
    for query in queries:
        rows, scores = opened.search(query, 50)
        expected, known = other.search(query, 50)
        assert opened.docids(rows) == other.docids(expected)
        np.testing.assert_array_equal(scores, known)
    assert opened.row_of("p7") == 7
    assert opened.row_of("q") is None


def test_the_command_shows_the_manifest(index: CompressedIndex, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["multi", "info", "--index", str(index.folder)]) == 0
    out = capsys.readouterr().out
    assert "1,000 passages\n  4 vectors of 32 components by " in out
    assert re.search(
        r" \d+ bytes per passage\n  measured at build time: of the exact top 10, \d+\.\d% are in its top 100", out
    )
    assert "(measured on 64 queries and 1,000 passages" in out
    assert main(["multi", "info", "--index", str(index.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(index.manifest)
    assert main(["multi", "--index", str(index.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(index.manifest)
    assert main(["multi", "info", "--index", str(index.folder.parent)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_options_of_searching(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    few = CompressedIndex(index.folder, MultiOptions(candidates=25))
    assert len(few.search(queries[0], 10)[0]) == 10
    assert len(few.search(queries[0], 40)[0]) == 40  # never fewer candidates than hits
    for wrong in ({"candidates": 0}, {"refine": -1}):
        with pytest.raises(InputError):
            MultiOptions(**wrong)
    with pytest.raises(DiffRetrieverError, match="is no multi-vector index"):
        CompressedIndex(index.folder.parent)


@pytest.mark.java
def test_the_command_shows_what_was_built(
    store: Store, vectors: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recall is shown if there are enough passages for it to be meaningful."""
    small = write_store(tmp_path / "small", vectors[:230])
    for indexed, message in ((store, "of the exact top 10, "), (small, "230 passages are too few to say")):
        assert (
            main(["index", "--store", str(indexed.folder), "--output", str(tmp_path / f"{len(indexed)}"), "--multi"])
            == 0
        )
        out = capsys.readouterr().out
        assert message in out
        assert re.search(r"multi: \d+ bytes per passage, [\d.,]+ \w+ for the codec, ", out)


def test_a_link_to_another_disk_is_followed_for_outputs_and_work_folders(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the link there may be no space, and a rename cannot cross disks."""
    from diffretriever_pyserini.indexes import build as building
    from diffretriever_pyserini.indexes.options import IndexOptions

    (tmp_path / "disk").mkdir()
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link"
    link.symlink_to(tmp_path / "disk" / "ix")
    options = IndexOptions(dense=None, lexical=False, multi=MultiBuild(bytes_per_vector=12), quiet=True)

    def failing(*arguments: Any) -> None:
        original(*arguments)
        raise RuntimeError

    original = MultiJob.build
    for attempt in (failing, original, original):
        monkeypatch.setattr(MultiJob, "build", attempt)
        if attempt is failing:
            with pytest.raises(RuntimeError):
                building.build_index(store, link, options)
            left = ["ix.multi.unfinished", "ix.unfinished"]
            assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == left
        else:
            building.build_index(store, link, options)
            assert [path.name for path in (tmp_path / "disk").iterdir()] == ["ix"]
        assert link.is_symlink() and [path.name for path in (tmp_path / "links").iterdir()] == ["link"]
    assert CompressedIndex(link / "multi").passages == len(store)


@pytest.mark.parametrize("refine", [None, "int8"])
def test_a_short_list_is_the_head_of_a_long_one_even_with_ties(
    tmp_path: Path, refine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """700 of 2,000 passages are equal: more than the candidates for the short list."""
    vectors = made_up_vectors(2000)
    tied = np.random.default_rng(3).permutation(2000)[:700]
    vectors[tied] = vectors[tied[0]]
    index = built(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=12, refine=refine)
    first = sorted((f"p{row}" for row in tied), reverse=True)
    for query in (vectors[tied[0]], np.zeros_like(vectors[0])):
        rows, scores = index.search(query, 1000)
        if query.any():
            assert index.docids(rows[:200]) == first[:200]
        for depth in (1, 5, 60):
            short, values = index.search(query, depth)
            assert index.docids(short) == index.docids(rows[:depth])
            np.testing.assert_array_equal(values, scores[:depth])
