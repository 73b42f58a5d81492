"""What an index records of itself, and folders that are not an index; nothing heavy is opened for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.searching.folder import read_index, separate_folders

from ..indexes.conftest import made_up_provenance, made_up_store

RECORD = {
    "format": 2,
    "provenance": made_up_provenance().record(),
    "dimension": 4,
    "passages": 3,
    "dense": {},
    "lexical": {},
}


def make_faiss(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "index").write_bytes(b"")
    (folder / "docid").write_text("")
    return folder


def make_lucene(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "segments_1").write_bytes(b"")
    return folder


def make_index(folder: Path, **changes: object) -> Path:
    make_faiss(folder / "dense")
    make_lucene(folder / "lexical")
    (folder / "index.json").write_text(json.dumps(RECORD | changes))
    return folder


def test_both_signals(tmp_path: Path) -> None:
    index = read_index(make_index(tmp_path / "I"))
    assert (index.provenance, index.passages) == (made_up_provenance(), 3)
    assert index.modes == ("dense", "lexical", "hybrid")
    assert [index.mode(requested) for requested in (None, "dense", "lexical", "hybrid")] == [
        "hybrid",
        "dense",
        "lexical",
        "hybrid",
    ]
    with pytest.raises(InputError, match="mode 'sparse' is not one of dense, multi, lexical, bm25, hybrid"):
        index.mode("sparse")


@pytest.mark.parametrize(("present", "missing"), [("dense", "lexical"), ("lexical", "dense")])
def test_a_missing_signal_is_named(tmp_path: Path, present: str, missing: str) -> None:
    index = read_index(make_index(tmp_path / "I", **{missing: None}))
    assert index.mode(None) == present
    for mode in (missing, "hybrid"):
        with pytest.raises(InputError, match=rf"I has no {missing} signal, .*--{missing}.*--mode {present}"):
            index.mode(mode)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "format 3 is not the format 2"),
        ({"passages": None}, "damaged"),
        ({"dense": None, "lexical": None}, "names no signal"),
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_index(make_index(tmp_path / "I", **changes))
    assert "index.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2', '{"format": 2}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (make_index(tmp_path / "I") / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json.*build the index again"):
        read_index(tmp_path / "I")


def test_an_index_that_a_kill_left_without_its_name_is_restored(tmp_path: Path) -> None:
    """As after a kill between the two renames of a folder that is built again."""
    make_index(tmp_path / "I").rename(tmp_path / "I.replaced")
    assert read_index(tmp_path / "I").passages == 3
    assert not (tmp_path / "I.replaced").exists()


def test_the_parts_of_a_demo_that_a_kill_left_without_its_name_are_restored(tmp_path: Path) -> None:
    make_faiss(tmp_path / "demo.replaced" / "index.dense")
    make_lucene(tmp_path / "demo.replaced" / "index.lexical")
    (tmp_path / "demo.replaced" / "demo.json").touch()
    index = separate_folders(tmp_path / "demo" / "index.dense", tmp_path / "demo" / "index.lexical")
    assert index.dense == tmp_path / "demo" / "index.dense" and index.dense.is_dir()
    assert not (tmp_path / "demo.replaced").exists()


def test_a_part_that_is_gone_is_named(tmp_path: Path) -> None:
    (make_index(tmp_path / "I") / "dense/docid").unlink()
    with pytest.raises(InputError, match=r"I/dense is not a FAISS folder"):
        read_index(tmp_path / "I")


def test_the_error_says_what_a_folder_is_instead_of_an_index(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (tmp_path / "none", "there is no such folder"),
        (tmp_path / "empty", r"it holds no index\.json"),
        (make_faiss(tmp_path / "D"), "it is a FAISS folder .*--dense-index"),
        (make_lucene(tmp_path / "L"), "it is a Lucene index .*--lexical-index"),
    ):
        with pytest.raises(InputError, match=message) as error:
            read_index(folder)
        assert str(folder) in str(error.value)


def test_signals_and_their_combinations(tmp_path: Path) -> None:
    two = read_index(make_index(tmp_path / "I"))
    three = replace(two, multi=tmp_path / "M")
    assert three.modes == ("dense", "multi", "lexical", "hybrid")
    assert three.signals("hybrid") == ("multi", "lexical")
    assert two.signals("hybrid") == ("dense", "lexical")
    assert three.signals("lexical,multi,dense") == ("dense", "multi", "lexical")
    assert replace(three, lexical=None).mode(None) == "multi"
    for wrong in ("dense,dense", "dense,sparse", "", "hybrid,dense"):
        with pytest.raises(InputError, match="is not one of|names a signal twice"):
            three.mode(wrong)
    with pytest.raises(InputError, match=r"has no multi signal, .* `diffretriever index --multi`"):
        two.mode("dense,multi")


def test_a_store_is_an_index_of_one_signal(tmp_path: Path) -> None:
    store = made_up_store(tmp_path / "store", count=20)
    index = read_index(store.folder)
    assert (index.modes, index.multi, index.provenance) == (("multi",), store.folder, store.spec.provenance)
    assert separate_folders(None, None, store.folder).provenance == store.spec.provenance
    with pytest.raises(InputError, match=r"is not a multi-vector index .*: it is a FAISS folder"):
        separate_folders(None, None, make_faiss(tmp_path / "D"))


def test_the_folders_of_pyserini(tmp_path: Path) -> None:
    dense, lexical = make_faiss(tmp_path / "D"), make_lucene(tmp_path / "L")
    assert separate_folders(dense, lexical).modes == ("dense", "lexical", "hybrid")
    assert separate_folders(dense, None).modes == ("dense",)
    assert separate_folders(None, lexical).modes == ("lexical",)
    with pytest.raises(InputError, match="no index: give --index"):
        separate_folders(None, None)
    with pytest.raises(InputError, match="L is not a FAISS folder .*it is a Lucene index"):
        separate_folders(lexical, None)
    with pytest.raises(InputError, match="I is not a Lucene index .*give it with --index"):
        separate_folders(None, make_index(tmp_path / "I"))
