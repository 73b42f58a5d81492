"""Sixty equal passages among others: every list, however short, is the head of the longest, in trec_eval's order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.runs import read_run
from diffretriever_pyserini.scoring.ranking import Hits, ranked, trec_eval_order
from diffretriever_pyserini.searching import SearchIndex, open_index

pytestmark = pytest.mark.java
ALIKE = [f"same{i}" for i in range(60)]
TOPICS = {"q": "dense retrieval of passages", "other": "word 3 of passage number 3"}
FIRST = sorted(ALIKE, reverse=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_dream: Path) -> Path:
    """A folder with ``store`` and ``INDEX``: sixty passages of one text among forty others."""
    from diffretriever_pyserini import DiffRetriever
    from diffretriever_pyserini.corpora.corpus import Corpus
    from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
    from diffretriever_pyserini.indexes.build import IndexOptions, build_index
    from diffretriever_pyserini.indexes.multivector.build import MultiBuild

    folder = tmp_path_factory.mktemp("ties")
    passages = {f"n{i}": f"word {i} of passage number {i}, said and done" for i in range(40)}
    passages |= dict.fromkeys(ALIKE, TOPICS["q"])
    lines = [
        json.dumps({"_id": docid, "text": text})
        for docid, text in sorted(passages.items(), key=lambda item: item[1] + item[0][::-1])
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    model = DiffRetriever.from_pretrained(str(tiny_dream), k_passage=2)
    encode_corpus(model, Corpus([folder / "corpus.jsonl"]), folder / "store", EncodeOptions(workers=0, dtype="float16"))
    build_index(folder / "store", folder / "INDEX", IndexOptions(multi=MultiBuild(bytes_per_vector=16), quiet=True))
    return folder


@pytest.fixture(scope="module")
def index(work: Path) -> SearchIndex:
    return open_index(work / "INDEX")


def alike_after(hits: Hits) -> int:
    """Number of passages before the equal ones, which must be complete and in order."""
    before = next(i for i, (docid, _) in enumerate(hits) if docid in ALIKE)
    assert [docid for docid, _ in hits[before : before + 60]] == FIRST
    return before


@pytest.mark.parametrize("fusion", ["minmax", "rrf"])
@pytest.mark.parametrize("mode", ["dense", "lexical", "multi", "hybrid", "dense,lexical", "dense,multi,lexical"])
def test_a_short_list_is_the_head_of_a_long_one(index: SearchIndex, mode: str, fusion: str) -> None:
    whole = index.search(TOPICS, mode=mode, fusion=fusion)
    for hits in whole.values():
        assert hits == ranked(dict(hits)) and [docid for docid, _ in hits] == trec_eval_order(dict(hits))
    assert [docid for docid, _ in whole["q"] if docid in ALIKE] == FIRST
    before = next(i for i, (docid, _) in enumerate(whole["q"]) if docid in ALIKE)
    if fusion == "minmax":
        assert before == alike_after(whole["q"])  # reciprocal ranks are never equal within a list
    for hits in (before + 1, before + 5, before + 59, 1, 5):
        short = index.search(TOPICS, mode=mode, fusion=fusion, hits=hits)
        assert short == {qid: listed[:hits] for qid, listed in whole.items()}


def test_a_list_without_the_query_is_the_head_too(index: SearchIndex) -> None:
    topics = {"same59": TOPICS["q"]}
    for mode in ("dense", "lexical", "multi"):
        whole = index.search(topics, mode=mode)["same59"]
        hits = alike_after(whole) + 5
        rest = [hit for hit in whole if hit[0] != "same59"]
        assert index.search(topics, mode=mode, hits=hits, remove_query=True)["same59"] == rest[:hits]


def test_a_store_is_searched_in_the_same_order(work: Path) -> None:
    with open_index(work / "store") as exact:
        whole = exact.search(TOPICS)
        hits = alike_after(whole["q"]) + 5
        assert exact.search(TOPICS, hits=hits) == {qid: listed[:hits] for qid, listed in whole.items()}


@pytest.mark.parametrize("kind", ["sq8", "pq", "ivfpq", "hnsw"])
def test_other_kinds_of_faiss_index(work: Path, tmp_path: Path, kind: str) -> None:
    from diffretriever_pyserini.indexes.build import IndexOptions, build_index

    build_index(work / "store", tmp_path / "I", IndexOptions(dense=kind, lexical=False, quiet=True))  # type: ignore[arg-type]
    with open_index(tmp_path / "I") as index:
        whole = index.search(TOPICS)
        # The graph's scores of equal passages may differ in the last bit, depending on the path to them.
        hits = 7 if kind == "hnsw" else alike_after(whole["q"]) + 5
        assert index.search(TOPICS, hits=hits) == {qid: listed[:hits] for qid, listed in whole.items()}


@pytest.mark.parametrize("mode", ["dense", "lexical", "multi", "hybrid"])
def test_pytrec_eval_and_our_measures_agree_on_the_run(work: Path, tmp_path: Path, mode: str) -> None:
    import pytrec_eval

    (tmp_path / "topics.tsv").write_text(f"q\t{TOPICS['q']}\n")
    hits = 5 + alike_after(open_index(work / "INDEX").search(TOPICS, mode=mode)["q"])
    command = ["search", "--index", str(work / "INDEX"), "--mode", mode, "--topics", str(tmp_path / "topics.tsv")]
    assert main([*command, "--output", str(tmp_path / "run.txt"), "--hits", str(hits)]) == 0
    lines = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
    assert [line[2] for line in lines[-5:]] == FIRST[:5] and [line[3] for line in lines] == [
        str(rank) for rank in range(1, hits + 1)
    ]
    run = read_run(tmp_path / "run.txt")
    for rank, docid in enumerate([line[2] for line in lines], 1):
        theirs = pytrec_eval.RelevanceEvaluator({"q": {docid: 1}}, {"recip_rank"}).evaluate(run)["q"]["recip_rank"]
        assert theirs == pytest.approx(1 / rank)
        assert evaluate(run, {"q": {docid: 1}}, ["RR", "MRR@99"]).means == {"RR": theirs, "MRR@99": theirs}
