"""Kills at random instants and full disks: the finished store is the unbroken one, byte for byte."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.collections.corpus import Corpus
from diffretriever_pyserini.encoding.corpus import EncodeOptions, encode_corpus
from diffretriever_pyserini.encoding.progress import Progress
from diffretriever_pyserini.store.reader import Store

from .conftest import passages, write_corpus
from .test_corpus import content

OPTIONS = EncodeOptions(rows_per_part=8, workers=0)
KILLS = 25


def in_a_child(model: DiffRetriever, corpus: Path, output: Path, limit: int | None = None) -> int:
    """Encode in a forked process, which starts with the model loaded; its id. ``limit`` is the largest file allowed."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(120)  # rather dead than hanging
        try:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            encode_corpus(model, Corpus([corpus]), output, OPTIONS, Progress(model, quiet=True))
            code = 0
        except ValueError as error:  # our own errors are
            code = 3 if "File too large" in str(error) else 4
        finally:
            os._exit(code)
    return child


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough passages for some seconds."""
    return write_corpus(tmp_path_factory.mktemp("soak") / "corpus.jsonl", passages(600))


@pytest.fixture(scope="module")
def unbroken(model: DiffRetriever, corpus: Path) -> tuple[dict[str, bytes], float]:
    """The store of a run without any accident, and the seconds it took."""
    started = time.monotonic()
    child = in_a_child(model, corpus, corpus.parent / "unbroken")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
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
        # Short at first, so that many kills meet a store that is hardly begun, then over the whole length of a run.
        time.sleep(draw.uniform(0, min(1.0, 0.05 + attempt / KILLS) * seconds / 4))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        killed += code == -signal.SIGKILL
        if code == 0:  # it was quicker: begin again with an empty folder
            assert content(tmp_path / "S") == expected
            (tmp_path / "S").rename(tmp_path / f"finished-{attempt}")
    assert killed == KILLS
    child = in_a_child(model, corpus, tmp_path / "S")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert content(tmp_path / "S") == expected
    assert list(Store(tmp_path / "S").docids()) == [one["id"] for one in passages(600)]


def test_a_full_disk(
    model: DiffRetriever, corpus: Path, unbroken: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, _ = unbroken
    sizes = sorted(len(data) for name, data in expected.items() if name.endswith(".safetensors"))
    child = in_a_child(model, corpus, tmp_path / "S", limit=sizes[len(sizes) // 2])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3, "the error says why, and what to do"
    child = in_a_child(model, corpus, tmp_path / "S")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert content(tmp_path / "S") == expected
