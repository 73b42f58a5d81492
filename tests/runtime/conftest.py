"""A small checkpoint, and a store and an index made with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .. import warm
from ..encoding.conftest import passages, write_corpus
from ..model.conftest import save_masked_lm


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BertForMaskedLM with 320 positions."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    save_masked_lm(folder)
    return folder


@pytest.fixture(scope="session")
def indexed(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index (dense and lexical) of 100 passages and its store, built in other processes: this one gets no JVM."""
    folder = tmp_path_factory.mktemp("indexed")
    corpus = write_corpus(folder / "corpus.jsonl", passages(100))
    command = [warm.python(), "-m", "diffretriever_pyserini"]
    encode = ["encode", "--encoder", str(tiny_bert), "--corpus", str(corpus), "--output", str(folder / "S")]
    subprocess.run([*command, *encode, "--workers", "0"], check=True, capture_output=True)
    index = ["index", "--store", str(folder / "S"), "--output", str(folder / "I")]
    subprocess.run([*command, *index], check=True, capture_output=True)
    return folder / "I", folder / "S"
