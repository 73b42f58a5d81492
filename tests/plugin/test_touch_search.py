"""Pyserini's own searchers with our query encoders, on small real indexes; the JVM runs inside this process."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder, scoring
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.pyserini_api.encoders import LexicalQueryEncoder

pytestmark = pytest.mark.java

PASSAGES = {
    "p1": "the quick brown fox jumps over the lazy dog",
    "p2": "diffusion language models predict masked positions jointly",
    "p3": "an inverted index stores impacts of terms",
    "p4": "dense vectors are kept in memory and compared by inner product",
    "p5": "interest rates in finance rose again last year",
    "p6": "the of and",
}
QUERIES = {
    "q1": "which models predict masked positions",
    "q2": "fox and dog",
    "q3": "finance",
    "q4": "the of",
    "q5": "",
}


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory, tiny_name: str) -> tuple[str, str]:
    """A FAISS folder and a Lucene impact index of the passages (without the one of stopwords only)."""
    from pyserini.encode import JsonlRepresentationWriter
    from pyserini.encode.optional import FaissRepresentationWriter
    from pyserini.pyclass import autoclass

    folder = tmp_path_factory.mktemp("indexes")
    for name, writer in (
        (tiny_name, FaissRepresentationWriter(str(folder / "D"), dimension=64)),
        (f"{tiny_name}-lexical", JsonlRepresentationWriter(str(folder / "S"))),
    ):
        encoder = DiffRetrieverDocumentEncoder(name)
        vectors = encoder.encode(list(PASSAGES.values()))
        with writer:
            writer.write({"id": list(PASSAGES), "text": list(PASSAGES.values()), "vector": vectors}, ["text"])
    options = ["-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", "-impact", "-pretokenized"]
    autoclass("io.anserini.index.IndexCollection").main(
        ["-collection", "JsonVectorCollection", "-input", str(folder / "S"), "-index", str(folder / "L"), *options]
    )
    return str(folder / "D"), str(folder / "L")


@pytest.fixture(scope="module")
def scores(tiny_dream: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Query → passage → (dense, lexical) score, computed without Pyserini."""
    model = DiffRetriever.from_pretrained(str(tiny_dream))
    passages = model.encode(list(PASSAGES.values()), side="passage")
    queries = model.encode(list(QUERIES.values()), side="query")
    dense = scoring.pooled_scores(queries.pooled, passages.pooled)
    lexical = scoring.lexical_scores(queries.weights, passages.weights)
    return {
        qid: {docid: (float(dense[i, j]), float(lexical[i, j])) for j, docid in enumerate(PASSAGES)}
        for i, qid in enumerate(QUERIES)
    }


def dense_searcher(indexes: tuple[str, str], encoder: Any) -> Any:
    from pyserini.search.faiss import FaissSearcher

    return FaissSearcher(indexes[0], encoder)


def impact_searcher(indexes: tuple[str, str], encoder: Any) -> Any:
    from pyserini.search.lucene import LuceneImpactSearcher

    return LuceneImpactSearcher(indexes[1], encoder, min_idf=-1)


def hits_of(hits: Any) -> dict[str, float]:
    return {hit.docid: float(hit.score) for hit in hits}


def test_a_name_is_enough_for_both_searchers(indexes: tuple[str, str], tiny_name: str) -> None:
    assert isinstance(dense_searcher(indexes, tiny_name).query_encoder, DiffRetrieverQueryEncoder)
    for name in (tiny_name, f"{tiny_name}-lexical"):
        assert isinstance(impact_searcher(indexes, name).query_encoder, LexicalQueryEncoder)


def test_other_names_and_cached_queries_are_left_to_pyserini(
    indexes: tuple[str, str], tmp_path: Path, tiny_dream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyserini.encode import CachedDataQueryEncoder, TokFreqQueryEncoder

    cached = tmp_path / "diffretriever-queries.jsonl"
    cached.write_text(json.dumps({"id": 1, "contents": "fox", "vector": {"f": 3}}) + "\n")
    assert isinstance(impact_searcher(indexes, str(cached)).query_encoder, CachedDataQueryEncoder)
    assert isinstance(impact_searcher(indexes, None).query_encoder, TokFreqQueryEncoder)
    config = tmp_path / "diffretriever.yaml"
    config.write_text(f"backbone: {tiny_dream}\n")
    assert isinstance(impact_searcher(indexes, str(config)).query_encoder, LexicalQueryEncoder)
    assert impact_searcher(indexes, "diffretreiver").query_encoder is None  # a program may give one later
    monkeypatch.setattr("diffretriever_pyserini.plugin.touch_search.pyserini_command", lambda: "pyserini.search.lucene")
    with pytest.raises(InputError, match="--encoder diffretreiver: Pyserini knows no query encoder of this name"):
        impact_searcher(indexes, "diffretreiver")


@pytest.mark.parametrize("batch", [False, True])
def test_each_signal_has_the_scores_of_the_equations(
    indexes: tuple[str, str], tiny_name: str, scores: dict[str, Any], batch: bool
) -> None:
    dense = dense_searcher(indexes, DiffRetrieverQueryEncoder(tiny_name))
    # The impact searcher accepts the dense encoder as well as its lexical encoder.
    for encoder in (DiffRetrieverQueryEncoder(tiny_name).lexical, DiffRetrieverQueryEncoder(tiny_name)):
        sparse = impact_searcher(indexes, encoder)
        if batch:
            results = [
                searcher.batch_search(list(QUERIES.values()), list(QUERIES), 10, 2) for searcher in (dense, sparse)
            ]
        else:
            results = [
                {qid: searcher.search(text, 10) for qid, text in QUERIES.items()} for searcher in (dense, sparse)
            ]
        for qid, expected in scores.items():
            assert hits_of(results[0][qid]) == pytest.approx({docid: s[0] for docid, s in expected.items()}, abs=1e-5)
            positive = {docid: s[1] for docid, s in expected.items() if s[1] > 0}
            assert hits_of(results[1][qid]) == pytest.approx(positive, abs=0.05)


@pytest.mark.parametrize("depth", [2, 4, 10])
@pytest.mark.parametrize("batch", [False, True])
def test_hybrid_is_the_papers_fusion_score_by_score(
    indexes: tuple[str, str], tiny_name: str, scores: dict[str, Any], batch: bool, depth: int
) -> None:
    from pyserini.search.hybrid import HybridSearcher

    encoder = DiffRetrieverQueryEncoder(tiny_name)
    searcher = HybridSearcher(dense_searcher(indexes, encoder), impact_searcher(indexes, encoder.lexical))
    if batch:
        results = searcher.batch_search(list(QUERIES.values()), list(QUERIES), depth, 10, 2, 1.0, True)
    else:
        results = {qid: searcher.search(text, depth, 10, 1.0, True) for qid, text in QUERIES.items()}
    for qid, expected in scores.items():
        columns = np.array([list(expected.values())], dtype=np.float32)
        fused = scoring.fuse(columns[:, :, 0], columns[:, :, 1], depth=depth)[0]
        fused = dict(zip(PASSAGES, fused.tolist(), strict=True))
        hits = hits_of(results[qid])
        assert list(hits) == sorted(hits, key=lambda docid: (hits[docid], docid), reverse=True)
        # No searcher returns a passage that is only in the lexical list, with score 0.
        in_lists = {docid for docid, score in fused.items() if not np.isnan(score)}
        assert hits.keys() <= in_lists
        assert all(fused[docid] == 0 for docid in in_lists - hits.keys())
        assert hits == pytest.approx({docid: fused[docid] for docid in hits}, abs=1e-5)


def test_one_lexical_hit_no_longer_ends_the_run(indexes: tuple[str, str], tiny_name: str) -> None:
    from pyserini.search.hybrid import HybridSearcher

    encoder = DiffRetrieverQueryEncoder(tiny_name)
    terms = encoder.model.encode([PASSAGES["p5"]]).impacts[0]
    rare = max(terms, key=lambda term: (terms[term], term))

    class OneTerm:
        def encode(self, text: str) -> dict[str, int]:
            return {rare: 1} if text == "finance" else {}

    searcher = HybridSearcher(dense_searcher(indexes, encoder), impact_searcher(indexes, OneTerm()))
    assert searcher.search("finance", 10, 10, 1.0, True)
    assert len(searcher.search("nothing lexical", 10, 10, 1.0, True)) == len(PASSAGES)


def test_signals_of_other_encoders_are_fused_by_pyserini() -> None:
    from pyserini.search.hybrid import HybridSearcher

    hits = [SimpleNamespace(docid="a", score=2.0), SimpleNamespace(docid="b", score=1.0)]
    theirs = SimpleNamespace(search=lambda query, k: hits, batch_search=lambda queries, ids, k, threads: {"q": hits})
    searcher = HybridSearcher(theirs, theirs)
    assert hits_of(searcher.search("x", 10, 10, 1.0, True)) == {"a": 1.0, "b": -1.0}  # 2 x ours - 1
    assert hits_of(searcher.batch_search(["x"], ["q"], 10, 10, 1, 1.0, True)["q"]) == {"a": 1.0, "b": -1.0}
    equal = [SimpleNamespace(docid="a", score=2.0)]
    searcher.dense_searcher = SimpleNamespace(search=lambda query, k: equal)
    with pytest.raises(ZeroDivisionError):
        searcher.search("x", 10, 10, 1.0, True)


def test_a_batch_goes_through_the_model_together(
    indexes: tuple[str, str], tiny_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = DiffRetriever.encode

    def counted(self: DiffRetriever, texts: list[str], **options: Any) -> Any:
        sizes.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(DiffRetriever, "encode", counted)
    impact_searcher(indexes, tiny_name).batch_search([f"new query {i}" for i in range(5)], list("abcde"), 5, 1)
    assert sizes == [5]


def test_an_index_of_another_k_is_refused(indexes: tuple[str, str], tiny_name: str) -> None:
    encoder = DiffRetrieverQueryEncoder(tiny_name, k_passage=3)
    with pytest.raises(InputError) as error:
        dense_searcher(indexes, encoder)
    message, builder = str(error.value), DiffRetrieverQueryEncoder(tiny_name)
    first = f"{indexes[0]} holds vectors of another encoder: k_passage is 3, was 1: search with"
    assert message.startswith(first) and "build the index again" in message
    assert builder.model.passage_fingerprint in message and encoder.model.passage_fingerprint in message


def test_other_query_settings_do_not_make_another_model(indexes: tuple[str, str], tiny_name: str) -> None:
    for options in ({"k_query": 2}, {"lexical_terms": "vocabulary"}, {"max_length": 100}):
        searcher = dense_searcher(indexes, DiffRetrieverQueryEncoder(tiny_name, **options))
        assert len(searcher.search("a text", k=2)) == 2


def test_the_record_of_a_replaced_index_is_ignored(indexes: tuple[str, str], tiny_name: str, tmp_path: Path) -> None:
    import shutil

    import faiss

    shutil.copytree(indexes[0], tmp_path / "D")
    index = faiss.IndexFlatIP(64)
    index.add(np.ones((1, 64), np.float32))
    faiss.write_index(index, str(tmp_path / "D/index"))
    (tmp_path / "D/docid").write_text("a\n")
    assert (
        len(dense_searcher((str(tmp_path / "D"), ""), DiffRetrieverQueryEncoder(tiny_name, k_passage=3)).search("x"))
        == 1
    )


def test_an_index_of_another_width_is_refused(indexes: tuple[str, str], tiny_name: str, tmp_path: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(32)
    index.add(np.ones((1, 32), np.float32))
    faiss.write_index(index, str(tmp_path / "index"))
    (tmp_path / "docid").write_text("a\n")
    with pytest.raises(InputError, match="holds vectors of 32 components, and those of .* have 64: search with"):
        dense_searcher((str(tmp_path), ""), DiffRetrieverQueryEncoder(tiny_name))


def test_a_lexical_name_does_not_search_faiss(indexes: tuple[str, str], tiny_name: str) -> None:
    with pytest.raises(InputError, match="drop -lexical from the name"):
        dense_searcher(indexes, DiffRetrieverQueryEncoder(f"{tiny_name}-lexical"))


def test_a_relative_path_is_resolved_by_this_process_not_by_the_jvm(
    indexes: tuple[str, str], tiny_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The JVM was started in another directory and keeps it."""
    from pyserini.search.lucene import LuceneImpactSearcher

    (tmp_path / "L").symlink_to(indexes[1])
    monkeypatch.chdir(tmp_path)
    relative = LuceneImpactSearcher("L", f"{tiny_name}-lexical", min_idf=-1)
    absolute = impact_searcher(indexes, f"{tiny_name}-lexical")
    expected = [(hit.docid, hit.score) for hit in absolute.search(QUERIES["q2"])]
    assert expected and [(hit.docid, hit.score) for hit in relative.search(QUERIES["q2"])] == expected


def test_many_threads_get_the_results_of_one_thread(indexes: tuple[str, str], tiny_name: str) -> None:
    searcher = impact_searcher(indexes, DiffRetrieverQueryEncoder(tiny_name).lexical)

    def single(query: str) -> list[tuple[str, float]]:
        return [(hit.docid, hit.score) for hit in searcher.search(query)]

    def batch(query: str) -> list[tuple[str, float]]:
        return [(hit.docid, hit.score) for hit in searcher.batch_search([query], ["q"])["q"]]

    queries = [query for query in QUERIES.values() if query] * 60
    expected = {query: single(query) for query in queries}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change as often as they can
    try:
        with ThreadPoolExecutor(20) as pool:
            for search in (single, batch):
                assert list(pool.map(search, queries)) == [expected[query] for query in queries]
    finally:
        sys.setswitchinterval(interval)


def test_cached_queries_that_a_kill_left_without_their_folders_name_are_restored(tmp_path: Path) -> None:
    from pyserini.search.lucene import LuceneImpactSearcher

    older = tmp_path / "queries.replaced"
    older.mkdir()
    (older / "queries.jsonl").write_text('{"id": "1", "contents": "moon", "vector": {"moon": 3}}\n')
    (older / "manifest.json").touch()
    encoder = LuceneImpactSearcher._init_query_encoder_from_str(str(tmp_path / "queries" / "queries.jsonl"))
    assert encoder.encode("moon") == {"moon": 3}


def test_another_folder_than_the_command_takes(tmp_path: Path, indexes: tuple[str, str], tiny_name: str) -> None:
    """The error says which folder was given and which to name."""
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    dense, lexical = indexes
    for name, part in (("dense", dense), ("lexical", lexical)):
        (tmp_path / name).symlink_to(part)
    (tmp_path / "index.json").write_text("{}")
    for searcher, name in ((FaissSearcher, "dense"), (LuceneImpactSearcher, "lexical")):
        with pytest.raises(InputError, match=f"an index of `diffretriever index`.*: name {tmp_path / name}"):
            searcher(str(tmp_path), tiny_name)
        with pytest.raises(InputError, match="nowhere: there is no such folder"):
            searcher(str(tmp_path / "nowhere"), tiny_name)
    with pytest.raises(InputError, match="not a FAISS folder; it is a Lucene index: name the folder"):
        FaissSearcher(lexical, tiny_name)
    with pytest.raises(InputError, match="not a Lucene index: name the folder of the impact index"):
        LuceneImpactSearcher(dense, tiny_name)


def test_a_damaged_folder_says_what_it_is(tmp_path: Path, indexes: tuple[str, str], tiny_name: str) -> None:
    import shutil

    from pyserini.search.faiss import FaissSearcher

    shutil.copytree(indexes[0], tmp_path / "D")
    lines = (tmp_path / "D/docid").read_text().splitlines(keepends=True)
    (tmp_path / "D/docid").write_text("".join(lines[1:]))
    with pytest.raises(InputError, match=rf"holds {len(lines)} vectors and docid {len(lines) - 1} ids"):
        FaissSearcher(str(tmp_path / "D"), tiny_name)
    (tmp_path / "D/index").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="this FAISS index cannot be opened .Index type .* not recognized"):
        FaissSearcher(str(tmp_path / "D"), tiny_name)
