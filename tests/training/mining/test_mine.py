"""Mining: documents become passages and queries; positives and their copies are never negatives."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.corpora.corpus import Passage
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.runtime.commands import Step, StepError
from diffretriever_pyserini.training.data import rows
from diffretriever_pyserini.training.data.documents import generated_rows, read_documents
from diffretriever_pyserini.training.data.examples import RowFiles
from diffretriever_pyserini.training.data.rows import parse_line
from diffretriever_pyserini.training.data.store import PassageStore, text_digest
from diffretriever_pyserini.training.mining import candidates
from diffretriever_pyserini.training.mining import mine as mining
from diffretriever_pyserini.training.mining.candidates import Vectors, model_candidates
from diffretriever_pyserini.training.mining.mine import MineOptions, mine, positive_numbers

from ... import warm

MARKDOWN = """Some words before any heading, Dr. Smith says.

# How rivers shape valleys

Rivers cut into the rock below them. Over long times they make deep valleys.
The water carries sand and stones. Stones grind the bed of the river.

Setext heading here
===================
A short closing section about floods and dams.
"""


def test_documents_become_passages_under_their_headings(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "rivers.md").write_text(MARKDOWN)
    (tmp_path / "b.txt").write_text(" ".join(f"Sentence number {i} has exactly six words." for i in range(40)))
    (tmp_path / "image.png").write_bytes(b"\x89")
    passages = list(read_documents(tmp_path, words=50))
    rivers = [one for one in passages if "rivers.md" in one.docid]
    assert [one.title for one in rivers] == ["", "How rivers shape valleys", "Setext heading here"]
    assert rivers[0].text == "Some words before any heading, Dr. Smith says."
    assert [one.docid for one in rivers] == [f"a_folder/rivers.md#{i}" for i in (1, 2, 3)]
    plain = [one.text for one in passages if one.docid.startswith("b.txt")]
    assert all(17 <= len(text.split()) < 75 for text in plain)
    assert " ".join(plain) == (tmp_path / "b.txt").read_text(), "nothing of a document is lost"


def test_documents_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.txt"):
        list(read_documents(tmp_path))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt: not valid UTF-8"):
        list(read_documents(tmp_path))


def test_queries_are_headings_and_sentences_taken_out() -> None:
    text = "Rivers cut into hard rock. Over long times valleys become deep. Stones grind the river bed."
    passage = Passage("d#1", "How rivers shape valleys", text)
    heading, sentence = generated_rows(passage, np.random.default_rng(1))
    assert (heading.query, heading.positives[0].contents) == (passage.title, text), (
        "the passage does not contain its heading"
    )
    assert sentence.query in text
    assert sentence.query not in sentence.positives[0].contents
    assert sentence.positives[0].docid == "d#1"
    assert list(generated_rows(passage, np.random.default_rng(1))) == [heading, sentence]
    assert list(generated_rows(Passage("d#2", "Notes", "Only one sentence here."), np.random.default_rng(1))) == []


def store_of(tmp_path: Path, texts: list[str]) -> PassageStore:
    return PassageStore(tmp_path / "s.sqlite", (Passage(f"d{i}", "", text) for i, text in enumerate(texts)))


def test_the_store_finds_by_number_id_and_text(tmp_path: Path) -> None:
    store = store_of(tmp_path, ["One  text", "other", "one TEXT"])
    assert (len(store), store[1].text, store.number("d2"), store.number("d9")) == (3, "other", 2, None)
    assert store.same_text(" one text") == [0, 2]
    with pytest.raises(InputError, match="'d0' occurs twice"):
        PassageStore(tmp_path / "t.sqlite", [Passage("d0", "", "a"), Passage("d0", "", "b")])


def test_positives_are_known_by_id_and_by_text(tmp_path: Path) -> None:
    store = store_of(tmp_path, ["a b", "c", "A  B", "d"])
    by_id = rows.Row("q", (rows.ScoredPassage("d0", "", "changed text"),), ())
    assert positive_numbers(store, by_id) == {0, 2}, "a copy of a positive is a positive"
    assert positive_numbers(store, rows.Row("q", (rows.ScoredPassage("", "", "c"),), ())) == {1}


def test_passages_of_pairs_get_ids_that_differ(tmp_path: Path) -> None:
    ids = ["p3", "p1", "p1", "", "two words", "p4"]
    records = [{"docid": docid, "text": f"text {i}"} for i, docid in enumerate(ids)]
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "q", "positive_passages": records}))
    options = MineOptions(tmp_path / "m", pairs=(str(tmp_path / "pairs.jsonl"),))
    passages = list(mining._passages(options, tmp_path))
    assert [one.text for one in passages] == [f"text {i}" for i in range(6)]
    assert [one.docid for one in passages][:2] == ["p3", "p1"]
    assert len({one.docid for one in passages}) == 6


def test_positives_are_known_with_or_without_a_title(tmp_path: Path) -> None:
    passages = [Passage("d0", "Towers", "a b"), Passage("d1", "", "c d"), Passage("d2", "Towers", "")]
    store = PassageStore(tmp_path / "s.sqlite", passages)
    assert positive_numbers(store, rows.Row("q", (rows.ScoredPassage("", "", "A b"),), ())) == {0}
    assert positive_numbers(store, rows.Row("q", (rows.ScoredPassage("", "Rivers", "c d"),), ())) == {1}
    assert positive_numbers(store, rows.Row("q", (rows.ScoredPassage("", "Rivers", ""),), ())) == set()


NEIGHBOURS = ("tower number 1", "  Tower  NUMBER 1", "caf\u00e9 tower", "cafe\u0301 tower")


def layout(kind: str, folder: Path) -> dict[str, object]:
    """Options for a collection of other passages and pairs, in which equal queries have different positives."""
    texts = [f"tower number 1 stands in town {i}" for i in range(4)]
    if kind == "tsv":
        (folder / "p.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in zip(NEIGHBOURS, texts, strict=True)))
        return {"pairs": (str(folder / "p.tsv"),)}
    if kind == "documents":
        (folder / "docs").mkdir()
        body = " ".join(f"Number {i} of the towers counts {i} steps." for i in range(40))
        for name in "ab":
            (folder / "docs" / f"{name}.md").write_text(f"# The highest stone towers\n\n{body} In {name} all end.\n")
        return {"documents": folder / "docs", "words": 30}
    records = [
        {"query": q, "positive_passages": [{"docid": f"c{i}", "title": "T", "text": t}]}
        for i, (q, t) in enumerate(zip(NEIGHBOURS, texts, strict=True))
    ]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, records)))
    options: dict[str, object] = {"pairs": (str(folder / "p.jsonl"),)}
    if kind == "corpus":
        corpus = [{"id": f"c{i}", "contents": f"other words {i}" if i < 2 else texts[i % 4]} for i in range(7)]
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
        options["corpus"] = folder / "corpus.jsonl"
    return options


def bm25_returns_all(step: Step, folder: Path, log: Path, keeps: bool) -> float:
    if "pyserini.search.lucene" in step.arguments:
        ids = [json.loads(line)["id"] for line in (folder / "corpus" / "corpus.jsonl").read_text().splitlines()]
        topics = json.loads((folder / "topics.json").read_text())
        lines = [f"{qid} Q0 {one} {j + 1} {99 - j} fake\n" for qid in topics for j, one in enumerate(ids)]
        (folder / "run.txt").write_text("".join(lines))
    return 0.0


@pytest.mark.parametrize("method", ["bm25", "model"])
@pytest.mark.parametrize("kind", ["tsv", "records", "corpus", "documents"])
def test_a_positive_of_a_query_is_never_its_negative(
    kind: str, method: str, tmp_path: Path, tiny_dream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs of one query share their positives, whatever the source of the pairs and the search method."""
    monkeypatch.setattr(candidates, "run_step", bm25_returns_all)
    how = {"method": "model", "encoder": str(tiny_dream), "max_ratio": 1.0} if method == "model" else {}
    options = MineOptions(tmp_path / "m", negatives=2, **layout(kind, tmp_path), **how)  # type: ignore[arg-type]
    mine(options, say=lambda _: None)
    mined_rows = [parse_line(line, "m") for line in (tmp_path / "m" / "train.jsonl").read_text().splitlines()]
    positives: dict[bytes, set[str]] = {}
    for row in mined_rows:
        positives.setdefault(text_digest(row.query), set()).update(one.docid or one.text for one in row.positives)
    for row in mined_rows:
        known = positives[text_digest(row.query)]
        assert not known & {name for one in row.negatives for name in (one.docid, one.text)}, row
    assert max(map(len, positives.values())) > 1
    if method == "bm25":
        assert any(row.negatives for row in mined_rows), "some passages are not positives"


def test_of_copies_of_one_text_one_is_a_negative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the answer", "Copied  text", "copied text", "COPIED text", "another", "a third"]
    corpus = [{"id": f"d{i}", "contents": text} for i, text in enumerate(texts)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (tmp_path / "p.tsv").write_text("q\tthe answer\n")
    monkeypatch.setattr(candidates, "run_step", bm25_returns_all)
    options = MineOptions(tmp_path / "m", (str(tmp_path / "p.tsv"),), corpus=tmp_path / "c.jsonl", negatives=2)
    assert mine(options, say=lambda _: None)["copies left out"] == 2
    row = parse_line((tmp_path / "m" / "train.jsonl").read_text(), "m")
    assert [one.docid for one in row.negatives] == ["d1", "d4"]


class FakeVectors:
    """Fixed scores, to test the filter alone."""

    def __init__(self, scores: list[float]):
        self._scores = np.array(scores)

    def queries(self, texts: list[str]) -> np.ndarray:
        return np.zeros((len(texts), 1))

    def scores(self, query: np.ndarray, numbers: list[int]) -> np.ndarray:
        return self._scores[list(numbers)]


@pytest.mark.parametrize(
    ("scores", "negatives"),
    [([1.0, 0.99, 0.9, 0.2], ["d2", "d3"]), ([-1.0, -0.99, -1.2, -1.1], ["d2", "d3"]), ([1.0, 1.1, 1.2, 1.3], [])],
)
def test_candidates_scored_like_the_positive_are_left_out(
    scores: list[float], negatives: list[str], tmp_path: Path
) -> None:
    from collections import Counter

    options = MineOptions(tmp_path, pairs=("p",), max_ratio=0.95, negatives=2, depth=4)
    row = rows.Row("q", (rows.ScoredPassage("d0", "", "a"),), ())
    counts: Counter[str] = Counter()
    store = store_of(tmp_path, ["a", "b", "c", "d"])
    mined_row = mining._Miner(options, store, FakeVectors(scores), counts).mined(row, [0, 1, 2, 3], {0})  # type: ignore[arg-type]
    assert [one.docid for one in mined_row.negatives] == negatives
    assert counts["known positives among candidates"] == 1
    assert counts["likely positives left out"] == 3 - len(negatives)


def test_rows_without_candidates_have_an_empty_list() -> None:
    assert list(mining._every_row([(1, [7]), (3, [8])], 5)) == [(0, []), (1, [7]), (2, []), (3, [8]), (4, [])]
    with pytest.raises(InputError, match="out of order"):
        list(mining._every_row([(1, []), (0, [])], 2))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pairs": ()}, "give either"),
        ({"documents": Path("x")}, "give either"),
        ({"method": "model"}, "needs --encoder"),
        ({"method": "guess"}, "method=.guess. must be one of"),
        ({"depth": 3, "negatives": 3, "skip": 1}, "depth=3 must be at least negatives . skip = 4"),
        ({"max_ratio": 1.5}, "max_ratio"),
    ],
)
def test_options_that_contradict_each_other(changes: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        MineOptions(**({"output": tmp_path, "pairs": ("p",)} | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mined(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(pairs, the command's output for them with Pyserini's BM25); the last query has no hit."""
    folder = tmp_path_factory.mktemp("bm25")
    pairs = folder / "pairs.jsonl"
    pairs.write_text(rows_file.read_text() + json.dumps({"query": "qwxyz", "positive": "something else"}) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "executable", warm.python())
        command = ["mine-negatives", "--pairs", str(pairs), "--output", str(folder / "m"), "--negatives", "4"]
        assert main(command) == 0
    return pairs, folder / "m"


@pytest.mark.java
def test_bm25_negatives_through_pyserini(mined: tuple[Path, Path], rows_file: Path, tmp_path: Path) -> None:
    output = mined[1]
    *lines, last = (output / "train.jsonl").read_text().splitlines()
    assert json.loads(last)["query"] == "qwxyz"
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    mined_rows = RowFiles([tmp_path / "train.jsonl"], True, "stop", tmp_path / "bad")
    original = RowFiles([rows_file], True, "stop", tmp_path / "bad2")
    assert len(mined_rows) == len(original) == 48
    for i in range(len(mined_rows)):
        row = mined_rows[i]
        assert (row.query, row.positives) == (original[i].query, original[i].positives)
        assert len(row.negatives) == 4
        assert row.positives[0].contents not in {one.contents for one in row.negatives}
        words = set(row.query.split())
        assert all(words & set(one.contents.lower().rstrip(".").split()) for one in row.negatives), (
            "BM25 needs a shared word"
        )
    counts = json.loads((output / "mined.json").read_text())["counts"]
    assert counts["negatives"] == 192
    assert counts["queries without negatives"] == 1
    assert (output / "corpus" / "corpus.jsonl").is_file()


def test_negatives_by_the_model_itself(rows_file: Path, tmp_path: Path, tiny_dream: Path) -> None:
    values = {"method": "model", "encoder": str(tiny_dream), "negatives": 3, "depth": 48, "max_ratio": 1.0}
    options = MineOptions(tmp_path / "m", pairs=(str(rows_file),), **values)  # type: ignore[arg-type]
    counts = mine(options, say=lambda _: None)
    files = RowFiles([tmp_path / "m" / "train.jsonl"], False, "stop", tmp_path / "bad")
    mined_rows = [files[i] for i in range(len(files))]
    assert counts["negatives"] == sum(len(row.negatives) for row in mined_rows) > 0
    for row in mined_rows:
        assert row.positives[0].contents not in {one.contents for one in row.negatives}


def test_the_nearest_passages_are_those_of_a_full_search(
    tiny_dream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffretriever_pyserini import DiffRetriever

    monkeypatch.setattr(candidates, "_BLOCK", 4)
    words = ["plants", "rivers", "towers", "birds", "metals", "poems"]
    texts = [f"text {i} about {word}" for i, word in enumerate(words * 2)]
    model = DiffRetriever.from_pretrained(str(tiny_dream))
    vectors = Vectors(model, store_of(tmp_path, texts), tmp_path / "v.npy")
    queries = ["plants", "tall towers"]
    full = model.encode(queries, "query").pooled @ model.encode(texts, "passage").pooled.T
    for i, numbers in model_candidates(vectors, queries, depth=5):
        np.testing.assert_allclose(np.sort(full[i])[::-1][:5], full[i][numbers], atol=1e-5)


def fake_bm25(step: Step, folder: Path, log: Path, keeps: bool) -> float:
    """Replace Pyserini's commands: the first passages are the hits of every query."""
    if "pyserini.search.lucene" in step.arguments:
        topics = json.loads((folder / "topics.json").read_text())
        with (folder / "run.txt").open("w") as file:
            for qid in topics:
                file.writelines(f"{qid} Q0 p{j} {j + 1} {9 - j} fake\n" for j in range(3))
    return 0.0


def test_memory_does_not_grow_with_the_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are long; only those of one search may be in memory, and a few bytes per row."""
    monkeypatch.setattr(candidates, "run_step", fake_bm25)
    monkeypatch.setattr(candidates, "_SEARCHED", 100)

    def peak(count: int) -> int:
        pairs, output = tmp_path / f"{count}.jsonl", tmp_path / f"mined-{count}"
        with pairs.open("w") as file:
            for i in range(count):
                positive = {"docid": f"p{i}", "text": f"text {i} " + "z" * 500}
                file.write(json.dumps({"query": f"query {i} " + "x" * 3000, "positive_passages": [positive]}) + "\n")
        tracemalloc.start()
        try:
            counts = mine(MineOptions(output, pairs=(str(pairs),), negatives=2, depth=3), say=lambda _: None)
            memory = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert counts["queries"] == count and counts["negatives"] == 2 * count
        return memory

    small, large = peak(300), peak(3000)
    assert large - small < 400_000, "2,700 more rows are 9 MB of text; only their offsets may be kept"


@pytest.mark.java
def test_searching_in_parts_gives_the_same_negatives(
    mined: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part is one query without a hit."""
    pairs, whole = mined
    monkeypatch.setattr(sys, "executable", warm.python())
    monkeypatch.setattr(candidates, "_SEARCHED", 24)
    options = MineOptions(tmp_path / "m", pairs=(str(pairs),), negatives=4)
    assert mine(options, say=lambda _: None)["queries without negatives"] == 1
    assert (tmp_path / "m" / "train.jsonl").read_text() == (whole / "train.jsonl").read_text()


def test_of_a_long_query_the_strongest_words_are_searched(tmp_path: Path) -> None:
    """Rare words before frequent ones, repeated ones before single ones, words of no passage last; order is kept."""
    store = store_of(tmp_path, ["rare word", "word common", "common again", "\u5854 common"])
    filling = [f"w{i}" for i in range(1500)]
    text = " ".join(["Common", *filling, "rare", "common", "\u5854" * 3, "word"])
    shortened = candidates.shortened({"1": text, "2": "rare word", "3": "x " * 5000}, store)
    assert list(shortened) == ["1"], "queries that Lucene accepts are not changed"
    words = shortened["1"].split()
    assert len(set(words)) == 1024
    assert words[0] == "common" and words[-6:] == ["rare", "common", "\u5854", "\u5854", "\u5854", "word"]
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 1100)))
    assert len(candidates.shortened({"1": characters}, store)["1"].split()) == 1024
    assert len(candidates.shortened({"1": "ab" * 200_000 + " c " + " ".join(filling)}, store)["1"].split()) >= 1024


@pytest.mark.java
def test_a_query_of_more_words_than_lucene_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())
    words = " ".join(f"word{i}" for i in range(1501))
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 1200)))
    texts = ["an answer", "word1500 again", "another answer", "\u4e01 \u4e02"]
    lines = [f"{query}\t{text}\n" for query, text in zip([words, "answer", "tower", characters], texts, strict=True)]
    (tmp_path / "p.tsv").write_text("".join(lines))
    mine(MineOptions(tmp_path / "m", (str(tmp_path / "p.tsv"),), negatives=1), say=lambda _: None)
    mined_rows = [parse_line(line, "m") for line in (tmp_path / "m" / "train.jsonl").read_text().splitlines()]
    assert [[one.text for one in row.negatives] for row in mined_rows] == [["word1500 again"], ["an answer"], [], []]


def test_a_failed_search_does_not_name_a_removed_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho the reason\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "p.tsv").write_text("q\tthe answer\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StepError) as caught:
        mine(MineOptions(tmp_path / "m", (str(tmp_path / "p.tsv"),)), say=lambda _: None)
    assert "the reason" in str(caught.value) and ".log" not in str(caught.value)
