"""Searches of small real indexes, compared score by score with the equations and with Pyserini's hybrid search."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder, scoring
from diffretriever_pyserini.errors import InputError, ModelNotFoundError
from diffretriever_pyserini.scoring.ranking import ranked
from diffretriever_pyserini.searching import SearchIndex, SearchOptions, open_index, separate_folders
from diffretriever_pyserini.searching.searchers import LexicalSearcher
from diffretriever_pyserini.store.index_record import IndexRecord

from .. import warm
from ..indexes.conftest import made_up_provenance
from .conftest import PASSAGES, TOPICS, write_record, write_signals

pytestmark = pytest.mark.java
Expected = dict[str, dict[str, tuple[float, float]]]


@pytest.fixture(scope="module")
def index(folder: Path) -> SearchIndex:
    return open_index(folder)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_signal_has_the_scores_of_the_equations(index: SearchIndex, scores: Expected, threads: int) -> None:
    dense = index.search(TOPICS, mode="dense", threads=threads)
    lexical = index.search(TOPICS, mode="lexical", threads=threads)
    for qid, expected in scores.items():
        assert dict(dense[qid]) == pytest.approx({docid: s[0] for docid, s in expected.items()}, abs=1e-5)
        assert dict(lexical[qid]) == {docid: s[1] for docid, s in expected.items() if s[1] > 0}
        for hits in (dense[qid], lexical[qid]):
            assert hits == ranked(dict(hits))
    assert list(dense) == list(lexical) == list(TOPICS)
    assert lexical["q4"] == lexical["10"] == []  # stopwords only, and a word of no passage
    assert lexical["q2"] and lexical["q2"] == lexical["q5"] and dense["q2"] == dense["q5"]


@pytest.mark.parametrize(("hits", "depth"), [(1, 1), (1, 2), (2, 4), (4, 4), (3, None), (1000, None)])
@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_hybrid_is_the_papers_fusion(
    index: SearchIndex, scores: Expected, hits: int, depth: int | None, alpha: float
) -> None:
    results = index.search(TOPICS, hits=hits, depth=depth, alpha=alpha)
    for qid, expected in scores.items():
        columns = np.array([list(expected.values())], dtype=np.float32)
        fused = scoring.fuse(columns[:, :, 0], columns[:, :, 1], weight=1 / (1 + alpha), depth=depth or 1000)[0]
        by_docid = dict(zip(PASSAGES, fused.tolist(), strict=True))
        listed = {docid: score for docid, score in by_docid.items() if not np.isnan(score)}
        assert results[qid] == ranked(dict(results[qid]))
        assert len(results[qid]) == min(hits, len(PASSAGES))
        for docid, score in results[qid]:
            assert score == pytest.approx(listed[docid], abs=3e-5)  # min-max divides by a small range here
        # A passage that was cut off, or whose only score is a lexical 0, is no better than the last hit.
        last = results[qid][-1][1]
        assert all(score <= last + 3e-5 for docid, score in listed.items() if docid not in dict(results[qid]))


@pytest.mark.parametrize("hits", [1, 3, 1000])
def test_hybrid_equals_pyserinis_search_with_our_plugin(
    index: SearchIndex, folder: Path, tiny_name: str, hits: int
) -> None:
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.hybrid import HybridSearcher
    from pyserini.search.lucene import LuceneImpactSearcher

    encoder = DiffRetrieverQueryEncoder(tiny_name)
    pyserini = HybridSearcher(
        FaissSearcher(str(folder / "dense"), encoder),
        LuceneImpactSearcher(str(folder / "lexical"), encoder.lexical, min_idf=-1),
    )
    theirs = pyserini.batch_search(list(TOPICS.values()), list(TOPICS), hits, hits, 2, 1.0, True)
    ours = index.search(TOPICS, mode="hybrid", hits=hits, depth=hits)
    assert ours == {qid: [(hit.docid, hit.score) for hit in theirs[qid]] for qid in TOPICS}


@pytest.mark.parametrize("depth", [None, 5])
@pytest.mark.parametrize("remove_query", [False, True])
@pytest.mark.parametrize("fusion", ["minmax", "rrf"])
def test_a_short_result_is_the_head_of_a_long_one(
    index: SearchIndex, fusion: str, remove_query: bool, depth: int | None
) -> None:
    options: dict[str, Any] = {"fusion": fusion, "remove_query": remove_query, "depth": depth}
    whole = index.search(TOPICS, hits=depth or 1000, **options)
    assert min(map(len, whole.values())) >= 5
    for hits in (1, 2, 4):
        assert index.search(TOPICS, hits=hits, **options) == {qid: listed[:hits] for qid, listed in whole.items()}


def test_threads_that_search_first_at_the_same_time_open_one_searcher(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[LexicalSearcher] = []
    init = LexicalSearcher.__init__

    def slow(self: LexicalSearcher, *arguments: Any) -> None:
        opened.append(self)
        init(self, *arguments)

    monkeypatch.setattr(LexicalSearcher, "__init__", slow)
    with open_index(folder) as index, ThreadPoolExecutor(4) as pool:
        assert len({id(one) for one in pool.map(lambda _: index.searcher("lexical"), range(8))}) == len(opened) == 1


def test_scores_of_lexical_ties_are_whole(folder: Path, index: SearchIndex) -> None:
    """Anserini lowers the second of two equal scores by about 1e-6."""
    query = index.model.encode_queries_cached(["fox and dog"])[0]
    for hit in index.searcher("lexical").search([query, query], 10, 1)[1].values():
        assert hit == int(hit)


@pytest.mark.parametrize("mode", ["lexical", "dense"])
def test_the_first_thing_that_a_process_does(folder: Path, mode: str) -> None:
    """Lucene's classes are found although nothing imported Pyserini before; a dense search needs no JVM."""
    program = (
        "import sys\nfrom diffretriever_pyserini.searching import open_index\n"
        f"print(open_index({str(folder)!r}).search({{'q': 'fox and dog'}}, {mode!r}, 1)['q'][0][0])\n"
        "print('jnius' in sys.modules)\n"
    )
    done = subprocess.run([warm.python(), "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(mode == "lexical")


def test_depth_applies_to_fusion_only(index: SearchIndex) -> None:
    deep, shallow = (index.search(TOPICS, hits=1, depth=depth) for depth in (None, 1))
    assert deep != shallow
    for mode in ("dense", "lexical"):
        assert index.search(TOPICS, mode=mode, hits=2, depth=4) == index.search(TOPICS, mode=mode, hits=2)
    assert [SearchOptions(hits=hits).listed(signals) for hits in (10, 2000) for signals in (1, 2)] == [
        10,
        1000,
        2000,
        2000,
    ]


def test_a_query_goes_through_the_model_once_for_all_modes(
    folder: Path, tiny_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, seen = open_index(folder, k_query=2), []  # another model than the other tests', so its cache is empty
    forward = index.model.reader.batches

    def counted(prepared: Any, *args: Any) -> Any:
        for rows in forward(prepared, *args):
            seen.extend(rows)
            yield rows

    monkeypatch.setattr(index.model.reader, "batches", counted)
    topics = {f"q{i}": f"query number {i % 7} about foxes" for i in range(10)}
    results = index.search(topics, mode="hybrid", batch_size=3)
    assert len(seen) == 7  # ten queries, seven different texts, two searchers
    index.search(topics, mode="dense")
    index.search(topics, mode="lexical")
    assert len(seen) == 7
    assert results["q0"] == results["q7"]


def test_batches_and_threads_change_nothing(index: SearchIndex) -> None:
    topics = {f"{i:03}": f"{text} {i}" for i in range(6) for text in TOPICS.values()}
    expected = index.search(topics, batch_size=64, threads=1)
    for batch_size, threads in ((1, 1), (2, 2), (5, None)):
        results = index.search(topics, batch_size=batch_size, threads=threads)
        for qid, hits in expected.items():
            assert dict(results[qid]) == pytest.approx(dict(hits), abs=1e-5)
    parts = list(index.batches(topics, options=SearchOptions(batch_size=1)))
    assert [len(part) for part in parts] == [min(8, len(topics))]
    assert index.search({}) == {}


@pytest.mark.parametrize("hits", [2, 6, 1000])
@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_the_query_itself_is_removed_before_fusion(index: SearchIndex, scores: Expected, mode: str, hits: int) -> None:
    results = index.search(TOPICS, mode=mode, hits=hits, remove_query=True)
    expected = np.array([list(scores["007"].values())], dtype=np.float32)[:, : len(PASSAGES) - 1]  # "007" is the last
    dense, lexical = expected[:, :, 0], expected[:, :, 1]
    fused = {"dense": dense, "lexical": np.where(lexical > 0, lexical, np.nan)}.get(mode)
    if fused is None:
        fused = scoring.fuse(dense, lexical)
    retrievable = sum(~np.isnan(fused[0]))
    assert "007" not in dict(results["007"])
    assert len(results["007"]) == min(hits, retrievable)
    by_docid = dict(zip(PASSAGES, fused[0].tolist(), strict=False))
    assert dict(results["007"]) == pytest.approx({docid: by_docid[docid] for docid, _ in results["007"]}, abs=1e-5)
    assert results["q2"] == index.search(TOPICS, mode=mode, hits=hits)["q2"]
    assert "007" in dict(index.search(TOPICS, mode=mode, hits=1000)["007"])


def test_reciprocal_ranks(index: SearchIndex) -> None:
    dense, lexical = (index.search(TOPICS, mode=mode) for mode in ("dense", "lexical"))
    results = index.search(TOPICS, fusion="rrf", rrf_k=10)
    for qid, hits in results.items():
        ranks = [{docid: rank for rank, (docid, _) in enumerate(signal[qid], 1)} for signal in (dense, lexical)]
        expected = {docid: sum(1 / (10 + signal[docid]) for signal in ranks if docid in signal) for docid in ranks[0]}
        assert dict(hits) == pytest.approx(expected)


def test_a_term_of_every_passage_counts(tiny_name: str, tmp_path: Path) -> None:
    from pyserini.search.lucene import LuceneImpactSearcher

    write_signals(tmp_path, tiny_name, {"a": "finance", "b": "finance models"})
    hits = open_index(separate_folders(lexical=tmp_path / "lexical"), tiny_name).search({"q": "finance"})["q"]
    assert {docid for docid, _ in hits} == {"a", "b"}
    pyserini = LuceneImpactSearcher(str(tmp_path / "lexical"), DiffRetrieverQueryEncoder(tiny_name).lexical)
    assert not list(pyserini.search("finance"))  # Pyserini's default drops such a term


def test_pyserinis_folders_name_their_encoder_or_need_one(index: SearchIndex, folder: Path, tiny_name: str) -> None:
    signals = {"dense": folder / "dense", "lexical": folder / "lexical"}
    assert open_index(separate_folders(**signals)).search(TOPICS) == index.search(TOPICS), (
        "the FAISS folder has a record"
    )
    with pytest.raises(InputError, match="does not say which encoder made it: name it with --encoder"):
        open_index(separate_folders(lexical=signals["lexical"]))
    assert open_index(separate_folders(**signals), tiny_name).search(TOPICS) == index.search(TOPICS)
    assert open_index(separate_folders(lexical=signals["lexical"]), tiny_name + "-lexical").search(
        TOPICS
    ) == index.search(TOPICS, mode="lexical")


def linked(folder: Path, tmp_path: Path, name: str, **changes: object) -> DiffRetrieverDocumentEncoder:
    """``folder`` under ``tmp_path`` with a changed record; returns the encoder that made it."""
    encoder = DiffRetrieverDocumentEncoder(name)
    write_record(tmp_path, encoder, **changes)
    for signal in ("dense", "lexical"):
        (tmp_path / signal).symlink_to(folder / signal)
    return encoder


def test_another_encoder_is_refused_and_both_are_named(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    theirs = made_up_provenance(1, encoder="theirs")
    encoder = linked(folder, tmp_path, tiny_name, provenance=theirs.record())
    with pytest.raises(InputError, match="passages of another encoder: .*build the index.*Made by 'theirs'") as error:
        open_index(tmp_path, encoder=tiny_name)
    for named in (theirs, encoder.model):
        assert named.passage_fingerprint in str(error.value)


def test_k_passage_is_read_from_the_index(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    three = DiffRetriever.from_pretrained(tiny_name.removeprefix("diffretriever:"), k_passage=3)
    linked(folder, tmp_path, tiny_name, provenance=three.provenance.record())
    index = open_index(tmp_path)
    assert index.model.config.k_passage == 3
    with pytest.raises(
        InputError, match="vectors of another encoder: k_passage is 3, was 1: "
    ):  # INDEX/dense really holds the vectors of K = 1
        index.search(TOPICS, mode="dense")


def test_a_lucene_index_of_other_settings_is_refused(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    shutil.copytree(folder / "lexical", tmp_path / "L")
    own = DiffRetriever.from_pretrained(tiny_name.removeprefix("diffretriever:")).provenance
    for component, key, value, difference in (("config", "rms_norm_eps", 0.5, "the default, was 0.5"),
                                              ("query", "k", 7, "k_query is 1, was 7")):  # fmt: skip
        theirs = replace(own, encoder="theirs", **{component: getattr(own, component) | {key: value}})
        IndexRecord(theirs, 64, len(PASSAGES)).write(tmp_path / "L")
        with pytest.raises(InputError, match=f"L holds term weights of another encoder: .*{difference}.*'theirs'"):
            open_index(separate_folders(lexical=tmp_path / "L"), tiny_name).search(TOPICS)
    # Query settings are part of the whole encoder, but may be overridden on purpose.
    assert open_index(separate_folders(lexical=tmp_path / "L"), tiny_name, k_query=2).search(TOPICS)["q1"]
    theirs = replace(own, readout=own.readout | {"top_terms": 5})
    IndexRecord(theirs, 64, len(PASSAGES)).write(tmp_path / "L")
    with pytest.raises(InputError, match="top_terms is 128, was 5"):
        open_index(separate_folders(lexical=tmp_path / "L"), tiny_name, k_query=2).search(TOPICS)


def test_a_checkpoint_that_has_moved(folder: Path, tiny_name: str, tmp_path: Path, index: SearchIndex) -> None:
    own = DiffRetrieverDocumentEncoder(tiny_name).model.provenance
    linked(folder, tmp_path, tiny_name, provenance=replace(own, encoder=str(tmp_path / "gone")).record())
    with pytest.raises(ModelNotFoundError, match=r"index\.json names the encoder .*gone.*--encoder"):
        open_index(tmp_path)
    assert open_index(tmp_path, encoder=tiny_name).search(TOPICS) == index.search(TOPICS)


def test_the_query_side_may_differ(folder: Path, index: SearchIndex) -> None:
    two = open_index(folder, k_query=2)
    assert two.model.config.k_query == 2
    assert dict(two.search(TOPICS, mode="dense")["q1"]) != dict(index.search(TOPICS, mode="dense")["q1"])
    assert open_index(folder, max_length=100000).model is index.model  # it can only shorten
    assert open_index(folder, dtype="bfloat16").model.dtype != index.model.dtype


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 2147483648}, "threads=2147483648 must be a whole number between 1 and 1,024"),
        ({"batch_size": 2147483648}, "batch_size=2147483648 must be a whole number between 1 and 65,536"),
        ({"hits": 0}, "hits=0"),
        ({"depth": 3}, "depth=3 must be a whole number of at least hits=1000"),
        ({"hits": 3, "depth": 4.5}, "depth=4.5 must"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"threads": 0}, "threads=0"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"fusion": "sum"}, "fusion='sum' must be one of 'minmax', 'rrf'"),
        ({"mode": "sparse"}, "mode 'sparse'"),
        ({"mode": "dense,dense"}, "names a signal twice"),
        ({"weights": {"multi": 2.0}}, "weight for multi has no effect: mode hybrid searches dense and lexical"),
        (
            {"weights": {"sparse": 2.0}},
            "must be a mapping from one of 'dense', 'multi', 'lexical', 'bm25' to a number of at least 0",
        ),
    ],
)
def test_invalid_options_are_refused(index: SearchIndex, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        index.search(TOPICS, **options)


@pytest.mark.parametrize("topics", [{7: "a"}, {"7": None}, ["a"]])
def test_topics_that_are_not_strings(index: SearchIndex, topics: Any) -> None:
    with pytest.raises(InputError, match=r"strings|mapping"):
        index.search(topics)


def test_a_closed_index_opens_again(folder: Path) -> None:
    with open_index(folder, mode="lexical") as index:
        before = index.search(TOPICS, mode="lexical")
    assert index.search(TOPICS, mode="lexical") == before
    assert set(index.seconds) == {"open", "encode", "lexical", "fuse"}


@pytest.mark.parametrize("separate", [False, True])
def test_an_index_stays_the_same_when_the_directory_changes(
    folder: Path, tiny_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separate: bool
) -> None:
    """The JVM resolves relative paths where it started, and searchers are opened when they are first used."""
    for name, passages in (("A", {"a1": "fox and dog"}), ("B", {"b1": "fox and dog", "b2": "finance"})):
        write_signals(tmp_path / name / "ix", tiny_name, passages)
        write_record(tmp_path / name / "ix", DiffRetrieverDocumentEncoder(tiny_name), passages=len(passages))

    def opened() -> SearchIndex:
        return open_index(separate_folders("ix/dense", "ix/lexical") if separate else "ix", tiny_name)

    monkeypatch.chdir(tmp_path / "A")
    in_a, late = opened(), opened()
    for index, directory, expected in ((in_a, "B", {"a1"}), (opened, "B", {"b1", "b2"}), (late, tmp_path, {"a1"})):
        monkeypatch.chdir(tmp_path / directory)
        with index() if callable(index) else index as open_one:
            for mode in ("dense", "lexical", "hybrid"):
                docids = {docid for docid, _ in open_one.search({"q": "fox and dog finance"}, mode=mode)["q"]}
                assert docids and docids <= expected, (directory, mode)


def test_many_threads_get_the_results_of_one_thread(folder: Path, index: SearchIndex) -> None:
    """pyjnius keeps a call's object in the method, which threads share: terms went into other threads' queries."""
    with open_index(folder) as other:
        expected = {qid: other.search({qid: text}, mode="lexical") for qid, text in TOPICS.items()}
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # threads change as often as they can
        try:
            with ThreadPoolExecutor(20) as pool:
                qids = [qid for _ in range(100) for qid in TOPICS]
                indexes = (index, other)  # two open indexes share Java's classes
                futures = [
                    pool.submit(indexes[i % 2].search, {qid: TOPICS[qid]}, mode="lexical") for i, qid in enumerate(qids)
                ]
                for qid, future in zip(qids, futures, strict=True):
                    assert future.result() == expected[qid]
        finally:
            sys.setswitchinterval(interval)
