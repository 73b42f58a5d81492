"""``irds:NAME``: corpora, topics, judgements and training rows of data sets that the tests register; no network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest
from ir_datasets.formats import GenericQrel, GenericQuery

from diffretriever_pyserini.corpora.corpus import Corpus, Passage
from diffretriever_pyserini.corpora.qrels import read_qrels
from diffretriever_pyserini.corpora.topics import read_topics
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.training.data.sources import digests, row_files


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title}\n{self.body}"


class NoText(NamedTuple):
    query_id: str
    doc_id: str


DOCS = [TitledDoc("d1", "Tokyo Tower", "It is 333 metres high."), TitledDoc("007", "", "Plants use light.")]


class Only:
    """One part of a data set: ``docs``, ``queries`` or ``qrels``."""

    def __init__(self, part: str, records: Iterable[Any], error: Exception | None = None):
        def read() -> Iterator[Any]:
            yield from records
            if error is not None:
                raise error

        setattr(self, f"{part}_iter", read)
        setattr(self, f"{part}_handler", lambda: self)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Registers a data set of some parts until the test ends."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(ir_datasets.registry, "_registered", dict(ir_datasets.registry._registered))
    monkeypatch.chdir(tmp_path)

    def add(name: str, *parts: Only) -> None:
        ir_datasets.registry.register(name, ir_datasets.Dataset(*parts))

    return add


@pytest.fixture
def tiny(register: Any) -> str:
    queries = [GenericQuery("q1", " how high is it "), GenericQuery("007", "sunlight")]
    qrels = [GenericQrel("007", "007", 2), GenericQrel("q1", "d1", 1), GenericQrel("q1", "007", 0)]
    register("tiny", Only("docs", DOCS))
    register("tiny/test", Only("docs", DOCS), Only("queries", queries), Only("qrels", qrels))
    return "irds:tiny/test"


def test_a_corpus(tiny: str) -> None:
    corpus = Corpus(tiny)
    assert list(corpus.passages()) == [
        Passage("d1", "Tokyo Tower", "It is 333 metres high."),
        Passage("007", "", "Plants use light."),
    ]
    assert [row.where for row in corpus.rows(1)] == ["irds:tiny/test, row 2"]
    assert corpus.files == (tiny,) and not corpus.folders
    assert corpus.identity() == Corpus([tiny]).identity() != Corpus("irds:tiny").identity()
    with pytest.raises(InputError, match="ends after 2 rows, but 3 should be skipped"):
        list(corpus.rows(3))
    with pytest.raises(InputError, match="irds:tiny: listed twice"):
        Corpus(["irds:tiny", "irds:tiny"])


def test_a_corpus_after_a_file_is_resumed_in_its_middle(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "first.jsonl").write_text('{"id": "a", "contents": "x"}\n')
    corpus = Corpus(["first.jsonl", tiny])
    assert [row.where for row in corpus.rows(2)] == ["irds:tiny/test, row 2"]


def test_topics_and_judgements(tiny: str) -> None:
    assert list(read_topics(tiny).items()) == [("q1", "how high is it"), ("007", "sunlight")]
    assert read_qrels(tiny) == {"007": {"007": 2}, "q1": {"d1": 1, "007": 0}}


def test_the_librarys_own_readers(register: Any, tmp_path: Path) -> None:
    files = {"docs_tsv": "d1\tfirst\nd2\tsecond\n", "queries_tsv": "1\tsunlight\n", "qrels_trec": "1 0 d2 3\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    dataset = ir_datasets.create_dataset(**{name: str(tmp_path / name) for name in files})
    ir_datasets.registry.register("files", dataset)
    assert [(one.docid, one.contents) for one in Corpus("irds:files").passages()] == [("d1", "first"), ("d2", "second")]
    assert (read_topics("irds:files"), read_qrels("irds:files")) == ({"1": "sunlight"}, {"1": {"d2": 3}})


def test_training_rows(tiny: str, tmp_path: Path) -> None:
    (path,) = row_files([tiny], tmp_path / "work")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["query_id"], [one["docid"] for one in row["positive_passages"]]) for row in rows] == [
        ("007", ["007"]),
        ("q1", ["d1"]),
    ]
    assert rows[1]["query"] == "how high is it" and rows[1]["positive_passages"][0]["title"] == "Tokyo Tower"
    assert digests([tiny]) == {}


def test_a_path_of_the_same_name_wins(tiny: str, register: Any, tmp_path: Path) -> None:
    register("t.tsv", Only("queries", [GenericQuery("q1", "of ir_datasets")]))
    assert read_topics("irds:t.tsv") == {"q1": "of ir_datasets"}
    (tmp_path / "irds:t.tsv").write_text("q1\tof the file\n")
    assert read_topics("irds:t.tsv") == {"q1": "of the file"}
    (tmp_path / "irds:tiny").mkdir()
    (tmp_path / "irds:tiny" / "corpus.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    assert [passage.docid for passage in Corpus("irds:tiny").passages()] == ["a"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("irds:tiny/tests", "irds:tiny/tests: ir_datasets has no data set 'tiny/tests'; did you mean tiny/test"),
        ("irds:tiny", r"irds:tiny: this data set has no qrels; these have: tiny/test\."),
        ("irds:@@@", "https://ir-datasets.com lists them"),
        ("irds:odd", "irds:odd, judgement 1: these judgements have no grades .query_id, doc_id"),
        ("irds:half", "irds:half, judgement 1: the grade 0.5 is not a whole number"),
    ],
)
def test_names_that_do_not_fit(tiny: str, register: Any, source: str, message: str) -> None:
    register("odd", Only("qrels", [NoText("q1", "d1")]))
    register("half", Only("qrels", [GenericQrel("q1", "d1", 0.5)]))
    with pytest.raises(InputError, match=message):
        read_qrels(source)


def test_a_wrong_name_fails_when_the_corpus_is_opened(tiny: str, register: Any) -> None:
    with pytest.raises(InputError, match="did you mean tiny"):
        Corpus("irds:tinny")
    register("odd", Only("docs", [NoText("q1", "d1")]))
    with pytest.raises(InputError, match="irds:odd, row 1: ir_datasets says of no field that it is the text"):
        list(Corpus("irds:odd").rows())


def test_what_cannot_be_read_is_named_with_its_folder(register: Any, tmp_path: Path) -> None:
    register("far/away", Only("docs", DOCS[:1], ConnectionError("no route")))
    with pytest.raises(InputError) as caught:
        list(Corpus("irds:far/away").passages())
    message = str(caught.value)
    assert message.startswith("irds:far/away: its docs cannot be read (ConnectionError: no route). ir_datasets keeps")
    assert f"copy {tmp_path / 'home' / 'far'} from a machine that has read them" in message


def test_a_long_reason_ends_at_a_blank(register: Any) -> None:
    register("far", Only("docs", [], ConnectionError(f"no {'route ' * 90}.")))
    with pytest.raises(InputError, match=r"ConnectionError: no route [a-z ]{270,290} route…\)\. ir_datasets keeps"):
        list(Corpus("irds:far").rows())


def test_its_log_does_not_repeat_the_error(register: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log = ir_datasets.log.easy()

    def logged() -> Iterator[Any]:
        for line in ("[starting] zip", "download error: no route. Retrying", "you agree to the licence"):
            log.info(line)
        yield from ()

    register("logging", Only("docs", logged(), ConnectionError("no route")))
    with pytest.raises(InputError, match="no route"):
        list(Corpus("irds:logging").rows())
    assert capsys.readouterr().err.split("\n") == ["[INFO] you agree to the licence", ""]
    log.info("[starting] zip")
    assert "[starting]" in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(InputError, match=r"irds:x needs ir_datasets: pip install 'diffretriever-pyserini\[irds\]'"):
        read_topics("irds:x")
