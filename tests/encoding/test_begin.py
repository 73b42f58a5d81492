"""A run that fails before its first part leaves nothing behind, and the corpus is opened once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding import finish as finish_module
from diffretriever_pyserini.encoding import job
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import only_writer
from diffretriever_pyserini.store.begin import remove_unused
from diffretriever_pyserini.store.store import Store

from .conftest import passages, write_corpus
from .test_job import content, encode


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A corpus whose 20th row is cut in half."""
    path = write_corpus(tmp_path / "c.jsonl", passages(19))
    path.write_text(path.read_text() + '{"id": "x", "te')
    return path


@pytest.mark.parametrize("text", ["", "\n\n", "{", '{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n'])
def test_a_bad_corpus_makes_no_folder(model: DiffRetriever, tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(InputError):
        encode(model, path, tmp_path / "new/deep/S")
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_an_existing_folder_stays_and_is_empty(model: DiffRetriever, bad: Path, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    with pytest.raises(InputError):
        encode(model, bad, tmp_path / "S", rows_per_part=100)
    assert list((tmp_path / "S").iterdir()) == []


def test_parts_that_were_written_stay(model: DiffRetriever, bad: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        encode(model, bad, tmp_path / "S", rows_per_part=4)
    count = sum(name.startswith("parts") for name in content(tmp_path / "S"))
    assert count >= 3
    assert "store.json" in content(tmp_path / "S")
    figures = encode(model, bad, tmp_path / "S", rows_per_part=4, on_error="skip")
    assert (figures["kept"], figures["passages"]) == (count, 19)


def test_a_store_that_another_shard_writes_stays(model: DiffRetriever, bad: Path, tmp_path: Path) -> None:
    lock = tmp_path / "S/locks/00001-of-00002"
    with only_writer(lock, "x"), pytest.raises(InputError):
        encode(model, bad, tmp_path / "S", rows_per_part=100, shard=0, shards=2)
    assert lock.is_file()
    assert "store.json" in content(tmp_path / "S")
    with pytest.raises(InputError):  # the other writer has ended
        encode(model, bad, tmp_path / "S", rows_per_part=100, shard=0, shards=2)
    assert content(tmp_path / "S") == {}


def test_the_begun_store_of_another_run_stays(model: DiffRetriever, bad: Path, tmp_path: Path) -> None:
    lock = tmp_path / "S/locks/00001-of-00002"
    with only_writer(lock, "x"), pytest.raises(InputError):
        encode(model, bad, tmp_path / "S", rows_per_part=100, shard=0, shards=2)
    before = content(tmp_path / "S")
    with pytest.raises(DiffRetrieverError, match="begun with rows_per_part = 100"):
        encode(model, bad, tmp_path / "S", rows_per_part=50)
    assert content(tmp_path / "S") == before


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_failed_run_does_not_remove_a_store_that_is_being_finished(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Shard 1 of 2 has no parts and has released its lock; shard 0 fails at this moment."""
    module, name = (job, "finish") if when == "before" else (finish_module, "_leave_note")
    original = getattr(module, name)

    def interrupted(*arguments: Any) -> Any:
        with contextlib.suppress(DiffRetrieverError):
            remove_unused(tmp_path / "S")
        return original(*arguments)

    monkeypatch.setattr(module, name, interrupted)
    encode(model, corpus_file, tmp_path / "S", rows_per_part=100, shard=1, shards=2)
    monkeypatch.undo()
    assert {"store.json"} < content(tmp_path / "S").keys()
    encode(model, corpus_file, tmp_path / "S", rows_per_part=100, shard=0, shards=2)
    assert len(Store(tmp_path / "S")) == 100


def test_a_removed_lock_file_does_not_count_as_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process waits for a lock while its holder removes the file: it does not hold the lock then."""
    import fcntl

    path = tmp_path / "locks/x"
    original, calls = fcntl.flock, []

    def flock(file: Any, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            path.unlink()  # as the earlier holder does
        original(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_writer(path, "x"):
        monkeypatch.undo()
        assert len(calls) == 2
        with pytest.raises(DiffRetrieverError, match="another process"), only_writer(path, "x"):
            pass


def test_the_corpus_is_opened_once(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    rows = Corpus.rows
    monkeypatch.setattr(Corpus, "rows", lambda self, start=0: opened.append(start) or rows(self, start))
    encode(model, corpus_file, tmp_path / "S")
    assert opened == [0]
    assert len(Store(tmp_path / "S")) == 100
