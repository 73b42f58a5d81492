"""A Ray cluster of two processors on this machine, a corpus, and its store and indexes made without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.cluster.ray import _ENVIRONMENT

TOPICS = {"q": "dense retrieval of passages", "other": "word 3 of passage number 3", "n7": "word 7", "none": "the of"}
ROWS, PART = 600, 10


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Connects this process to a cluster; commands that run in it use the same."""
    os.environ.update(_ENVIRONMENT)
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, **options)
    yield
    ray.shutdown()


def write_corpus(path: Path, rows: int = ROWS) -> Path:
    """Write JSON lines, of which every fourth has the same text."""
    texts = (TOPICS["q"] if i % 4 == 0 else f"word {i} of passage number {i % 9}" for i in range(rows))
    lines = [json.dumps({"_id": f"n{i}", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_name: str) -> Path:
    """``corpus.jsonl``, and ``store``: what one process makes of it."""
    folder = tmp_path_factory.mktemp("cluster")
    corpus = write_corpus(folder / "corpus.jsonl")
    in_one_thread(encode_command(corpus, folder / "store", tiny_name))
    return folder


def in_one_thread(command: list[str]) -> None:
    """Run a command with one thread, like a worker of one processor: the order of a sum depends on the number."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "diffretriever_pyserini", *command], check=True, env=environment)


def encode_command(corpus: Path, store: Path, encoder: str, *more: str) -> list[str]:
    """The arguments of `diffretriever encode`."""
    options = ["--part-size", str(PART), "--workers", "0", "--quiet", *more]
    return ["encode", "--corpus", str(corpus), "--output", str(store), "--encoder", encoder, *options]


def parts(store: Path) -> dict[str, bytes]:
    """The parts of a store."""
    return {path.name: path.read_bytes() for path in store.glob("parts/*/*")}
