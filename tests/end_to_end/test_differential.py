"""Random collections, topics and judgements: every way to search gives the results of the equations and of trec_eval.

``DIFFERENTIAL_CASES=2000 pytest -s tests/end_to_end/test_differential.py`` tries 2,000 cases and counts them; a
normal run tries a few.
"""

from __future__ import annotations

import itertools
import json
import os
import string
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from diffretriever_pyserini import DiffRetriever, DiffRetrieverQueryEncoder, scoring
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.runs import read_run, write_run
from diffretriever_pyserini.indexes.build import build_index
from diffretriever_pyserini.indexes.multivector.build import MultiBuild
from diffretriever_pyserini.indexes.options import IndexOptions
from diffretriever_pyserini.scoring.ranking import Hits, ranked
from diffretriever_pyserini.searching import SearchIndex, open_index

pytestmark = pytest.mark.java
CASES = int(os.environ.get("DIFFERENTIAL_CASES", "6"))
TRIED = itertools.count(1)

# No shrinking: each case takes a second, so shrinking a failing case takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

# Few words, so that texts are equal, share terms or have no lexical terms; and some unusual characters.
WORDS = (
    "moon",
    "tower",
    "Tower",
    "of",
    "the",
    "plants",
    "naïve",
    "東京",
    "🚀",
    "x",
    "1,000.5",
    "U.S.",
    "a" * 90,
    "\u200d",
)
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
# Realistic ids: numbers with leading zeros, slashes, letters outside ASCII, and ids that differ only slightly.
ids = st.sampled_from(("007", "07", "7", "a/b", "A", "a", "é", "東", "d-1", "d_1", "#", '"q"', "-1", "1e3")) | st.text(
    string.ascii_letters + string.digits + ".:#é東🚀", min_size=1, max_size=6
)
corpora = st.dictionaries(ids, texts, min_size=1, max_size=25)
topics = st.dictionaries(ids, texts.filter(str.strip), min_size=1, max_size=5)


def assert_best(hits: Hits, expected: Mapping[str, float], tolerance: float) -> None:
    """``hits`` are the best of ``expected`` in trec_eval's order, each with its score."""
    assert hits == ranked(dict(hits))
    for docid, score in hits:
        assert score == pytest.approx(expected[docid], abs=tolerance)
    if hits and len(hits) < len(expected):
        rest = [score for docid, score in expected.items() if docid not in dict(hits)]
        assert max(rest) <= hits[-1][1] + tolerance


def exact(model: DiffRetriever, passages: dict[str, str], queries: dict[str, str]) -> dict[str, np.ndarray]:
    """Every score [queries, passages] by the equations."""
    p = model.encode(list(passages.values()))
    q = model.encode(list(queries.values()), side="query")
    dense = scoring.pooled_scores(q.pooled, p.pooled)
    lexical = scoring.lexical_scores(q.weights, p.weights)
    return {"dense": dense, "lexical": lexical, "multi": scoring.maxsim(q.vectors, p.vectors)}


def built(model: DiffRetriever, passages: dict[str, str], folder: Path) -> None:
    """``folder/store`` and ``folder/INDEX`` of ``passages``."""
    lines = (json.dumps({"_id": docid, "text": text}) for docid, text in passages.items())
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    encode_corpus(model, Corpus([folder / "corpus.jsonl"]), folder / "store", EncodeOptions(workers=0, dtype="float32"))
    build_index(folder / "store", folder / "INDEX", IndexOptions(multi=MultiBuild(bytes_per_vector=90), quiet=True))


def check_search(index: SearchIndex, scores: dict[str, np.ndarray], docids: list[str], queries: dict[str, str]) -> None:
    """Each signal equals the equations; single queries, threads and short lists give the same results."""
    for mode, tolerance in (("dense", 2e-5), ("lexical", 0), ("multi", 0.05), ("hybrid", None)):
        whole = index.search(queries, mode=mode)
        assert list(whole) == list(queries)
        for row, hits in enumerate(whole.values()):
            if tolerance is not None:
                expected = dict(zip(docids, scores[mode][row].tolist(), strict=True))
                listed = {docid: score for docid, score in expected.items() if mode != "lexical" or score > 0}
                assert len(hits) == len(listed)
                assert_best(hits, listed, tolerance)
        for count in (1, 3):
            assert index.search(queries, mode=mode, hits=count) == {qid: hits[:count] for qid, hits in whole.items()}
        with ThreadPoolExecutor(4) as pool:
            singles = list(
                pool.map(lambda query, mode=mode: index.search(dict([query]), mode=mode, threads=1), queries.items())
            )
        for (qid, hits), single in zip(whole.items(), singles, strict=True):
            assert dict(single[qid]) == pytest.approx(dict(hits), abs=0 if mode == "lexical" else 2e-6)


def check_pyserini(folder: Path, name: str, index: SearchIndex, queries: dict[str, str]) -> None:
    """Pyserini's own searchers give the same score for every docid."""
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    encoder = DiffRetrieverQueryEncoder(name)
    dense = FaissSearcher(str(folder / "dense"), encoder)
    searchers = [("dense", dense, 1e-5)]
    try:
        searchers.append(("lexical", LuceneImpactSearcher(str(folder / "lexical"), encoder.lexical, min_idf=-1), 1e-2))
    except InputError as error:  # Pyserini cannot open an index without terms; our search can
        assert "it has no terms" in str(error)
        assert not any(index.search(queries, mode="lexical").values())
    for mode, searcher, tolerance in searchers:
        ours = index.search(queries, mode=mode)
        theirs = searcher.batch_search(list(queries.values()), list(queries), k=1000, threads=2)
        for qid, hits in ours.items():
            assert {hit.docid: hit.score for hit in theirs[qid]} == pytest.approx(dict(hits), abs=tolerance)


def count_case() -> None:
    """Print the number of cases, every hundred."""
    if (number := next(TRIED)) % 100 == 0:
        print(f"{number} cases", flush=True)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(passages=corpora, queries=topics, long=texts)
def test_every_search_equals_the_equations(
    tiny_name: str, tiny_dream: Path, passages: dict[str, str], queries: dict[str, str], long: str
) -> None:
    count_case()
    queries = queries | {
        "the query of a passage": next(iter(passages.values())) or "moon",
        "long": f"{long} moon " * 40,
    }
    model = DiffRetriever.from_pretrained(str(tiny_dream))
    scores = exact(model, passages, queries)
    with tempfile.TemporaryDirectory() as work:
        built(model, passages, Path(work))
        with open_index(Path(work, "INDEX")) as index:
            check_search(index, scores, list(passages), queries)
            check_pyserini(Path(work, "INDEX"), tiny_name, index, queries)


runs = st.dictionaries(
    ids, st.dictionaries(ids, st.sampled_from((0.0, 1.0, 1.0 + 1e-9, 0.5, 2.5, -1.0, 1e6)), max_size=12), max_size=4
)
judgements = st.dictionaries(
    ids, st.dictionaries(ids, st.integers(-1, 3), min_size=1, max_size=8), min_size=1, max_size=5
)
MEASURES = {
    "nDCG@10": "ndcg_cut_10",
    "R@5": "recall_5",
    "RR": "recip_rank",
    "AP": "map",
    "P@5": "P_5",
    "nDCG": "ndcg",
    "Success@1": "success_1",
    "Rprec": "Rprec",
    "Bpref": "bpref",
}


@settings(max_examples=25 * CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs, judgements)
def test_measures_of_a_written_run_equal_trec_evals(
    run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]
) -> None:
    qrels = {qid: grades for qid, grades in qrels.items() if max(grades.values()) > 0}
    if not qrels or not any(run.get(qid) for qid in qrels):
        return
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "run.txt")
        write_run(path, run)
        read = read_run(path)
    assert {qid: scores for qid, scores in run.items() if scores} == {
        qid: pytest.approx(scores, rel=1e-6) for qid, scores in read.items()
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(MEASURES.values())).evaluate(read)
    for measure, values in evaluate(read, qrels, list(MEASURES)).per_query.items():
        for qid, value in values.items():
            assert value == pytest.approx(theirs.get(qid, {}).get(MEASURES[measure], 0.0), abs=1e-6), (measure, qid)
