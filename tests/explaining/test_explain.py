"""Every number of an explanation, compared with the scoring package and with the run of the same search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import scoring
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.explaining import explain
from diffretriever_pyserini.searching import SearchIndex, SearchOptions, open_index

from .conftest import PASSAGES, QUERIES, SCRIPT

pytestmark = pytest.mark.java
ALL = "dense,multi,lexical"


@pytest.fixture(scope="module")
def index(work: Path) -> Iterator[SearchIndex]:
    with open_index(work / "INDEX", k_query=2) as opened:
        yield opened


@pytest.mark.parametrize("query", QUERIES)
def test_scores_from_the_text_equal_the_equations(index: SearchIndex, query: str) -> None:
    model = index.model
    encoded = model.encode([query], side="query")
    encoded_passages = [model.encode([text], side="passage") for text in PASSAGES.values()]
    explanations = explain(index, query, list(PASSAGES), PASSAGES, ALL)
    for one, passage in zip(explanations, encoded_passages, strict=True):
        assert one.vectors is not None and one.terms is not None and one.passage is not None
        maxsim = float(scoring.maxsim(encoded.vectors, passage.vectors)[0, 0])
        assert one.vectors.score == pytest.approx(maxsim, abs=1e-5)
        assert sum(one.vectors.gains) == pytest.approx(one.vectors.score, abs=1e-5)
        pooled = float(scoring.pooled_scores(encoded.pooled, passage.pooled)[0, 0])
        assert one.vectors.pooled == pytest.approx(pooled, abs=1e-5)
        assert one.terms.score == float(scoring.lexical_scores(encoded.weights, passage.weights)[0, 0])
        assert len(one.passage.positions) == 3 and len(one.query.positions) == 2
        empty = tuple((passage.vectors[0] == 0).all(axis=1).tolist())
        assert one.vectors.empty_passage == empty == tuple(not position.kept for position in one.passage.positions)


@pytest.mark.parametrize("query", QUERIES)
def test_scores_from_the_index_equal_the_searchers(index: SearchIndex, query: str) -> None:
    runs = {signal: dict(index.search({"q": query}, mode=signal)["q"]) for signal in ("dense", "multi", "lexical")}
    for one in explain(index, query, list(PASSAGES), mode=ALL):
        assert one.vectors is one.terms is one.passage is None and "--corpus" in " ".join(one.notes)
        assert one.dense == pytest.approx(runs["dense"][one.docid], abs=1e-5)
        assert one.indexed_vectors is not None and one.indexed_terms is not None
        assert one.indexed_vectors.score == pytest.approx(runs["multi"][one.docid], abs=1e-4)
        assert one.indexed_terms.score == runs["lexical"].get(one.docid, 0.0)
        assert one.indexed_terms.passage_only is None


def test_text_and_index_give_the_same_terms(index: SearchIndex) -> None:
    for query in QUERIES:
        for one in explain(index, query, list(PASSAGES), PASSAGES):
            assert one.terms is not None and one.indexed_terms is not None
            assert one.terms.matched == one.indexed_terms.matched
            assert one.similarity is not None and one.similarity > 0.5
            assert one.lucene_document is (one.docid not in ("stop", "empty", "عربي-١"))
            assert not any("that was encoded" in note for note in one.notes)


@pytest.mark.parametrize("mode", ["dense", "multi", "lexical", "hybrid", "dense,lexical", ALL])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hits": 3},
        {"hits": 3, "depth": 5},
        {"hits": 1, "depth": 1},
        {"alpha": 0.25},
        {"weights": {"multi": 3.0, "lexical": 0.0}},
        {"fusion": "rrf"},
        {"fusion": "rrf", "hits": 2, "depth": 4},
    ],
    ids=str,
)
def test_the_ranks_are_those_of_the_run(index: SearchIndex, mode: str, options: dict[str, Any]) -> None:
    signals = index.folder.signals(mode)
    if len(signals) == 1:
        options = {name: value for name, value in options.items() if name == "hits"}
    if "multi" not in signals and "weights" in options:
        options = options | {"weights": {"lexical": 0.0}}
    docids = [docid for docid in PASSAGES if mode != "lexical" or docid not in ("stop", "empty", "عربي-١")]
    for query in QUERIES:
        run = index.search({"q": query}, mode=mode, **options)["q"]
        scores = dict(run)
        for one in explain(index, query, docids, mode=mode, options=SearchOptions(**options)):
            entry = one.result
            assert entry.returned is (one.docid in scores)
            if entry.returned:
                # The last bits of a sum depend on the load of the machine, so neighbours may swap ranks.
                assert entry.rank is not None
                assert [entry.score] * 2 == pytest.approx([scores[one.docid], run[entry.rank - 1][1]], abs=1e-6)
            if entry.score is not None:
                assert sum(part.adds for part in entry.contributions) == pytest.approx(entry.score, abs=1e-6)
            assert (entry.rank is None) is all(part.rank is None for part in entry.contributions)
            assert [part.signal for part in entry.contributions] == list(index.folder.signals(mode))


@pytest.mark.parametrize("mode", ["lexical", ALL])
def test_the_first_passages_of_the_result(index: SearchIndex, mode: str) -> None:
    run = [docid for docid, _ in index.search({"q": QUERIES[0]}, mode=mode, hits=3)["q"]]
    asked: list[str] = []

    def texts(docids: Sequence[str]) -> dict[str, str]:
        asked.extend(docids)
        return PASSAGES

    explained = explain(index, QUERIES[0], texts=texts, mode=mode)
    assert [one.docid for one in explained] == run == asked
    assert [one.result.rank for one in explained] == [1, 2, 3] and explained[0].terms is not None
    [first] = explain(index, QUERIES[0], 1, mode=mode)
    assert first.docid == run[0]
    with pytest.raises(InputError, match="docids=0"):
        explain(index, QUERIES[0], 0)


def test_a_signal_without_the_passage_adds_nothing(index: SearchIndex) -> None:
    [one] = explain(index, "dense retrieval", ["stop"], mode="dense,lexical")
    dense, lexical = one.result.contributions
    assert (lexical.rank, lexical.score, lexical.scaled, lexical.adds, lexical.low) == (None, None, 0.0, 0.0, 0.0)
    assert one.result.score == pytest.approx(dense.adds) and dense.weight == 0.5
    assert any("no terms" in note for note in one.notes)


def test_a_store_is_explained_exactly(work: Path) -> None:
    with open_index(work / "store") as index:
        [one] = explain(index, QUERIES[0], ["p1"], PASSAGES)
        run = dict(index.search({"q": QUERIES[0]})["q"])
    assert one.result.mode == "multi" and one.lucene_document is None and one.indexed_terms is None
    assert one.similarity == pytest.approx(1, abs=1e-5)
    assert one.vectors is not None and one.vectors.score == pytest.approx(run["p1"], abs=1e-5)
    assert one.terms is not None and one.terms.score > 0  # known from the text alone


def test_a_shorter_max_length_of_queries_does_not_cut_passages(work: Path) -> None:
    with open_index(work / "INDEX", max_length=4) as index:
        for one in explain(index, "query retrieval passages dense", ["p1", SCRIPT, "n3"], PASSAGES):
            assert one.query.tokens == 2 and one.passage is not None and one.passage.tokens > 2
            assert one.terms is not None and one.indexed_terms is not None
            assert one.terms.matched == one.indexed_terms.matched and not one.notes


@pytest.mark.parametrize("shards", [1, 2])
def test_texts_are_cut_as_for_the_index(work: Path, encoder: str, tmp_path: Path, shards: int) -> None:
    from diffretriever_pyserini import Corpus, DiffRetriever, EncodeOptions, IndexOptions, build_index, encode_corpus

    model = DiffRetriever.from_pretrained(encoder, k_passage=3)
    options = EncodeOptions(workers=0, dtype="float32", max_length=4, rows_per_part=8)
    encode_corpus(model, Corpus([work / "corpus.jsonl"]), tmp_path / "S", options)
    build_index(tmp_path / "S", tmp_path / "I", IndexOptions(shards=shards, quiet=True))
    with open_index(tmp_path / "I") as index:
        for one in explain(index, QUERIES[0], ["p1", SCRIPT, "n3"], PASSAGES):
            assert one.vectors is not None and one.vectors.pooled == pytest.approx(one.dense, abs=1e-5)
            assert one.passage is not None and one.passage.tokens == 2 and not one.notes


def test_another_text_than_the_indexed_one_is_noticed(index: SearchIndex) -> None:
    [one] = explain(index, QUERIES[0], ["p1"], {"p1": PASSAGES["p2"]})
    assert any("is it the text that was encoded" in note for note in one.notes)


@pytest.mark.parametrize("mode", ["dense", "multi", "lexical", "hybrid"])
def test_an_unknown_passage_is_an_error(index: SearchIndex, mode: str) -> None:
    with pytest.raises(InputError, match="holds no passage 'p77'"):
        explain(index, "dense", ["p1", "p77"], mode=mode)


def test_a_passage_without_terms_needs_its_text_in_a_lexical_search(index: SearchIndex) -> None:
    with pytest.raises(InputError, match="it has no terms"):
        explain(index, "dense", ["stop"], mode="lexical")
    [one] = explain(index, "dense", ["stop"], PASSAGES, mode="lexical")
    assert one.result.rank is None and one.terms is not None and one.terms.score == 0


def test_invalid_options_are_refused(index: SearchIndex) -> None:
    with pytest.raises(InputError, match="top=0"):
        explain(index, "dense", ["p1"], top=0)
    with pytest.raises(InputError, match="remove_query"):
        explain(index, "dense", ["p1"], options=SearchOptions(remove_query=True))
    with pytest.raises(InputError, match="all weights are 0"):
        explain(index, "dense", ["p1"], options=SearchOptions(alpha=0.0, weights={"multi": 0.0}))
    with pytest.raises(InputError, match="weight for multi has no effect: mode lexical searches lexical"):
        explain(index, "dense", ["p1"], mode="lexical", options=SearchOptions(weights={"multi": 2.0}))


def test_vectors_from_every_kind_of_faiss_index(work: Path, tmp_path: Path) -> None:
    from diffretriever_pyserini.indexes.build import IndexOptions, build_index

    for kind in ("sq8", "hnsw"):
        build_index(work / "store", tmp_path / kind, IndexOptions(dense=kind, lexical=False, quiet=True))
        with open_index(tmp_path / kind) as index:
            run = dict(index.search({"q": QUERIES[0]})["q"])
            for one in explain(index, QUERIES[0], list(run)):
                assert one.dense == pytest.approx(run[one.docid], abs=1e-4)
                assert np.isfinite(one.dense)


def test_factors_of_term_frequency_are_in_sentences(encoder: str, tmp_path: Path) -> None:
    from diffretriever_pyserini import Corpus, DiffRetriever, IndexOptions, build_index, encode_corpus

    (tmp_path / "m.yaml").write_text(f"backbone: {encoder}\nlexical_tf: {{average_length: 4}}\n")
    (tmp_path / "c.jsonl").write_text('{"id": "p", "contents": "query query query query index index index index"}\n')
    model = DiffRetriever.from_pretrained(str(tmp_path / "m.yaml"))
    encode_corpus(model, Corpus([tmp_path / "c.jsonl"]), tmp_path / "S")
    build_index(tmp_path / "S", tmp_path / "I", IndexOptions(quiet=True))
    text = "query query query query index index index index"
    with open_index(tmp_path / "I") as index:
        (explanation,) = explain(index, "query query index index of words words", ["p"], {"p": text})
    whose = {line.partition(" of the ")[2].partition(":")[0]: line for line in explanation.frequencies}
    factor = 4 * 1.9 / (4 + 0.9 * (0.6 + 0.4 * 8 / 4))
    assert f"{factor:.2f}" in whose["passage"] and "2.00" in whose["query"]
