"""An index that a cluster builds and searches gives the run of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import IndexOptions, Store, open_index
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.cluster.indexing import build_on_ray
from diffretriever_pyserini.cluster.options import ClusterOptions
from diffretriever_pyserini.cluster.searching import RayOpener, open_on_ray
from diffretriever_pyserini.explaining.explain import explain
from diffretriever_pyserini.indexes import MultiBuild
from diffretriever_pyserini.indexes.build import index_job
from diffretriever_pyserini.searching import SearchIndex
from diffretriever_pyserini.searching.folder import IndexFolder

from .conftest import ROWS, TOPICS, in_one_thread
from .test_encoding import KILLS, Watcher

pytestmark = pytest.mark.java
TWO = ClusterOptions(cpus_per_worker=1)
OPTIONS = IndexOptions(shards=3, multi=MultiBuild(bytes_per_vector=16), threads=1, quiet=True)


def files(folder: Path) -> dict[str, bytes]:
    """The files of an index, without those in which Lucene writes times and random ids."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "lexical"
    }


@pytest.fixture(scope="module")
def indexes(cluster: None, work: Path) -> tuple[Path, Path]:
    """The index of one process and that of two workers, both in three shards; a worker is killed on the way."""
    killed: list[int] = []

    def kill(progress: dict[str, Any]) -> None:
        if not killed and progress["done"]:
            killed.append(progress["process"])
            os.kill(progress["process"], signal.SIGKILL)

    watcher = Watcher(kill)
    options = [
        "--shards",
        "3",
        "--dense",
        "--lexical",
        "--multi",
        "--bytes-per-vector",
        "16",
        "--threads",
        "1",
        "--quiet",
    ]
    in_one_thread(["index", "--store", str(work / "store"), "--output", str(work / "I"), *options])
    build_on_ray(index_job(work / "store", work / "R", OPTIONS), TWO, watcher)
    assert sorted(watcher.finished) == [0, 1, 2]
    assert len([text for text in watcher.said if "another one continues" in text]) == len(killed)
    return work / "I", work / "R"


def test_workers_build_the_index_of_one_process(indexes: tuple[Path, Path]) -> None:
    one, two = map(files, indexes)
    assert sorted(one) == sorted(two)
    assert [name for name in one if one[name] != two[name]] == []


class TestOpenedOnWorkers:
    """The workers take all processors of the cluster, so they end before the next tests."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, indexes: tuple[Path, Path]) -> Iterator[tuple[SearchIndex, SearchIndex]]:
        with open_index(indexes[0]) as here, open_on_ray(indexes[1], TWO) as there:
            yield here, there

    @pytest.mark.parametrize("mode", ["lexical", "multi", "dense", "hybrid"])
    def test_workers_give_the_run_of_one_process(self, opened: tuple[SearchIndex, SearchIndex], mode: str) -> None:
        for hits in (7, 1000):
            here, there = (index.search(TOPICS, mode, hits) for index in opened)
            assert here == there and (mode == "lexical" or len(here["q"]) == min(hits, ROWS))

    @pytest.mark.rare
    def test_a_worker_that_dies_opens_its_shards_again(self, opened: tuple[SearchIndex, SearchIndex]) -> None:
        import ray

        here, there = opened
        before = here.search(TOPICS, "hybrid")
        name = ray.get(there.opener._workers[0].node.remote())  # type: ignore[attr-defined]
        os.kill(int(name.rpartition(" ")[2]), signal.SIGKILL)
        assert there.search(TOPICS, "hybrid") == before

    def test_explain_asks_the_workers(self, opened: tuple[SearchIndex, SearchIndex]) -> None:
        here, there = (explain(index, TOPICS["q"], ["n11"])[0] for index in opened)
        assert here.dense == there.dense and here.result == there.result
        assert here.indexed_vectors == there.indexed_vectors


def test_a_store_is_divided_among_the_workers(cluster: None, work: Path) -> None:
    with open_index(work / "store") as here, open_on_ray(work / "store", TWO) as there:
        assert here.search(TOPICS) == there.search(TOPICS)
        assert there.searcher("multi").exact and len(there.folder.shards) == 2
        assert there.searcher("multi").documents == len(Store(work / "store"))


def test_the_commands(indexes: tuple[Path, Path], work: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    options = ["--shards", "2", "--dense", "--ray", "--cpus-per-worker", "1"]
    assert main(["index", "--store", str(work / "store"), "--output", str(tmp_path / "I"), *options]) == 0
    assert f"{tmp_path / 'I'}: 2 shards" in capsys.readouterr().out
    for index, more in ((indexes[0], []), (tmp_path / "I", ["--ray"])):
        search = ["search", "--index", str(index), "--topics", str(tmp_path / "topics.tsv"), "--mode", "dense"]
        assert main([*search, "--output", str(tmp_path / f"run{len(more)}"), *more]) == 0
    assert (tmp_path / "run0").read_bytes() == (tmp_path / "run1").read_bytes()


@pytest.mark.rare  # a killed driver of `encode` goes the same way (test_encoding.py)
def test_a_killed_driver_is_continued(indexes: tuple[Path, Path], work: Path, tmp_path: Path) -> None:
    """The command is killed at a random moment, ``RAY_KILLS`` times, and run again at once."""
    options = ["--shards", "3", "--dense", "--lexical", "--multi", "--bytes-per-vector", "16", "--threads", "1"]
    command = [sys.executable, "-m", "diffretriever_pyserini", "index", "--store", str(work / "store"), *options]
    command += ["--output", str(tmp_path / "I"), "--quiet", "--ray", "--cpus-per-worker", "1"]
    for number in range(KILLS):
        process = subprocess.Popen(command)
        time.sleep(8 + 14 * number / KILLS)
        process.kill()
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "I") == files(indexes[0])


def test_the_command_itself_searches_an_index_of_texts() -> None:
    class InThisProcess:
        def open(self, index: IndexFolder, signal: str) -> Any:
            return index, signal

    shard = IndexFolder("shard", Path("dense"), None)
    index = IndexFolder("I", None, None, text=Path("text"), shards=(shard, shard))
    need: Any = None  # no worker is needed
    assert RayOpener(InThisProcess(), index, need).open(index, "bm25") == (index, "bm25")
