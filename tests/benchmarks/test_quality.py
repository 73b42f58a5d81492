"""The quality benchmark: its runs are those of `scoring`, and the table holds what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import Texts, as_run, minilm_scores, our_runs, save
from diffretriever_pyserini import DiffRetriever, scoring

PASSAGES = [
    "Search engines rank documents.",
    "Bread needs flour and water.",
    "Ranking of documents by a search engine.",
]


@pytest.fixture
def texts() -> Texts:
    queries = {"q1": "how do search engines rank", "q2": "flour", "q3": "?!"}
    qrels = {"q1": {"a": 1, "c": 1}, "q2": {"b": 1}, "q3": {"a": 1}}
    return Texts("tiny", ["a", "b", "c"], PASSAGES, queries, qrels)


def test_runs_hold_the_scores_of_the_model(texts: Texts, tiny_dream: Path) -> None:
    model = DiffRetriever.from_pretrained(str(tiny_dream), k_query=4, k_passage=4, cut_at_stop=False)
    runs = our_runs(model, texts, [0.75])
    passages = model.encode(PASSAGES, side="passage")
    queries = model.encode(list(texts.queries.values()), side="query")
    expected = {
        "dense single": scoring.pooled_scores(queries.pooled, passages.pooled),
        "dense multi (MaxSim)": scoring.maxsim(queries.vectors, passages.vectors),
    }
    for name, matrix in expected.items():
        for row, qid in zip(matrix, texts.queries, strict=True):
            assert runs[name][qid] == pytest.approx(dict(zip("abc", row.tolist(), strict=True)), abs=1e-5)
    assert {"hybrid, multi", "hybrid, multi, 0.75"} <= runs.keys()
    assert runs["lexical"]["q3"] == {}  # no words, so nothing is returned
    assert set(runs["hybrid, single"]["q3"]) == {"a", "b", "c"}


def test_what_is_not_returned_is_not_in_the_run(texts: Texts) -> None:
    scores = np.array([[1.0, np.nan, 2.0], [np.nan] * 3, [0.0, 0.0, -1.0]])
    run = as_run(scores, texts)
    assert list(run["q1"].items()) == [("c", 2.0), ("a", 1.0)]
    assert run["q2"] == {}
    assert list(run["q3"]) == ["a", "b", "c"]


def test_the_yardstick_knows_what_belongs_together(texts: Texts) -> None:
    run = as_run(minilm_scores(texts, "cpu"), texts)
    assert next(iter(run["q2"])) == "b"
    assert next(iter(run["q1"])) in {"a", "c"}
    assert all(abs(score) <= 1 + 1e-5 for hits in run.values() for score in hits.values())


def test_the_table_and_its_means(tmp_path: Path, tiny_dream: Path) -> None:
    figures = {
        "one": {"BM25": {"nDCG@10": 0.5, "R@100": 1.0}, "dense": {"nDCG@10": 0.25, "R@100": 0.5}},
        "two": {"BM25": {"nDCG@10": 0.25, "R@100": 0.0}, "dense": {"nDCG@10": 0.75, "R@100": 0.5}},
    }
    save(figures, DiffRetriever.from_pretrained(str(tiny_dream)), tmp_path)
    lines = (tmp_path / "quality.md").read_text().splitlines()
    assert lines[2] == "| BM25 | 0.5000 | 1.0000 | 0.2500 | 0.0000 | 0.3750 | 0.5000 |"
    assert lines[3] == "| dense | 0.2500 | 0.5000 | 0.7500 | 0.5000 | 0.5000 | 0.5000 |"
    assert json.loads((tmp_path / "quality.json").read_text())["figures"] == figures
