"""Finding the texts of passages in a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.explaining.passage_texts import find_texts, texts_of

from .conftest import PASSAGES, SCRIPT


def test_ids_of_any_kind_are_found(work: Path) -> None:
    corpus = Corpus([work / "corpus.jsonl"])
    assert texts_of(corpus, [SCRIPT, "日本", "عربي-١", "empty"]) == {
        docid: PASSAGES[docid].strip() for docid in (SCRIPT, "日本", "عربي-١", "empty")
    }


def test_reading_ends_with_the_last_docid_and_skips_broken_rows(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "a", "text": \n{"id": "b", "title": "T", "text": "x"}\n{"id": "b", "te')
    assert texts_of(Corpus([tmp_path / "c.jsonl"]), ["b"]) == {"b": "T x"}
    with pytest.raises(InputError, match=r"passage 'a' is not in .*c\.jsonl \(1 rows could not be read, the first: "):
        texts_of(Corpus([tmp_path / "c.jsonl"]), ["a"])


def test_numbers_and_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 7, "contents": "seven"}))
    (tmp_path / "b.tsv").write_text("8\teight\n")
    assert texts_of(Corpus([tmp_path / "a.jsonl", tmp_path / "b.tsv"]), ["8", "7"]) == {"7": "seven", "8": "eight"}


def test_a_store_knows_its_files(work: Path) -> None:
    assert find_texts(work / "store", None, ["p1"]) == ({"p1": PASSAGES["p1"]}, [])
    assert find_texts(work / "INDEX", None, ["p1"]) == ({}, [])  # an index does not
    assert find_texts(None, None, ["p1"]) == ({}, [])


def test_files_of_a_store_that_are_gone_or_changed(work: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(work / "store", tmp_path / "store")
    spec = json.loads((tmp_path / "store" / "store.json").read_text())
    moved = tmp_path / "corpus.jsonl"
    (tmp_path / "store" / "store.json").write_text(json.dumps(spec | {"files": [str(moved)]}))
    texts, [remark] = find_texts(tmp_path / "store", None, ["p1"])
    assert texts == {} and "The corpus of the store cannot be read" in remark
    moved.write_text('{"id": "p1", "text": "another"}')
    texts, [remark] = find_texts(tmp_path / "store", None, ["p1"])
    assert texts == {} and "no longer the corpus" in remark


@pytest.mark.parametrize("folder", ["store", "INDEX"])
def test_a_remark_says_that_the_corpus_is_not_the_indexed_one(work: Path, tmp_path: Path, folder: str) -> None:
    corpus = work / "corpus.jsonl"
    assert find_texts(work / folder, [str(corpus)], ["p1"]) == ({"p1": PASSAGES["p1"]}, [])
    (tmp_path / "other.jsonl").write_text('{"id": "p1", "text": "another"}')
    texts, [remark] = find_texts(work / folder, [str(tmp_path / "other.jsonl")], ["p1"])
    assert texts == {"p1": "another"} and "not exactly the corpus" in remark
