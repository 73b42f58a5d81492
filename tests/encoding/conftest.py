"""A small corpus and a model of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever

from ..model.conftest import one_thread, save_masked_lm

__all__ = ["one_thread"]  # a forked child must not wait for its parent's threads

WORDS = (
    "dense",
    "retrieval",
    "passage",
    "query",
    "index",
    "vector",
    "search",
    "the",
    "of",
    "a",
    "with",
    "model",
    "text",
)


def passages(count: int) -> list[dict[str, str]]:
    """Texts of 0 to 30 words; every tenth has a title."""
    records = []
    for i in range(count):
        words = [WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(i * 13 % 31)]
        records.append({"id": f"d{i}", "title": f"title {i}" if i % 10 == 0 else "", "text": " ".join(words)})
    return records


def write_corpus(path: Path, records: list[dict[str, str]]) -> Path:
    """Write ``records`` as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffRetriever:
    """A random BERT with K_p = 3 and no stop rule, so that only its content columns are computed."""
    folder = tmp_path_factory.mktemp("bert")
    save_masked_lm(folder)
    return DiffRetriever.from_pretrained(str(folder), k_passage=3, cut_at_stop=False, impact_rounding="nearest")


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    """A corpus of 100 passages."""
    return write_corpus(tmp_path / "corpus.jsonl", passages(100))
