"""Building the compressed index: whole or absent, resumed after a kill, and what a search finds in it."""

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
from diffretriever_pyserini.indexes.multivector.build import MultiBuild, build_multi
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex
from diffretriever_pyserini.indexes.multivector.index import CompressedIndex, MultiOptions
from diffretriever_pyserini.indexes.multivector.manifest import read_manifest
from diffretriever_pyserini.scoring.pairwise import maxsim
from diffretriever_pyserini.store.part import part_path
from diffretriever_pyserini.store.store import Store

from ..conftest import made_up_store
from .conftest import made, made_up_vectors, write_store


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def index(store: Store, tmp_path_factory: pytest.TempPathFactory) -> CompressedIndex:
    return made(store, tmp_path_factory.mktemp("built") / "multi", bytes_per_vector=12)


def overlap(index: CompressedIndex, store: Store, queries: list[np.ndarray], depth: int) -> float:
    """Share of the exact top ``depth`` that the index returns."""
    exact = ExactIndex(store).search_many(queries, depth)
    found = index.search_many(queries, depth)
    return float(np.mean([len(np.intersect1d(a[0], b[0])) / depth for a, b in zip(exact, found, strict=True)]))


def test_a_record_says_what_a_passage_costs(index: CompressedIndex, store: Store) -> None:
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
    """Where every passage is in the sample, it is what two searches say."""
    coarse = made(store, tmp_path / "coarse", bytes_per_vector=3)
    queries = list(measure._queries(build.sample_vectors(store, 1000)))
    shares = [overlap(one, store, queries, 100) for one in (index, coarse)]
    assert [one.manifest.recall["top100_in_top100"] for one in (index, coarse)] == pytest.approx(shares, abs=1e-3)
    assert shares[1] < shares[0] - 0.02


def test_recall_is_measured_on_a_sample(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_PASSAGES", 400)
    monkeypatch.setattr(measure, "_QUERY_VECTORS", 50)
    recall = made(store, tmp_path / "I", bytes_per_vector=12).manifest.recall
    assert (recall["queries"], recall["passages"]) == (12, 400)
    assert 0.9 < recall["top10_in_top100"] <= 1


def test_a_collection_without_vectors_has_no_recall(tmp_path: Path) -> None:
    recall = made(
        write_store(tmp_path / "S", np.zeros((5, 2, 8), np.float32)), tmp_path / "I", bytes_per_vector=8
    ).manifest.recall
    assert (recall["queries"], recall["passages"]) == (0, 5)


def test_scores_are_maxsim_with_the_decoded_vectors(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    for query in queries:
        rows, scores = index.search(query, 50)
        np.testing.assert_allclose(scores, maxsim(query[None], index.vectors(rows))[0], atol=2e-5)
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        assert len(set(rows.tolist())) == 50


def test_more_bytes_find_more(store: Store, queries: list[np.ndarray], tmp_path: Path) -> None:
    real = [query for query in queries if query.any()]
    found = [overlap(made(store, tmp_path / str(b), bytes_per_vector=b), store, real, 20) for b in (3, 12, 40)]
    assert found == sorted(found)
    assert found[-1] > 0.9
    refined = made(store, tmp_path / "R", bytes_per_vector=12, refine="int8")
    assert overlap(refined, store, real, 20) > max(0.95, found[1])


def test_every_hit_is_found_where_all_are_asked_for(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    rows, scores = index.search(queries[0], 5000)
    assert sorted(rows.tolist()) == list(range(1000))
    assert (scores >= 0).all()


def test_threads_and_batches_change_nothing(index: CompressedIndex, queries: list[np.ndarray]) -> None:
    alone = [index.search(query, 30) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda query: index.search(query, 30), queries))
    for others in (index.search_many(queries, 30), index.search_many(queries, 30, 3), at_once):
        for (rows, scores), (expected, known) in zip(others, alone, strict=True):
            assert rows.tolist() == expected.tolist()
            np.testing.assert_array_equal(scores, known)


def test_threads_share_a_query_that_is_much_work(
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
    index._threads.count = 3  # whatever this machine has
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
    """As servers do that open an index before they fork; its threads are not in the child."""
    expected = index.search(queries[0], 20)[0].tolist()
    child = os.fork()
    if not child:
        signal.alarm(30)
        found = index.search(queries[0], 20)[0].tolist()
        os._exit(found != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert index.search(queries[0], 20)[0].tolist() == expected


@pytest.mark.parametrize(("k", "width", "size"), [(1, 32, 9), (3, 37, 16), (9, 2, 4), (4, 45, 30)])
def test_widths_and_numbers_of_vectors(k: int, width: int, size: int, tmp_path: Path) -> None:
    vectors = made_up_vectors(100, k=k, width=width)
    index = made(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=size)
    assert index.manifest.stride + index.manifest.candidate_bytes <= k * size
    assert index.first.sa_code_size() == index.manifest.candidate_bytes
    rows, scores = index.search(vectors[3], 10)
    assert 3 in rows.tolist()
    np.testing.assert_allclose(scores, maxsim(vectors[3:4], index.vectors(rows))[0], atol=1e-4)


def test_inverted_lists(
    store: Store, queries: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What collections of millions get, on a small one."""
    monkeypatch.setattr(candidates, "_SCAN_ALL", 100)
    monkeypatch.setattr(candidates, "_PROBED", 2)
    index = made(store, tmp_path / "I", bytes_per_vector=12)
    assert index.first.nlist == candidates.lists_for(1000) > 16
    real = [query for query in queries if query.any()]
    assert overlap(index, store, real, 10) > 0.7


def test_the_same_command_gives_the_same_bytes(store: Store, index: CompressedIndex, tmp_path: Path) -> None:
    again = made(store, tmp_path / "again", bytes_per_vector=12)
    assert files(again.folder) == files(index.folder)


def test_a_kill_is_gone_on_from(
    store: Store, index: CompressedIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after each part in turn, with half a part written, nothing is trained or coded twice."""
    work, coded = tmp_path / "multi.work", []
    arrays = build.record_arrays

    def breaking(codec: object, vectors: np.ndarray, refine: str | None) -> dict[str, np.ndarray]:
        coded.append(len(vectors))
        if len(coded) % 3 == 0:
            raise KeyboardInterrupt
        return arrays(codec, vectors, refine)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "record_arrays", breaking)
    for _ in range(10):
        try:
            build_multi(store, tmp_path / "multi", MultiBuild(bytes_per_vector=12), work, quiet=True)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "multi").exists()
            monkeypatch.setattr(build, "train_codec", None)
            with (work / "records.u8").open("ab") as file:
                file.write(b"half a part")
    assert len(coded) == 14  # ten parts, and four that were broken off
    assert files(tmp_path / "multi") == files(index.folder)


_BUILD = """
import sys
from pathlib import Path
from diffretriever_pyserini.indexes.multivector.build import MultiBuild, build_multi
from diffretriever_pyserini.store.store import Store
folder = Path(sys.argv[2])
build_multi(Store(sys.argv[1]), folder, MultiBuild(bytes_per_vector=12), folder.with_name("work"), quiet=True)
"""


def test_kill_9(store: Store, index: CompressedIndex, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BUILD, str(store.folder), str(tmp_path / "multi")]
    for _ in range(3):  # as soon as a part, and then some more, are there
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


def test_other_options_begin_anew(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(build, "_stream", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_multi(store, tmp_path / "multi", MultiBuild(bytes_per_vector=3), work, quiet=True)
    build_multi(store, tmp_path / "multi", MultiBuild(bytes_per_vector=12), work, quiet=True)
    assert read_manifest(tmp_path / "multi").stride > 12


def test_another_store_of_the_same_shape_begins_anew(
    store: Store, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus whose files kept their sizes, encoded again: what was made of the first one is not gone on with."""
    options, work = MultiBuild(bytes_per_vector=12), tmp_path / "work"
    other = write_store(tmp_path / "S", vectors[::-1].copy())
    assert other.spec == store.spec
    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure_recall", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_multi(other, tmp_path / "multi", options, work, quiet=True)
    build_multi(store, tmp_path / "multi", options, work, quiet=True)
    assert files(tmp_path / "multi") == files(made(store, tmp_path / "alone", bytes_per_vector=12).folder)


def test_what_cannot_be_built(store: Store, tmp_path: Path) -> None:
    for options, message in (
        ({"bytes_per_vector": 0}, "bytes_per_vector=0"),
        ({"refine": "int4"}, "refine='int4' must be one of 'int8'"),
    ):
        with pytest.raises(InputError, match=message):
            MultiBuild(**options)
    with pytest.raises(InputError, match="kept one pooled vector a passage"):
        made(made_up_store(tmp_path / "P", count=20, vectors="pooled"), tmp_path / "I")
    with pytest.raises(InputError, match="no passages"):
        made(write_store(tmp_path / "E", np.zeros((0, 2, 8), np.float32)), tmp_path / "I")
    damaged = write_store(tmp_path / "D", made_up_vectors(30))
    path = part_path(damaged.folder, 0)
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(InputError, match="checksum is wrong"):
        made(Store(damaged.folder), tmp_path / "I")
    assert not (tmp_path / "I").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_very_small_collections(count: int, tmp_path: Path) -> None:
    vectors = made_up_vectors(count)
    index = made(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=16)
    rows, scores = index.search(vectors[0], 10)
    assert rows[0] == 0
    assert len(rows) == count
    assert scores[0] == pytest.approx(maxsim(vectors[:1], vectors[:1])[0, 0], abs=0.05)


@pytest.mark.parametrize("refine", [None, "int8"])
def test_who_has_it_open_goes_on(store: Store, queries: list[np.ndarray], refine: str | None, tmp_path: Path) -> None:
    """An index that was opened, but not yet searched, when its folder was replaced."""
    opened, kept = (made(store, tmp_path / name, bytes_per_vector=12, refine=refine) for name in "AB")
    shutil.rmtree(opened.folder)
    for query in queries:
        rows, scores = opened.search(query, 50)
        expected, known = kept.search(query, 50)
        assert opened.docids(rows) == kept.docids(expected)
        np.testing.assert_array_equal(scores, known)
    assert opened.row_of("p7") == 7
    assert opened.row_of("q") is None


def test_the_command_shows_what_an_index_holds(index: CompressedIndex, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_the_command_says_what_was_made(
    store: Store, vectors: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How much is found is said where there are enough passages that it means something."""
    small = write_store(tmp_path / "small", vectors[:230])
    for indexed, told in ((store, "of the exact top 10, "), (small, "230 passages are too few to say")):
        assert (
            main(["index", "--store", str(indexed.folder), "--output", str(tmp_path / f"{len(indexed)}"), "--multi"])
            == 0
        )
        out = capsys.readouterr().out
        assert told in out
        assert re.search(r"multi: \d+ bytes per passage, [\d.,]+ \w+ for the codec, ", out)


def test_a_link_to_another_disk_holds_what_is_made_and_what_a_failure_leaves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the link there may be no room, and a rename would not reach."""
    from diffretriever_pyserini.indexes import build as building
    from diffretriever_pyserini.indexes.options import IndexOptions

    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "link"
    link.symlink_to(tmp_path / "disk" / "ix")
    options = IndexOptions(dense=None, lexical=False, multi=MultiBuild(bytes_per_vector=12), quiet=True)

    def failing(*arguments: Any) -> None:
        made_multi(*arguments)
        raise RuntimeError

    made_multi = building.build_multi
    for attempt in (failing, made_multi, made_multi):
        monkeypatch.setattr(building, "build_multi", attempt)
        if attempt is failing:
            with pytest.raises(RuntimeError):
                building.build_index(store, link, options)
            left = ["ix.multi.unfinished", "ix.unfinished"]
            assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == left
        else:
            building.build_index(store, link, options)
            assert [path.name for path in (tmp_path / "disk").iterdir()] == ["ix"]
        assert link.is_symlink() and [path.name for path in (tmp_path / "here").iterdir()] == ["link"]
    assert CompressedIndex(link / "multi").passages == len(store)


@pytest.mark.parametrize("refine", [None, "int8"])
def test_a_short_list_is_the_head_of_a_long_one_in_the_midst_of_ties(
    tmp_path: Path, refine: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """700 equal passages among 2,000: more than are proposed for the short list."""
    vectors = made_up_vectors(2000)
    alike = np.random.default_rng(3).permutation(2000)[:700]
    vectors[alike] = vectors[alike[0]]
    index = made(write_store(tmp_path / "S", vectors), tmp_path / "I", bytes_per_vector=12, refine=refine)
    first = sorted((f"p{row}" for row in alike), reverse=True)
    for query in (vectors[alike[0]], np.zeros_like(vectors[0])):
        rows, scores = index.search(query, 1000)
        if query.any():
            assert index.docids(rows[:200]) == first[:200]
        for depth in (1, 5, 60):
            short, values = index.search(query, depth)
            assert index.docids(short) == index.docids(rows[:depth])
            np.testing.assert_array_equal(values, scores[:depth])
