"""Damaged and incomplete indexes, and parameters that an index does not have: each error is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetrieverDocumentEncoder
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.searching import open_index, separate_folders

from .conftest import PASSAGES, TOPICS, write_record

pytestmark = pytest.mark.java


def test_a_damaged_index_is_named(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "I")
    (tmp_path / "I/dense/index").write_bytes(b"nonsense")
    for file in (tmp_path / "I/lexical").glob("segments_*"):
        file.write_bytes(b"nonsense")
    damaged = open_index(tmp_path / "I")
    with pytest.raises(InputError, match="I/dense: this FAISS index cannot be opened"):
        damaged.search(TOPICS, mode="dense")
    with pytest.raises(InputError, match=r"I/lexical: Lucene cannot open this index \(\w+Exception: .*\); build"):
        damaged.search(TOPICS, mode="lexical")
    write_record(tmp_path / "I", DiffRetrieverDocumentEncoder(tiny_name), passages=9)
    shutil.copyfile(folder / "dense/index", tmp_path / "I/dense/index")
    with pytest.raises(InputError, match="holds 7 passages, but the index was built from 9"):
        open_index(tmp_path / "I").search(TOPICS, mode="dense")


DAMAGES: dict[str, tuple[str, bytes, str]] = {
    "one line too few": ("docid", b"p1\np2\np3\np4\np5\np6\n", "index holds 7 vectors and docid 6 ids"),
    "no lines": ("docid", b"", "docid 0 ids"),
    "a blank line": ("docid", b"p1\np2\n\np4\np5\np6\n007\n", "docid, line 3: no id"),
    "an id twice": ("docid", b"p1\np2\np1\np4\np5\np6\n007\n", "docid: 'p1' is the id of several vectors"),
    "bytes": ("docid", b"\xff\xfe", "cannot be opened .'utf-8' codec"),
    "half an index": ("index", b"IxFI\x40\0\0\0", r"cannot be opened \((?!.*\.cpp)"),
    "no index": ("index", b"", r"cannot be opened \(read error in .*index"),
}


def test_vectors_that_are_not_finite(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    import faiss

    shutil.copytree(folder / "dense", tmp_path / "D")
    vectors = faiss.read_index(str(folder / "dense/index")).reconstruct_n(0, len(PASSAGES))
    for wrong in (np.nan, np.inf):
        vectors[2, 5] = wrong
        index = faiss.IndexFlatIP(64)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "D/index"))
        with pytest.raises(
            InputError, match="D: holds vectors that are not finite, so it is damaged; build the index again"
        ):
            open_index(separate_folders(tmp_path / "D"), tiny_name).search(TOPICS)


def test_postings_that_lucene_cannot_read(folder: Path, tmp_path: Path) -> None:
    """Lucene opens the index and meets the damage only in a search."""
    shutil.copytree(folder, tmp_path / "I")
    (postings,) = (tmp_path / "I/lexical").glob("*.tim")
    whole = postings.read_bytes()
    middle = len(whole) // 2
    postings.write_bytes(whole[: middle - 8] + b"\xff" * 16 + whole[middle + 8 :])
    with pytest.raises(InputError, match=r"I/lexical: Lucene cannot .*(Exception|Error)"):
        open_index(tmp_path / "I").search(TOPICS, mode="lexical")


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_damaged_files_of_faiss(folder: Path, tiny_name: str, tmp_path: Path, kind: str) -> None:
    name, content, message = DAMAGES[kind]
    shutil.copytree(folder / "dense", tmp_path / "D")
    (tmp_path / "D" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_index(separate_folders(tmp_path / "D"), tiny_name).search(TOPICS)


def test_a_file_that_is_missing(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dense", tmp_path / "D")
    (tmp_path / "D/docid").unlink()
    with pytest.raises(InputError, match="not a FAISS folder .*: the file docid is missing"):
        separate_folders(tmp_path / "D")
    with pytest.raises(InputError, match="it is a file; name the folder"):
        separate_folders(tmp_path / "D/index")


def test_parameters_of_faiss(folder: Path, tiny_name: str, tmp_path: Path) -> None:
    import faiss

    with pytest.raises(InputError, match="this kind of FAISS index has no parameter nprobe"):
        open_index(folder, parameters={"nprobe": 2}).search(TOPICS, mode="dense")
    shutil.copytree(folder / "dense", tmp_path / "D")
    vectors = faiss.read_index(str(folder / "dense/index")).reconstruct_n(0, len(PASSAGES))
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 3, faiss.METRIC_INNER_PRODUCT)
    inverted.train(vectors)
    inverted.add(vectors)
    faiss.write_index(inverted, str(tmp_path / "D/index"))
    for nprobe, expected in ((1, False), (3, True)):
        index = open_index(separate_folders(tmp_path / "D"), tiny_name, parameters={"nprobe": nprobe})
        assert (len(index.search(TOPICS)["q1"]) == len(PASSAGES)) is expected


@pytest.mark.parametrize("value", [0, -1, 1_000_001, 2147483648, 10**20, 1.5, "many", True])
@pytest.mark.parametrize("name", ["nprobe", "efSearch"])
def test_parameters_out_of_range(folder: Path, name: str, value: Any) -> None:
    """FAISS reads an efSearch of 0 as one candidate, and a value that is not an int as another number."""
    with pytest.raises(InputError, match=rf"{name}={value!r} must be a whole number between 1 and 1,000,000"):
        open_index(folder, parameters={name: value})
