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
from diffretriever_pyserini.store.reader import Store

from .conftest import passages, write_corpus
from .soak_child import encode
from .test_corpus import content

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


def test_killed_at_random_instants(
    model: DiffRetriever, corpus: Path, unbroken: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, seconds = unbroken
    draw = random.Random(20261122)
    killed = 0
    for attempt in range(10 * KILLS):
        if killed == KILLS:
            break
        child = in_a_child(model, corpus, tmp_path / "S")
        time.sleep(draw.uniform(0, seconds / 2))
        child.kill()
        code = ended(child)
        killed += code == -signal.SIGKILL
        if code == 0:  # it was quicker: begin again with an empty folder
            assert content(tmp_path / "S") == expected
            (tmp_path / "S").rename(tmp_path / f"finished-{attempt}")
    assert killed == KILLS
    assert ended(in_a_child(model, corpus, tmp_path / "S")) == 0
    assert content(tmp_path / "S") == expected
    assert list(Store(tmp_path / "S").docids()) == [one["id"] for one in passages(160)]


def test_a_full_disk(
    model: DiffRetriever, corpus: Path, unbroken: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, _ = unbroken
    sizes = sorted(len(data) for name, data in expected.items() if name.endswith(".safetensors"))
    limit = sizes[len(sizes) // 2]
    assert ended(in_a_child(model, corpus, tmp_path / "S", limit)) == 3, "the error says why, and what to do"
    assert ended(in_a_child(model, corpus, tmp_path / "S")) == 0
    assert content(tmp_path / "S") == expected
