"""The collection inside the interpreter: deterministic, without leaks from query to passage, nothing imported."""

import subprocess
import sys

import pytest

from diffretriever_pyserini.demo.python_docs import Collection, interpreter_documentation
from diffretriever_pyserini.errors import InputError


@pytest.fixture(scope="module")
def collection() -> Collection:
    return interpreter_documentation(passages=600, queries=150)


def test_sizes(collection: Collection) -> None:
    assert len(collection.passages) == 600
    assert len(collection.queries) == 150


def test_the_same_interpreter_gives_the_same_collection(collection: Collection) -> None:
    assert interpreter_documentation(passages=600, queries=150) == collection


def test_ids_are_unique_and_fit_a_run_file(collection: Collection) -> None:
    ids = [passage.docid for passage in collection.passages]
    assert len(set(ids)) == len(ids)
    assert not any(character.isspace() for docid in ids for character in docid)


def test_each_query_has_one_relevant_passage_of_the_collection(collection: Collection) -> None:
    ids = {passage.docid for passage in collection.passages}
    assert collection.qrels.keys() == collection.queries.keys()
    assert all(len(grades) == 1 and grades.keys() <= ids for grades in collection.qrels.values())
    assert len({next(iter(grades)) for grades in collection.qrels.values()}) == 150


def test_the_query_is_removed_from_its_passage(collection: Collection) -> None:
    texts = {passage.docid: passage.text.casefold() for passage in collection.passages}
    for qid, query in collection.queries.items():
        (docid,) = collection.qrels[qid]
        assert query.casefold() not in texts[docid]
        assert len(texts[docid].split()) >= 12


def test_no_query_occurs_twice(collection: Collection) -> None:
    assert len({query.casefold() for query in collection.queries.values()}) == 150


def test_both_sources_are_used_without_private_names(collection: Collection) -> None:
    kinds = {passage.docid.partition(":")[0] for passage in collection.passages}
    assert kinds == {"reference", "library"}
    names = [docid.partition(":")[2].partition("#")[0] for docid in (p.docid for p in collection.passages)]
    assert not any(part.startswith("_") for name in names for part in name.split("."))
    assert not any(name.split(".")[0] in {"test", "idlelib", "antigravity", "this"} for name in names)


def test_a_library_passage_has_the_text_of_the_docstring() -> None:
    passages = interpreter_documentation(passages=100_000, queries=1).passages
    (passage,) = [passage for passage in passages if passage.docid == "library:contextlib.suppress#0"]
    assert passage.title == "contextlib.suppress"
    assert "After the exception is suppressed" in passage.text


def test_nothing_is_imported_to_read_its_documentation() -> None:
    code = (
        "import sys; from diffretriever_pyserini.demo.python_docs import interpreter_documentation as f;"
        "f(50, 5); print([m for m in ('turtle', 'tkinter', 'smtplib', 'sqlite3') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="at least one passage"):
        interpreter_documentation(passages=0)
