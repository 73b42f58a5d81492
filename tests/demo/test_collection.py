"""The collection that the demo writes for Pyserini."""

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.corpora.qrels import read_qrels
from diffretriever_pyserini.corpora.topics import read_topics
from diffretriever_pyserini.demo.collection import read_passages, write_collection
from diffretriever_pyserini.errors import InputError


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    docs = [{"_id": f"d{i}", "title": f"T{i}" if i else "", "text": f"text {i}"} for i in range(10)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (folder / "queries.jsonl").write_text('{"_id": "007", "text": "what"}\n{"_id": "q2", "text": "unjudged"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n007\td3\t2\n007\td9\t0\nq2\td1\t0\n")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_beir_folder_is_written(beir: Path, out: Path) -> None:
    written = write_collection(out, beir, limit=None)
    assert (written.name, written.passages, written.note) == ("set", 10, "")
    assert read_topics(out / "topics.json") == written.queries == {"007": "what"}
    assert read_qrels(out / "qrels.txt") == written.qrels == {"007": {"d3": 2, "d9": 0}}
    lines = [json.loads(line) for line in (out / "corpus" / "corpus.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "d0", "title": "", "text": "text 0", "contents": "text 0"}
    assert lines[3] == {"id": "d3", "title": "T3", "text": "text 3", "contents": "T3 text 3"}
    assert read_passages(out, {"d3", "d4"}).keys() == {"d3", "d4"}


def test_a_limit_keeps_the_judged_passages(beir: Path, out: Path) -> None:
    written = write_collection(out, beir, limit=4)
    ids = {json.loads(line)["id"] for line in (out / "corpus" / "corpus.jsonl").read_text().splitlines()}
    assert written.passages == len(ids) == 4
    assert {"d3", "d9"} <= ids
    assert "a pool of 4 out of 10 passages" in written.note


def test_a_limit_above_the_size_changes_nothing(beir: Path, out: Path) -> None:
    written = write_collection(out, beir, limit=99)
    assert (written.passages, written.note) == (10, "")


@pytest.mark.parametrize(("limit", "message"), [(0, "at least 1"), (1, "less than the 2 judged passages")])
def test_a_limit_that_is_too_small(beir: Path, out: Path, limit: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_collection(out, beir, limit=limit)


def test_the_interpreters_own_documentation(out: Path) -> None:
    written = write_collection(out, None, limit=200)
    assert written.passages == 200
    assert len(read_topics(out / "topics.json")) == len(written.queries) == 200
