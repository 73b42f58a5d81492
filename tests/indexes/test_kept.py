"""An index of the same store and with the same options is kept; another one is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes import job
from diffretriever_pyserini.indexes.build import build_index
from diffretriever_pyserini.indexes.options import IndexOptions, MultiBuild
from diffretriever_pyserini.store.store import Store

from .conftest import made_up_store
from .test_lucene import NAMES, Vocabulary

OPTIONS = ("--dense", "--multi", "--bytes-per-vector", "12")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_up_store(tmp_path_factory.mktemp("made-up") / "S", count=300)


def inodes(folder: Path) -> dict[str, int]:
    """The files of each signal; one that is built again has new ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "index.json")
    return {str(path.relative_to(folder)): path.stat().st_ino for path in files}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name.rpartition("/")[0] for name in after if before.get(name) != after[name]}


@pytest.mark.parametrize("shards", [1, 2])
def test_only_what_changed_is_built(
    shards: int, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "I"
    command = ["index", "--store", str(store.folder), "--output", str(index), "--shards", str(shards)]

    def built(*options: str) -> tuple[set[str], str]:
        before = inodes(index)
        assert main([*command, *options]) == 0
        return {name.rpartition("/")[2] for name in changed(before, inodes(index))}, capsys.readouterr().out

    assert built(*OPTIONS)[0] == {"dense", "multi"}
    facts = (index / "index.json").read_text()
    signals, out = built(*OPTIONS)
    assert signals == set()
    assert "300 passages, up to date (--rebuild builds the indexes again)" in out
    assert out.count(": kept, ") == 2
    signals, out = built("--dense", "sq8", *OPTIONS[1:])
    assert signals == {"dense"}
    assert "dense: sq8, " in out and "multi: kept, " in out
    assert built("--dense", *OPTIONS[1:-1], "16")[0] == {"dense", "multi"}
    assert built(*OPTIONS, "--refine", "int8")[0] == {"multi"}
    assert built("--dense")[0] == set()
    assert built("--dense", "--rebuild")[0] == {"dense"}
    assert built(*OPTIONS)[0] == {"multi"}
    assert json.loads((index / "index.json").read_text()) == json.loads(facts)


@pytest.mark.parametrize("shards", [1, 2])
def test_an_index_with_damaged_files_is_built_again(shards: int, store: Store, tmp_path: Path) -> None:
    options = IndexOptions(lexical=False, multi=MultiBuild(bytes_per_vector=12), shards=shards, quiet=True)
    build_index(store, tmp_path / "I", options)
    before = inodes(tmp_path / "I")
    part = tmp_path / "I" if shards == 1 else tmp_path / "I/shards/00001"
    record = part / "dense/diffretriever.json"
    for path, content in {
        record: "{".ljust(record.stat().st_size).encode(),
        part / "dense/docid": None,
        part / "dense/index": (part / "dense/index").read_bytes()[:-1],
        part / "multi/records.u8": b"",
    }.items():
        path.unlink() if content is None else path.write_bytes(content)
        build_index(store, tmp_path / "I", options)
        after = inodes(tmp_path / "I")
        assert {name.rpartition("/")[2] for name in changed(before, after)} == {path.parent.name}
        before = after
    build_index(store, tmp_path / "I", options)
    assert inodes(tmp_path / "I") == before


def test_a_damaged_index_json_is_an_error_that_says_what_to_do(store: Store, tmp_path: Path) -> None:
    (tmp_path / "I").mkdir()
    (tmp_path / "I/index.json").write_text("{")
    with pytest.raises(InputError, match="index.json, line 1: broken JSON .*; remove .*I and build its indexes again"):
        build_index(store, tmp_path / "I", IndexOptions(lexical=False, rebuild=True, quiet=True))


def test_another_store_is_built(store: Store, tmp_path: Path) -> None:
    options = IndexOptions(lexical=False, quiet=True)
    build_index(store, tmp_path / "I", options)
    other = made_up_store(tmp_path / "S", count=299)
    assert build_index(other, tmp_path / "I", options)["passages"] == 299


@pytest.mark.java
def test_a_lexical_index_is_kept_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made_up_store(tmp_path / "S", count=60, terms=len(Vocabulary.strings))
    lexical = IndexOptions(dense=None, quiet=True)
    facts = build_index(store, tmp_path / "I", lexical, NAMES)
    before = inodes(tmp_path / "I")
    monkeypatch.delattr(job, "LuceneWriter")
    assert build_index(store, tmp_path / "I", lexical) == facts  # nor is the encoder, which does not exist, looked for
    assert build_index(store, tmp_path / "I", IndexOptions(multi=MultiBuild(bytes_per_vector=12)))["lexical"]
    assert changed(before, inodes(tmp_path / "I")) == {"dense", "multi"}
