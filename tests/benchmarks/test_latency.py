"""The latency benchmark: the systems compared have the same weights, every vector is read and every passage scored."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever

ROOT = Path(__file__).resolve().parents[2]
WORDS = [f"word{i}" for i in range(200)]


@pytest.fixture
def latency(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, imported as when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("latency")


def test_a_row_per_system_and_number_of_vectors(latency: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST_WORDS", 2)
    sizes = {"texts": 2, "query_words": 3, "passage_words": 9, "passages": 50, "rounds": 1}
    where = {"shape": "tiny", "vocabulary": 600, "device": "cpu", "dtype": None}
    options = argparse.Namespace(ks=[3, 1], **sizes, **where)
    rows = latency.measured(options, tmp_path, WORDS)
    counted = {name: [row.k for row in rows if row.readout == name] for name in latency.SYSTEMS}
    assert counted == {"bare": [1], "mask": [1, 3], "next_token": [1, 2], "mean": [1]}
    assert all(row.query > 0 and row.passage > 0 for row in rows)
    assert [row.bytes_per_passage for row in rows if row.readout == "mask"] == [2 * k * 64 for k in (1, 3)]
    assert (tmp_path / "a2d" / "model.safetensors").samefile(tmp_path / "causal" / "model.safetensors")
    assert json.loads((tmp_path / "causal" / "config.json").read_text())["model_type"] == "qwen2"
    settings = latency.SETTINGS | {"readout": "next_token", "k_query": 6}
    words = DiffRetriever.from_pretrained(str(tmp_path / "causal"), **settings)
    vectors = words.encode(latency.texts_of(WORDS, 8, 3), side="query").vectors
    assert vectors.any(axis=2).all(), "an answer ended early, so fewer words were read"
    table = latency.as_table(rows).splitlines()
    assert len(table) == 2 + len(rows)
    assert {line.count("|") for line in table} == {9}
    assert "PromptReps, 2 vectors / 1: query " in latency.ratios(rows)


def test_every_passage_is_scored(latency: Any) -> None:
    query, stored = latency.unit_vectors(3, 8, "cpu", 0), latency.unit_vectors(12, 8, "cpu", 1).view(4, 3, 8)
    scores = latency.search(query, stored, 10)[0].numpy()
    best = np.einsum("qh,pkh->pqk", query.numpy(), stored.numpy()).max(axis=2).clip(min=0).sum(axis=1)
    np.testing.assert_allclose(scores, np.resize(best, 10), atol=1e-6)
