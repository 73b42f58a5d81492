"""The first hits, with their grades."""

from pathlib import Path

import pytest

from diffretriever_pyserini.corpora.corpus import Passage, write_corpus
from diffretriever_pyserini.demo.collection import CORPUS, WrittenCollection
from diffretriever_pyserini.demo.show import top_hits, verdict


def test_hits_are_shown_with_grade_and_snippet(tmp_path: Path) -> None:
    passages = [Passage(f"d{i}", f"Title {i}", "word " * 100) for i in range(4)]
    (tmp_path / CORPUS).parent.mkdir()
    write_corpus(tmp_path / CORPUS, passages)
    queries = {f"q{i}": f"query {i}" for i in range(6)}
    qrels = {qid: {"d0": 1, "d1": 0} for qid in queries}
    run = {"q0": {"d0": 3.0, "d1": 2.0, "d2": 1.0, "d3": 0.5}, "q2": {"d3": 1.0}}
    lines = top_hits(tmp_path, WrittenCollection("x", 4, queries, qrels), run).splitlines()
    assert [line for line in lines if line.startswith("query")] == [
        "query q0: query 0",
        "query q2: query 2",
        "query q4: query 4",
    ]
    assert lines[1] == "  1. [relevant] 3.0000  d0"
    assert lines[3] == "  2. [not relevant] 2.0000  d1"
    assert lines[5] == "  3. [not judged] 1.0000  d2"
    assert lines[2].startswith("     Title 0: word word")
    assert len(lines[2]) <= 105
    assert lines[-1] == "  (no results)"


@pytest.mark.parametrize(
    ("dense", "lexical", "hybrid", "bm25", "carries", "fused"),
    [
        (0.5, 0.62, 0.64, 0.6, "lexical signal is better on this collection: M 0.620, against 0.500 "
         "of the dense signal",
         "together they reach 0.640."),
        (0.7, 0.4, 0.6, 0.65, "dense signal is better on this collection: M 0.700, against 0.400 "
         "of the lexical signal",
         "fusing them lowers it to 0.600."),
        (0.5, 0.51, 0.55, 0.6, "lexical and the dense signal are about as good on this collection: M 0.510 and 0.500",
         "together they reach 0.550. BM25 is better than both: 0.600."),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_figures(
    dense: float, lexical: float, hybrid: float, bm25: float, carries: str, fused: str
) -> None:
    means = {"BM25": bm25, "dense": dense, "lexical": lexical, "hybrid": hybrid}
    assert verdict(means, "M") == f"The {carries}; {fused}"
