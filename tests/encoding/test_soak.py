"""Kills at random moments and full disks: the finished store has the bytes of an uninterrupted run."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.plugin.registry import ensure_registered
from diffretriever_pyserini.searching import open_index
from diffretriever_pyserini.store.store import Store

from .conftest import passages, write_corpus
from .soak_child import encode
from .test_job import content

KILLS = 12


def start_child(model: DiffRetriever, corpus: Path, output: Path, limit: int | None = None) -> BaseProcess:
    """Start to encode in a process forked by a clean server, as this one may have a JVM and threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.encoding.soak_child"])
    child = context.Process(target=encode, args=(model.config.backbone, str(corpus), str(output), limit))
    child.start()
    return child


def exit_code(child: BaseProcess) -> int | None:
    """Wait for ``child`` and return its exit code, negative for a signal."""
    child.join()
    return child.exitcode


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough passages for a run of some seconds."""
    return write_corpus(tmp_path_factory.mktemp("soak") / "corpus.jsonl", passages(160))


@pytest.fixture(scope="module")
def uninterrupted(model: DiffRetriever, corpus: Path) -> tuple[dict[str, bytes], float]:
    """The store of an uninterrupted run, and the seconds it took."""
    assert exit_code(start_child(model, corpus, corpus.parent / "warm-up")) == 0
    started = time.monotonic()
    assert exit_code(start_child(model, corpus, corpus.parent / "uninterrupted")) == 0
    return content(corpus.parent / "uninterrupted"), time.monotonic() - started


@pytest.fixture(scope="module")
def survivor(model: DiffRetriever, corpus: Path, uninterrupted: tuple[dict[str, bytes], float]) -> Path:
    """The store of a run that was killed again and again."""
    expected, seconds = uninterrupted
    folder, generator = corpus.parent / "killed", random.Random(20261122)
    killed = 0
    for attempt in range(10 * KILLS):
        if killed == KILLS:
            break
        child = start_child(model, corpus, folder)
        time.sleep(generator.uniform(0, seconds / 2))
        child.kill()
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
        if code == 0:  # it finished before the kill: start again in an empty folder
            assert content(folder) == expected
            folder.rename(corpus.parent / f"finished-{attempt}")
    assert killed == KILLS
    assert exit_code(start_child(model, corpus, folder)) == 0
    return folder


def test_kills_at_random_moments(survivor: Path, uninterrupted: tuple[dict[str, bytes], float]) -> None:
    assert content(survivor) == uninterrupted[0]
    assert list(Store(survivor).docids()) == [record["id"] for record in passages(160)]


@pytest.mark.java
@pytest.mark.parametrize("kind", ["flat", "sq8", "pq"])
def test_its_indexes_are_those_of_the_uninterrupted_store(
    survivor: Path, kind: str, model: DiffRetriever, corpus: Path, tmp_path: Path
) -> None:
    ensure_registered()
    encoder = tmp_path / "as-encoded.yaml"
    encoder.write_text(
        f"name: soak\nbackbone: {model.config.backbone}\nk_passage: 3\ncut_at_stop: false\nimpact_rounding: nearest\n"
    )
    outputs = []
    for store in (survivor, corpus.parent / "uninterrupted"):
        output = tmp_path / store.name
        build_index(store, output, IndexOptions(dense=kind, encoder=str(encoder), quiet=True))
        with open_index(output, encoder=f"diffretriever:{encoder}") as index:
            topics = {record["id"]: record["text"] for record in passages(40)}
            hits = index.search(topics, mode="lexical", hits=160)
        outputs.append((content(output / "dense"), hits))
    assert outputs[0] == outputs[1]
    assert sum(map(len, outputs[0][1].values())) > 1000


def test_a_full_disk(
    model: DiffRetriever, corpus: Path, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, _ = uninterrupted
    sizes = sorted(len(data) for name, data in expected.items() if name.endswith(".safetensors"))
    limit = sizes[len(sizes) // 2]
    assert exit_code(start_child(model, corpus, tmp_path / "S", limit)) == 3, "the error names the cause and the remedy"
    assert exit_code(start_child(model, corpus, tmp_path / "S")) == 0
    assert content(tmp_path / "S") == expected
