"""A store's records, and parts of another store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.multivector.manifest import read_manifest
from diffretriever_pyserini.model.representations import Representations
from diffretriever_pyserini.store.index_record import read_index_record
from diffretriever_pyserini.store.part import PartRows, write_part
from diffretriever_pyserini.store.spec import StoreSpec, read_spec
from diffretriever_pyserini.store.store import Store

from ..encoding.conftest import corpus_file, model, passages, write_corpus
from ..encoding.test_job import content, encode
from ..indexes.conftest import SPEC, made_up_provenance, made_up_store

__all__ = ["corpus_file", "model"]


def test_a_part_of_another_store_is_an_error(tmp_path: Path) -> None:
    """The parts have the same rows and differ only in the fingerprint."""
    store = made_up_store(tmp_path / "S", count=250)
    other = made_up_store(tmp_path / "other", count=250)
    number = 1
    spec = replace(other.spec, provenance=made_up_provenance(weights="0" * 64))
    assert spec.digest != other.spec.digest
    part = other.parts[number]
    representations = Representations(part.vectors(), part.weights, None)  # type: ignore[arg-type]
    third = write_part(tmp_path / "third", spec, PartRows(number, 100, part.docids), representations)
    shutil.copy(third, store.parts[number].path)
    store = Store(tmp_path / "S")
    for read in (lambda: len(store), store.parts[number].verify, lambda: len(store.parts[number])):
        with pytest.raises(InputError, match=r"part-00000001\.safetensors: a part of another store"):
            read()


def test_a_part_of_another_store_is_replaced(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = passages(100)
    # A corpus of another name, equal in size.
    other[20]["text"], other[21]["text"] = other[21]["text"], other[20]["text"]
    encode(model, write_corpus(tmp_path / "other.jsonl", other), tmp_path / "other")
    encode(model, corpus_file, tmp_path / "S")
    before = content(tmp_path / "S")
    paths = [part.path for part in Store(tmp_path / "S").parts]
    others = [part.path for part in Store(tmp_path / "other").parts]
    for verify, number in ((True, 1), (False, 2)):
        shutil.copy(others[number], paths[number])
        assert encode(model, corpus_file, tmp_path / "S", verify=verify)["kept"] == 6
        assert f"part-0000000{number}.safetensors: a part of another store" in capfd.readouterr().err
        assert content(tmp_path / "S") == before


def test_the_digest_is_of_everything_but_names() -> None:
    spec = StoreSpec(dimension=8, vocab_size=9, vectors="all", dtype="float16", rows_per_part=4, **SPEC)  # type: ignore
    for field in fields(spec):
        value = getattr(spec, field.name)
        another = made_up_provenance(weights="0" * 64)
        changes = {"vectors": "pooled", "dtype": "int8", "files": ("x",), "provenance": another}
        other = changes.get(field.name) or (f"{value}x" if isinstance(value, str) else value + 1)
        changed = replace(spec, **{field.name: other})
        assert (changed.digest == spec.digest) == (field.name == "files"), field.name
    assert replace(spec, provenance=made_up_provenance(encoder="x")).digest == spec.digest


def test_a_store_of_an_older_format_is_refused(tmp_path: Path) -> None:
    store = made_up_store(tmp_path / "S", count=100)
    path = tmp_path / "S/store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(InputError, match=r"store\.json: a store of format 2, but this version reads format 3"):
        read_spec(tmp_path / "S")
    with pytest.raises(InputError, match="format 2"):
        store.spec.write(tmp_path / "S")


_NOTE = "shards/00000-of-00001.json"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "store.json",
            {"dimension": "x"},
            r"store\.json: damaged .dimension='x' must be a whole number of at least 1.; enc",
        ),
        ("store.json", {"rows_per_part": 0}, "rows_per_part=0 must be a whole number of at least 1"),
        ("store.json", {"extra": 1}, "unknown setting 'extra'"),
        ("store.json", {"dtype": "float8"}, "'float8': known are"),
        ("store.json", {"corpus": None}, "corpus=None must be text"),
        (_NOTE, {"rows": 0}, "its files count 100 passages and skipped rows, but the corpus has 0 rows"),
        (_NOTE, {"passages": 99}, "its files count 99"),
        (_NOTE, {"rows": "many"}, r"00001\.json: damaged .rows='many' must be a whole number of at least 0.; remove"),
        (_NOTE, {"skipped": None}, "skipped=None must be a whole number of at least 0"),
    ],
)
def test_records_are_checked_field_by_field(tmp_path: Path, name: str, change: dict[str, object], message: str) -> None:
    made_up_store(tmp_path / "S", count=100)
    path = tmp_path / "S" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        Store(tmp_path / "S")


@pytest.mark.parametrize(
    ("name", "read", "remedy"),
    [
        ("store.json", read_spec, "encode the corpus again into another folder"),
        ("diffretriever.json", read_index_record, "build the index again"),
        ("multi.json", read_manifest, "build the index again"),
    ],
)
def test_a_record_that_is_cut_in_half_says_what_to_do(
    tmp_path: Path, name: str, read: Callable[[Path], object], remedy: str
) -> None:
    (tmp_path / name).write_text('{"format": 2')
    with pytest.raises(InputError, match=f"{name}, line 1: broken JSON .*; {remedy}"):
        read(tmp_path)
