"""Folders in BEIR layout: plain and gzipped files read the same, and errors name file and line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffretriever_pyserini.corpora.beir import is_beir, open_beir
from diffretriever_pyserini.corpora.corpus import Corpus, Passage
from diffretriever_pyserini.corpora.qrels import judged_queries, read_qrels, write_qrels
from diffretriever_pyserini.corpora.topics import read_topics
from diffretriever_pyserini.errors import InputError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_collection_is_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"corpus.jsonl{suffix}", '{"_id": "a", "title": "T", "text": "x"}\n\n{"_id": 7, "text": "y"}\n')
    write(tmp_path / f"queries.jsonl{suffix}", '{"_id": "q1", "text": " what? "}\n')
    write(tmp_path / f"qrels/test.tsv{suffix}", "query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\t7\t0\n")
    collection = open_beir(tmp_path)
    assert list(Corpus(collection.corpus).passages()) == [Passage("a", "T", "x"), Passage("7", "", "y")]
    assert read_topics(collection.queries) == {"q1": "what?"}
    assert read_qrels(collection.qrels) == {"q1": {"a": 2, "7": 0}}
    assert collection.name == tmp_path.name
    assert is_beir(tmp_path) and not is_beir(tmp_path / "qrels")


def test_the_corpus_is_streamed(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "b", "te')
    passages = Corpus(path).passages()
    assert next(passages).docid == "a"
    with pytest.raises(InputError, match=r"corpus.jsonl, line 2: broken JSON .* cut in half"):
        next(passages)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', "line 2: the passage has no id"),
        ('{"_id": "", "text": "x"}', "line 2: the passage has no id"),
        ('{"_id": "a", "text": "x"}', "line 2: passage id 'a' occurs twice"),
        ('{"_id": "b c", "text": "x"}', "line 2: the passage id 'b c' holds white space"),
        ('{"_id": "b\\nc", "text": "x"}', "line 2: .* holds white space"),
        ('{"_id": true, "text": "x"}', "line 2: the passage id must be a string, found bool"),
        ('{"_id": "b", "text": ["x"]}', "line 2: field 'text' must be a string, found list"),
        ('["b", "x"]', "line 2: expected a JSON object, found list"),
    ],
)
def test_a_bad_passage_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "corpus.jsonl", f'{{"_id": "a", "text": "x"}}\n{line}\n')
    with pytest.raises(InputError, match=message):
        list(Corpus(path).passages())


def test_a_null_title_is_the_empty_title(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", '{"_id": "a", "title": null, "text": "x"}\n')
    assert list(Corpus(path).passages()) == [Passage("a", "", "x")]


def test_control_characters_and_surrogates_are_kept(tmp_path: Path) -> None:
    text = 'line\u2028separator \x00 \ud800 tab\t"quote"'
    path = write(tmp_path / "corpus.jsonl", json.dumps({"_id": "a", "text": text}) + "\n")
    assert next(Corpus(path).passages()).text == text


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_an_empty_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "\n")
    with pytest.raises(InputError, match=f"{name}: (no passages|there are no queries)"):
        list(Corpus(path).passages() if name.startswith("corpus") else read_topics(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "q1", "text": "again"}', "line 2: query id 'q1' occurs twice"),
        ('{"_id": "q2", "text": " "}', "line 2: query 'q2' is empty"),
        ('{"_id": "q2"}', "line 2: no query"),
    ],
)
def test_a_bad_query_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "queries.jsonl", f'{{"_id": "q1", "text": "one"}}\n{line}\n')
    with pytest.raises(InputError, match=message):
        read_topics(path)


@pytest.mark.parametrize("text", ["q1\ta\t1\nq2\tb\t0\n", "q1 0 a 1\nq2 0 b 0\n"])
def test_both_layouts_of_judgements(tmp_path: Path, text: str) -> None:
    assert read_qrels(write(tmp_path / "qrels.txt", text)) == {"q1": {"a": 1}, "q2": {"b": 0}}


def test_written_judgements_are_read_back(tmp_path: Path) -> None:
    qrels = {"007": {"a": 2, "b": 0}, "q2": {"b": -1}}
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert (tmp_path / "qrels.txt").read_text() == "007 0 a 2\n007 0 b 0\nq2 0 b -1\n"
    assert read_qrels(tmp_path / "qrels.txt") == qrels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\ta\n", "line 1: 2 columns"),
        ("q1\ta\t1\nq1 0 b 1\n", "line 2: 4 columns"),
        ("q1\ta\thigh\n", "line 1: the grade 'high'"),
        ("q1\ta\t1\nq1\ta\t2\n", "line 2: query 'q1' and passage 'a' have another grade"),
        ("query-id\tcorpus-id\tscore\n", "no judgements"),
        ("q1\ta\t1\nq1\0\ta\t1\n", "line 2: holds a NUL character"),
        ("q1\ta\t1\n\ufeffq2\ta\t1\n", "line 2: begins with a byte order mark"),
        ("query-id\tcorpus-id\tscore\nq1\ta b\t1\n", "line 2: 4 columns"),
    ],
)
def test_bad_judgements_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_qrels(write(tmp_path / "test.tsv", text))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_beir(tmp_path / "none")
    write(tmp_path / "corpus.jsonl", "")
    with pytest.raises(InputError, match=r"no queries\.jsonl"):
        open_beir(tmp_path)


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b'{"_id": "a", "text": "x"}\n' * 500)[:-20], b"plain text"],
    ids=["cut", "not-gzip"],
)
def test_a_damaged_gzip_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "queries.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"queries.jsonl.gz"):
        read_topics(path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes('{"_id": "a", "text": "é"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match="not valid UTF-8"):
        read_topics(path)


def test_only_queries_with_a_relevant_passage_are_kept() -> None:
    queries = {"q2": "b", "q1": "a", "q3": "c"}
    qrels = {"q1": {"x": 1}, "q2": {"x": 2}, "q3": {"x": 0}}
    assert judged_queries(queries, qrels, Path("test.tsv")) == {"q2": "b", "q1": "a"}
    with pytest.raises(InputError, match=r"test.tsv: query 'q9' .* has no text"):
        judged_queries(queries, {"q9": {"x": 1}}, Path("test.tsv"))
    with pytest.raises(InputError, match="no query has a passage with a positive grade"):
        judged_queries(queries, {"q3": {"x": 0}}, Path("test.tsv"))


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder without its corpus, judged in two splits."""
    write(tmp_path / "queries.jsonl", "".join(f'{{"_id": "q{i}", "text": "text {i}"}}\n' for i in range(4)))
    write(tmp_path / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq3\ta\t1\nq1\ta\t0\n")
    write(tmp_path / "qrels" / "dev.tsv.gz", "query-id\tcorpus-id\tscore\nq0\tb\t2\n")
    return tmp_path


def test_a_folder_as_topics_and_judgements(splits: Path) -> None:
    assert list(read_topics(splits).items()) == [("q1", "text 1"), ("q3", "text 3")]
    assert read_topics(str(splits), "dev") == {"q0": "text 0"}
    assert read_qrels(splits) == {"q3": {"a": 1}, "q1": {"a": 0}}
    assert read_qrels(splits, "dev") == {"q0": {"b": 2}}


@pytest.mark.parametrize("read", [read_topics, read_qrels])
def test_a_split_that_is_not_there_is_named_with_the_others(splits: Path, read: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"no qrels/train\.tsv or .*; the splits of this folder are dev, test\."):
        read(splits, "train")
    with pytest.raises(InputError, match=r"no qrels/test\.tsv or .*; a folder in BEIR layout has corpus\.jsonl"):
        read(splits / "qrels")


def test_a_relevant_query_without_text_is_named(splits: Path) -> None:
    write(splits / "qrels" / "test.tsv", "q3\ta\t1\nq9\ta\t1\n")
    with pytest.raises(InputError, match=r"test\.tsv: query 'q9' .* is judged but has no text"):
        read_topics(splits)
