"""Topics in Pyserini's own commands: clear errors for what Pyserini cannot read, and no query is lost silently."""

import logging
from pathlib import Path

import pytest

from diffretriever_pyserini.errors import InputError

pytestmark = pytest.mark.java


def topics_of(path: Path | str) -> list[tuple[int | str, str]]:
    """Id and text of every query, as Pyserini's commands read them."""
    from pyserini.query_iterator import TopicsFormat, get_query_iterator

    return list(get_query_iterator(str(path), TopicsFormat.DEFAULT))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "1\tgood\n2\t\n", "t.tsv, line 2: query '2' is empty"),
        ("t.tsv", "1\tgood\n2\n", "t.tsv, line 2: no tab"),
        ("t.jsonl", '{"qid": "1", "title": "a"}\n{"qid": "2", "ti', "t.jsonl, line 2: broken JSON"),
        ("t.queries", "1\tgood\n", "t.queries: unknown kind of topic file"),
        ("t.tsv", "", "t.tsv: there are no queries"),
        ("beir.jsonl", '{"qid": "1", "title": "a"}\n', "its path contains 'beir'"),
        ("t.tsv", "\ufeff1\tgood\n", "t.tsv: begins with a byte order mark"),
        ("t.jsonl", '\ufeff{"qid": "1", "title": "a"}\n', "t.jsonl: begins with a byte order mark"),
        ("t.json", '\ufeff{"1": {"title": "a"}}\n', "t.json: begins with a byte order mark"),
        ("t.trec", "<top>\n", "Pyserini cannot read these topics"),
        ("t.jsonl", '{"_id": "1", "text": "a"}\n', 'Pyserini reads .tsv .* and .jsonl with {"qid", "title"}'),
    ],
)
def test_topics_that_pyserini_cannot_read_are_explained(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        topics_of(tmp_path / name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_topics_that_pyserini_reads_stay_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    (tmp_path / "t.tsv").write_bytes(f"2\tsecond{end}10\ttenth{end}".encode())
    assert topics_of(tmp_path / "t.tsv") == [(2, "second"), (10, "tenth")]
    (tmp_path / "t.json").write_text('{"007": {"title": "a"}, "7": {"title": "b"}}')
    assert topics_of(tmp_path / "t.json") == [("007", "a"), ("7", "b")]
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "007\ta\n07\tb\n7\tc\n", "t.tsv: 3 queries, of which Pyserini keeps 1"),
        ("beir.tsv", "007\ta\n7\tb\nx\tc\n", "beir.tsv: 3 queries, of which Pyserini keeps 2"),
        ("t.tsv", "1\ta\n1\tb\n", "t.tsv: 2 queries, of which Pyserini keeps 1"),
        ("t.jsonl", '{"qid": "07", "title": "a"}\n{"qid": "7", "title": "b"}\n', "jsonl: 2 queries, .* keeps 1"),
        ("t.json", '{"1": {"title": "a"}, "1": {"title": "b"}}', "t.json: 2 queries, of which Pyserini keeps 1"),
    ],
)
def test_topics_that_pyserini_loses_queries_of_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        topics_of(tmp_path / name)


def test_ids_that_pyserini_changes_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.tsv").write_text("007\ta\n8\tb\n")
    with caplog.at_level(logging.WARNING):
        assert topics_of(tmp_path / "t.tsv") == [(7, "a"), (8, "b")]
    assert "1 of 2 change, first '007'" in caplog.text


def test_a_misspelt_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyserini.search import _base

    if not hasattr(_base, "topics_mapping"):  # from 2.4 on the list is downloaded
        monkeypatch.setattr(_base, "_topics_mapping", {"msmarco-passage-dev-subset": {}})
    with pytest.raises(InputError, match="no such topic file, and no topics that Pyserini knows; check the path"):
        topics_of("none.tsv")
    with pytest.raises(InputError, match="did you mean 'msmarco-passage-dev-subset'"):
        topics_of("msmarco-passage-dev-subst")


def test_a_list_that_cannot_be_downloaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pyserini.search import _base

    if hasattr(_base, "topics_mapping"):
        pytest.skip("Pyserini has the list")
    monkeypatch.setattr(_base, "EVAL_BASE_URL", f"{tmp_path.as_uri()}/")
    monkeypatch.setattr(_base, "_topics_mapping", None)
    with pytest.raises(
        InputError, match=r"none\.tsv: no such file or folder, and Pyserini could not download its list"
    ):
        topics_of("none.tsv")
