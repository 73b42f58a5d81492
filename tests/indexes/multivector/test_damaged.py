"""Multi-vector indexes that are damaged or of an earlier layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.files.atomic import read_json, write_json
from diffretriever_pyserini.indexes.multivector.index import CompressedIndex
from diffretriever_pyserini.store.store import Store

from .conftest import built, made_up_vectors, write_store


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("records.u8", "missing or damaged"),
        ("docids.utf8", "damaged"),
        ("codec.safetensors", "damaged"),
        ("candidates.faiss", "FAISS cannot read it"),
        ("multi.json", "broken JSON .*; build the index again"),
    ],
)
def test_a_damaged_file_is_named(store: Store, name: str, message: str, tmp_path: Path) -> None:
    folder = built(write_store(tmp_path / "S", made_up_vectors(50)), tmp_path / "I").folder
    (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    with pytest.raises(InputError, match=message) as error:
        CompressedIndex(folder).docids(np.array([0]))
    assert Path(name).name in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("docids.utf8", "docids.utf8: damaged"), ("codec.safetensors", "it is not the codec of this index")],
)
def test_changed_bytes_are_an_error(name: str, message: str, tmp_path: Path) -> None:
    folder = built(write_store(tmp_path / "S", made_up_vectors(50)), tmp_path / "I").folder
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))
    with pytest.raises(InputError, match=f"{message}.*; build the index again"):
        CompressedIndex(folder).docids(np.arange(50))


@pytest.mark.parametrize(("name", "value"), [("format", 2), ("segments", [["00000", 50]])])
def test_an_index_of_an_earlier_layout_is_refused(name: str, value: object, tmp_path: Path) -> None:
    folder = built(write_store(tmp_path / "S", made_up_vectors(50)), tmp_path / "I").folder
    write_json(folder / "multi.json", read_json(folder / "multi.json") | {name: value})
    with pytest.raises(InputError, match=r"multi\.json: .*build the index again"):
        CompressedIndex(folder)
