"""Topic files: the supported layouts, and the errors for the others."""

import gzip
from pathlib import Path

import pytest

from diffretriever_pyserini.corpora.topics import read_topics, write_topics
from diffretriever_pyserini.errors import InputError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.tsv", "1\tfirst\n007\tsecond one \n"),
        ("t.txt", "1\tfirst\r\n007\tsecond one\r\n"),
        ("t.tsv", "1\tfirst\r007\tsecond one\r"),
        ("t.tsv", "\r1\tfirst\n\r\r007\tsecond one"),
        ("t.jsonl", '\ufeff{"qid": "1", "title": "first"}\n{"qid": "007", "title": "second one"}\n'),
        ("t.json", '{"1": {"title": "first"},\r"007": {"title": "second one"}}\r'),
        ("t.jsonl", '{"qid": "1", "title": "first"}\n{"qid": "007", "title": "second one"}\n'),
        ("t.jsonl", '{"_id": "1", "text": "first"}\n{"_id": "007", "text": "second one", "metadata": {}}\n'),
        ("t.jsonl", '{"id": 1, "query": "first"}\n{"id": "007", "query": "second one"}\n'),
        ("t.json", '{\n"1": {"title": "first"},\n"007": {"title": "second one", "desc": "x"}}\n'),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_layout_gives_the_same_topics(tmp_path: Path, name: str, text: str, zipped: bool) -> None:
    path = tmp_path / (name + ".gz" * zipped)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert list(read_topics(path).items()) == [("1", "first"), ("007", "second one")]


@pytest.mark.parametrize(
    ("record", "query"),
    [
        ('{"_id": "1", "title": "", "text": "what is x"}', "what is x"),
        ('{"_id": "1", "title": "Ti", "text": "what is x"}', "what is x"),
        ('{"_id": "1", "title": "Ti", "text": null}', "Ti"),
        ('{"qid": "1", "title": "Ti", "text": "what is x"}', "Ti"),
        ('{"qid": "1", "title": " ", "query": null, "text": "what is x"}', "what is x"),
        ('{"qid": null, "id": "1", "title": "Ti"}', "Ti"),
    ],
)
def test_the_field_that_holds_the_query(tmp_path: Path, record: str, query: str) -> None:
    (tmp_path / "t.jsonl").write_text(record + "\n")
    assert read_topics(tmp_path / "t.jsonl") == {"1": query}


def test_topics_are_read_back_as_written(tmp_path: Path) -> None:
    topics = {"007": 'a\ttab, a "quote", \u2028 and', "b": "né"}
    write_topics(tmp_path / "t.json", topics)
    assert read_topics(tmp_path / "t.json") == topics


def test_the_same_query_may_have_two_ids(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("1\tsame\n2\tsame\n")
    assert read_topics(tmp_path / "t.tsv") == {"1": "same", "2": "same"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "1\ta\n2 no tab\n", "line 2: no tab between"),
        ("t.tsv", "1\ta\r2 no tab\r", "line 2: no tab between"),
        ("t.tsv", "1\ta\r2\tb\n\r3 no tab\r", "line 4: no tab between"),
        ("t.tsv", "1\ta\rb\n", "line 2: no tab between"),
        ("t.tsv", "1\ta\n1\tb\n", "line 2: query id '1' occurs twice"),
        ("t.tsv", "1\ta\n2\t \n", "line 2: query '2' is empty"),
        ("t.tsv", "\ta\n", "line 1: the query has no id"),
        ("t.tsv", "\n\n", "no queries"),
        ("t.jsonl", '{"qid": "1", "title": "a"}\n{"qid": "2", "ti', "line 2: broken JSON"),
        ("t.jsonl", '{"qid": "1", "body": "a"}\n', "line 1: no query"),
        ("t.jsonl", '{"title": "a"}\n', "line 1: no id"),
        ("t.jsonl", '{"qid": null, "title": "a"}\n', "line 1: the query has no id"),
        ("t.jsonl", '{"qid": "a b", "title": "a"}\n', "line 1: .* holds white space"),
        ("t.json", '{"1": {"title": "a"},\n"2": {"ti', "line 2: broken JSON"),
        ("t.json", '\n\n{"1": {"title": "a"},\n\n"2": {"ti', "line 5: broken JSON"),
        ("t.jsonl", '{"qid": "1", "title": "a"}\r{"qid": "2", "title": "b"}\r', "line 1: broken JSON"),
        ("t.json", '{"1": {"title": "a"}, "1": {"title": "b"}}', "query id '1' occurs twice"),
        ("t.json", '{"1": {"query": "a"}}', "query '1': no 'title'"),
        ("t.json", '{"1": "a"}', "query '1': no 'title'"),
        ("t.json", '["a"]', "expected a JSON object, found list"),
        ("t.trec", "<top>\n", "unknown kind of topic file"),
        ("t", "1\ta\n", "unknown kind of topic file"),
    ],
)
def test_a_bad_topic_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_topics(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_topic_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such topic file"):
        read_topics(tmp_path / "none.tsv")
