"""Kills at random instants and full disks: the finished store is the unbroken one, byte for byte."""

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

KILLS = 25


def in_a_child(model: DiffRetriever, corpus: Path, output: Path, limit: int | None = None) -> BaseProcess:
    """Begin to encode in a process forked by a clean server: this one may hold a JVM and threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.encoding.soak_child"])
    child = context.Process(target=encode, args=(model.config.backbone, str(corpus), str(output), limit))
    child.start()
    return child


def ended(child: BaseProcess) -> int | None:
    """The exit code of ``child``, negative for a signal."""
    child.join()
    return child.exitcode


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough passages for some seconds."""
    return write_corpus(tmp_path_factory.mktemp("soak") / "corpus.jsonl", passages(160))


@pytest.fixture(scope="module")
def unbroken(model: DiffRetriever, corpus: Path) -> tuple[dict[str, bytes], float]:
    """The store of a run without any accident, and the seconds it took."""
    assert ended(in_a_child(model, corpus, corpus.parent / "warm-up")) == 0
    started = time.monotonic()
    assert ended(in_a_child(model, corpus, corpus.parent / "unbroken")) == 0
    return content(corpus.parent / "unbroken"), time.monotonic() - started


@pytest.fixture(scope="module")
def survivor(model: DiffRetriever, corpus: Path, unbroken: tuple[dict[str, bytes], float]) -> Path:
    """The store of a run that was killed again and again."""
    expected, seconds = unbroken
    folder, draw = corpus.parent / "killed", random.Random(20261122)
    killed = 0
    for attempt in range(10 * KILLS):
        if killed == KILLS:
            break
        child = in_a_child(model, corpus, folder)
        time.sleep(draw.uniform(0, seconds / 2))
        child.kill()
        code = ended(child)
        assert code in (0, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
        if code == 0:  # it was quicker: begin again with an empty folder
            assert content(folder) == expected
            folder.rename(corpus.parent / f"finished-{attempt}")
    assert killed == KILLS
    assert ended(in_a_child(model, corpus, folder)) == 0
    return folder


def test_killed_at_random_instants(survivor: Path, unbroken: tuple[dict[str, bytes], float]) -> None:
    assert content(survivor) == unbroken[0]
    assert list(Store(survivor).docids()) == [one["id"] for one in passages(160)]


@pytest.mark.java
@pytest.mark.parametrize("kind", ["flat", "sq8", "pq"])
def test_its_indexes_are_those_of_the_unbroken_one(
    survivor: Path, kind: str, model: DiffRetriever, corpus: Path, tmp_path: Path
) -> None:
    ensure_registered()
    encoder = tmp_path / "as-encoded.yaml"
    encoder.write_text(
        f"name: soak\nbackbone: {model.config.backbone}\nk_passage: 3\ncut_at_stop: false\nimpact_rounding: nearest\n"
    )
    found = []
    for store in (survivor, corpus.parent / "unbroken"):
        output = tmp_path / store.name
        build_index(store, output, IndexOptions(dense=kind, encoder=str(encoder), quiet=True))
        with open_index(output, encoder=f"diffretriever:{encoder}") as index:
            topics = {one["id"]: one["text"] for one in passages(40)}
            answers = index.search(topics, mode="lexical", hits=160)
        found.append((content(output / "dense"), answers))
    assert found[0] == found[1]
    assert sum(map(len, found[0][1].values())) > 1000


def test_a_full_disk(
    model: DiffRetriever, corpus: Path, unbroken: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, _ = unbroken
    sizes = sorted(len(data) for name, data in expected.items() if name.endswith(".safetensors"))
    limit = sizes[len(sizes) // 2]
    assert ended(in_a_child(model, corpus, tmp_path / "S", limit)) == 3, "the error says why, and what to do"
    assert ended(in_a_child(model, corpus, tmp_path / "S")) == 0
    assert content(tmp_path / "S") == expected
