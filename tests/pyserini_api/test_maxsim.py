"""MaxSim where Pyserini expects a FaissSearcher: our class, Pyserini's with our folders, and its hybrid searcher."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, scoring
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.indexes.multivector.build import MultiBuild
from diffretriever_pyserini.store.store import Store

from ..encoding.conftest import passages, write_corpus
from ..model.conftest import one_thread, save_masked_lm

__all__ = ["one_thread"]
QUERIES = ["dense vectors of words", "one more query", "", "zebra"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random BERT with K = 3 for passages."""
    folder = tmp_path_factory.mktemp("bert")
    save_masked_lm(folder)
    (folder / "k3.yaml").write_text(f"name: k3\nbackbone: {folder}\nk_passage: 3\n")
    return str(folder / "k3.yaml")


@pytest.fixture(scope="module")
def store(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """150 passages."""
    folder = tmp_path_factory.mktemp("store")
    corpus = write_corpus(folder / "corpus.jsonl", passages(150))
    model = DiffRetriever.from_pretrained(checkpoint)
    encode_corpus(model, Corpus([corpus]), folder / "S", EncodeOptions(rows_per_part=40, workers=0, dtype="float32"))
    return Store(folder / "S")


@pytest.fixture(scope="module")
def index(store: Store, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """INDEX/multi with enough bytes per vector to be nearly exact, and INDEX/lexical."""
    folder = tmp_path_factory.mktemp("index") / "INDEX"
    multi = MultiBuild(bytes_per_vector=64)
    build_index(store, folder, IndexOptions(dense=None, multi=multi, encoder=checkpoint, quiet=True))
    return folder


@pytest.fixture(scope="module")
def expected(checkpoint: str, store: Store) -> dict[str, dict[str, float]]:
    """Exact MaxSim by query text and docid."""
    model = DiffRetriever.from_pretrained(checkpoint)
    vectors = np.concatenate([part.vectors() for part in store.parts])
    scores = scoring.maxsim(model.encode(QUERIES, side="query").vectors, vectors)
    docids = list(store.docids())
    return {query: dict(zip(docids, row.tolist(), strict=True)) for query, row in zip(QUERIES, scores, strict=True)}


def test_a_store_is_searched_on_the_encoders_device(
    store: Store, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffretriever_pyserini import MaxSimSearcher

    monkeypatch.setattr(DiffRetriever, "device", property(lambda _: "meta"))
    vectors = MaxSimSearcher(store.folder, checkpoint).vectors
    assert vectors.device == "meta"


@pytest.mark.parametrize("kind", ["store", "multi"])
def test_a_folder_stays_the_same_when_the_directory_changes(
    store: Store, index: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Files are opened when they are first read."""
    from diffretriever_pyserini import MaxSimSearcher

    folder = store.folder if kind == "store" else index / "multi"
    expected = MaxSimSearcher(folder, checkpoint).batch_search(QUERIES, QUERIES, 5)
    monkeypatch.chdir(folder.parent)
    searcher = MaxSimSearcher(folder.name, checkpoint)
    monkeypatch.chdir(tmp_path)
    assert searcher.batch_search(QUERIES, QUERIES, 5) == expected


def test_a_store_is_searched_exactly(store: Store, checkpoint: str, expected: dict[str, dict[str, float]]) -> None:
    from diffretriever_pyserini import MaxSimSearcher

    searcher = MaxSimSearcher(store.folder, f"diffretriever:{checkpoint}")
    assert searcher.num_docs == 150
    for query, scores in expected.items():
        hits = searcher.search(query, 20)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:20], abs=1e-5)
        assert {hit.docid: hit.score for hit in hits} == pytest.approx({hit.docid: scores[hit.docid] for hit in hits})


def test_pyserinis_searcher_takes_the_folder(
    index: Path, checkpoint: str, expected: dict[str, dict[str, float]]
) -> None:
    from pyserini.search.faiss import FaissSearcher

    from diffretriever_pyserini import DiffRetrieverQueryEncoder, MaxSimSearcher, register

    register()
    name = f"diffretriever:{checkpoint}"
    for encoder in (name, DiffRetrieverQueryEncoder(name)):
        searcher = FaissSearcher(str(index / "multi"), encoder)
        assert isinstance(searcher, MaxSimSearcher)
        results = searcher.batch_search(QUERIES, list("abcd"), 150, threads=2)
        for qid, (query, scores) in zip("abcd", expected.items(), strict=True):
            hits = results[qid]
            assert len(hits) == len({hit.docid for hit in hits}) == 150
            assert max(abs(hit.score - scores[hit.docid]) for hit in hits) < 0.1, query
            assert [(hit.docid, hit.score) for hit in searcher.search(query, 7)] == [
                (hit.docid, hit.score) for hit in hits[:7]
            ]


def test_hybrid(index: Path, checkpoint: str) -> None:
    from pyserini.search.hybrid import HybridSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    from diffretriever_pyserini import DiffRetrieverQueryEncoder, MaxSimSearcher
    from diffretriever_pyserini.searching import open_index

    encoder = DiffRetrieverQueryEncoder(f"diffretriever:{checkpoint}")
    dense = MaxSimSearcher(index / "multi", encoder)
    hybrid = HybridSearcher(dense, LuceneImpactSearcher(str(index / "lexical"), encoder.lexical, min_idf=-1))
    topics = {str(i): query for i, query in enumerate(QUERIES)}
    with open_index(index, encoder=f"diffretriever:{checkpoint}") as ours:
        mine = ours.search(topics, hits=40, depth=40)
    theirs = hybrid.batch_search(QUERIES, list(topics), 40, 40, 2, alpha=1.0, normalization=True)
    for qid, hits in mine.items():
        assert [hit.docid for hit in theirs[qid]] == [docid for docid, _ in hits]
        assert [hit.score for hit in theirs[qid]] == pytest.approx([score for _, score in hits], abs=1e-6)


def test_vectors_as_queries(index: Path, checkpoint: str) -> None:
    from diffretriever_pyserini import MaxSimSearcher

    searcher = MaxSimSearcher(index / "multi", f"diffretriever:{checkpoint}")
    vectors = DiffRetriever.from_pretrained(checkpoint).encode(QUERIES[:2], side="query").vectors
    by_text, by_vector = (
        searcher.batch_search(QUERIES[:2], ["a", "b"], 9),
        searcher.batch_search(vectors, ["a", "b"], 9),
    )
    for qid in "ab":
        assert [hit.docid for hit in by_text[qid]] == [hit.docid for hit in by_vector[qid]]
    with pytest.raises(InputError, match=r"a query has the shape \(2, 5\)"):
        searcher.search(np.zeros((2, 5), np.float32))


def test_mismatched_arguments_are_explained(
    index: Path, checkpoint: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pyserini.encode import QueryEncoder

    from diffretriever_pyserini import DiffRetrieverQueryEncoder, MaxSimSearcher

    other = tmp_path_factory.mktemp("other")
    save_masked_lm(other, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"vectors of another encoder: num_hidden_layers is 1, was 2; other weights: "):
        MaxSimSearcher(index / "multi", DiffRetrieverQueryEncoder(f"diffretriever:{other}", k_passage=3))
    with pytest.raises(InputError, match=r"k_passage is \d+, was 3.*: name a YAML file with k_passage: 3"):
        MaxSimSearcher(index / "multi", f"diffretriever:{Path(checkpoint).parent}")
    with pytest.raises(InputError, match="drop -lexical"):
        MaxSimSearcher(index / "multi", DiffRetrieverQueryEncoder(f"diffretriever:{checkpoint}").lexical)
    with pytest.raises(InputError, match=r"holds several vectors per passage, and QueryEncoder gives one"):
        MaxSimSearcher(index / "multi", QueryEncoder())
    with pytest.raises(InputError, match="normalised distances"):
        MaxSimSearcher(index / "multi", f"diffretriever:{checkpoint}", normalize_distances=True)
    with pytest.raises(InputError, match="store"):
        MaxSimSearcher(tmp_path, f"diffretriever:{checkpoint}")
    searcher = MaxSimSearcher(index / "multi", f"diffretriever:{checkpoint}")
    with pytest.raises(InputError, match="ef_search=64 is for HNSW"):
        searcher.set_hnsw_ef_search(64)
    for arguments, message in (
        ((["a"], ["1"], 0), "k=0"),
        ((["a"], ["1", "2"]), "2 ids"),
        ((["a"], ["1"], 5, 1, True), "several vectors per passage"),
    ):
        with pytest.raises(InputError, match=message):
            searcher.batch_search(*arguments)


def test_eight_threads_get_the_results_of_one(index: Path, checkpoint: str) -> None:
    """For four seconds, or DIFFRETRIEVER_SOAK_SECONDS."""
    import os

    from diffretriever_pyserini import MaxSimSearcher

    searcher = MaxSimSearcher(index / "multi", f"diffretriever:{checkpoint}")
    texts = [f"query {i} of words {i % 7}" for i in range(40)]
    expected = {text: [(hit.docid, hit.score) for hit in searcher.search(text, 15)] for text in texts}
    until = time.monotonic() + float(os.environ.get("DIFFRETRIEVER_SOAK_SECONDS", "4"))
    wrong: list[str] = []
    answered = [0] * 8

    def ask(number: int) -> None:
        draw = np.random.default_rng(number)
        while time.monotonic() < until:
            queries = [texts[i] for i in draw.integers(len(texts), size=int(draw.integers(1, 6)))]
            qids = [f"{number}.{i}" for i in range(len(queries))]
            results = searcher.batch_search(queries, qids, 15, threads=int(draw.integers(1, 4)))
            for qid, text in zip(qids, queries, strict=True):
                if [(hit.docid, hit.score) for hit in results[qid]] != expected[text]:
                    wrong.append(text)
            answered[number] += len(queries)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(answered) > 0
