"""Passages that come and go: the index answers as one that was built with what is left."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest

from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.indexing.build import IndexOptions, build_index
from diffretriever_pyserini.multivector import candidates, change, index
from diffretriever_pyserini.multivector.build import MultiBuild, build_multi
from diffretriever_pyserini.multivector.change import add_passages, compact, delete_passages
from diffretriever_pyserini.multivector.codec import PlaceCodec
from diffretriever_pyserini.multivector.index import CompressedIndex, MultiOptions
from diffretriever_pyserini.store.files import only_writer
from diffretriever_pyserini.store.provenance import read_provenance
from diffretriever_pyserini.store.reader import Store

from .conftest import made_up_vectors, write_store

Ranked = list[tuple[str, float]]


@pytest.fixture
def two(tmp_path: Path) -> tuple[Store, Store]:
    """A store of 300 passages, and one of 80 more."""
    vectors = made_up_vectors(380)
    ids = [f"p{i}" for i in range(380)]
    return write_store(tmp_path / "A", vectors[:300], ids[:300]), write_store(tmp_path / "B", vectors[300:], ids[300:])


def made(store: Store, folder: Path, refine: str | None = None) -> Path:
    options = MultiBuild(bytes_per_vector=20, refine=refine)
    build_multi(store, folder, options, folder.with_name("work"), quiet=True)
    return folder


def answers(folder: Path, queries: list[np.ndarray], depth: int = 400) -> list[Ranked]:
    index = CompressedIndex(folder, MultiOptions(refine=1000))
    found = [index.search(query, depth) for query in queries]
    return [sorted(zip(index.docids(rows), scores.tolist(), strict=True)) for rows, scores in found]


@pytest.mark.parametrize("refine", [None, "int8"])
def test_added_passages_are_found(
    two: tuple[Store, Store], queries: list[np.ndarray], refine: str | None, tmp_path: Path
) -> None:
    folder = made(two[0], tmp_path / "I", refine)
    before = answers(folder, queries)
    manifest = add_passages(folder, two[1], quiet=True)
    assert (manifest.passages, len(manifest.segments)) == (380, 2)
    assert CompressedIndex(folder).docids(np.array([0, 379, 299, 300])) == ["p0", "p379", "p299", "p300"]
    for old, new in zip(before, answers(folder, queries), strict=True):
        kept = [(docid, score) for docid, score in new if int(docid[1:]) < 300]
        assert [docid for docid, _ in kept] == [docid for docid, _ in old]
        np.testing.assert_allclose([s for _, s in kept], [s for _, s in old], atol=1e-6)
        assert len(new) == 380
    made_by = read_provenance(folder)
    assert made_by is not None
    assert made_by.count == 380


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("refine", [None, "int8"])
def test_deleting_and_compacting(
    two: tuple[Store, Store],
    queries: list[np.ndarray],
    lists: bool,
    refine: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lists:
        monkeypatch.setattr(candidates, "_SCAN_ALL", 100)
        monkeypatch.setattr(candidates, "_PROBED", 1)
    folder = made(two[0], tmp_path / "I", refine)
    add_passages(folder, two[1], quiet=True)
    whole = answers(folder, queries)
    gone = [f"p{i}" for i in range(0, 380, 3)]
    assert delete_passages(folder, gone[:100]).passages == 280
    assert delete_passages(folder, gone[100:]).passages == 380 - len(gone)
    left = answers(folder, queries)
    for old, new in zip(whole, left, strict=True):
        assert new == [hit for hit in old if hit[0] not in set(gone)]
    top = CompressedIndex(folder).search(queries[0], 10)[0]
    assert len(top) == 10
    size = sum(path.stat().st_size for path in folder.rglob("*"))
    manifest = compact(folder, quiet=True)
    assert (manifest.rows, manifest.deleted, len(manifest.segments)) == (380 - len(gone), None, 1)
    assert answers(folder, queries) == left
    assert sum(path.stat().st_size for path in folder.rglob("*")) < size
    assert compact(folder, quiet=True) == manifest  # nothing to do
    assert sorted(path.name for path in (folder / "segments").iterdir()) == [manifest.segments[0][0]]


def test_a_deleted_passage_may_come_back(two: tuple[Store, Store], queries: list[np.ndarray], tmp_path: Path) -> None:
    folder = made(two[0], tmp_path / "I")
    again = write_store(tmp_path / "C", made_up_vectors(1, seed=9), ["p7"])
    with pytest.raises(InputError, match="'p7' of .* is there already"):
        add_passages(folder, again, quiet=True)
    delete_passages(folder, ["p7"])
    with pytest.raises(InputError, match=r"passage 'p7' is not in .* \(1 of the 2 are not\): nothing was deleted"):
        delete_passages(folder, ["p8", "p7"])
    add_passages(folder, again, quiet=True)
    index = CompressedIndex(folder)
    assert index.row_of("p7") == 300
    assert index.docids(index.search(made_up_vectors(1, seed=9)[0], 1)[0]) == ["p7"]


def test_a_change_that_is_killed_changes_nothing(
    two: tuple[Store, Store], queries: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(two[0], tmp_path / "I")
    delete_passages(folder, ["p3"])
    before = answers(folder, queries)
    with monkeypatch.context() as patch:
        patch.setattr(change, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for broken in (
            lambda: add_passages(folder, two[1], quiet=True),
            lambda: delete_passages(folder, ["p4"]),
            lambda: compact(folder, quiet=True),
        ):
            with pytest.raises(KeyboardInterrupt):
                broken()
            assert answers(folder, queries) == before
    assert add_passages(folder, two[1], quiet=True).passages == 379  # over what was left lying


def test_who_has_it_open_goes_on(two: tuple[Store, Store], queries: list[np.ndarray], tmp_path: Path) -> None:
    """An index that was opened, but not yet searched, when its files were replaced."""
    folder = made(two[0], tmp_path / "I", "int8")
    before = answers(folder, queries)
    opened = CompressedIndex(folder, MultiOptions(refine=1000))
    delete_passages(folder, [f"p{i}" for i in range(200)])
    compact(folder, quiet=True)
    assert not opened.segments[0].folder.exists()
    found = [opened.search(query, 400) for query in queries]
    assert [sorted(zip(opened.docids(rows), scores.tolist(), strict=True)) for rows, scores in found] == before


def test_opened_while_it_changes(
    two: tuple[Store, Store], queries: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change comes after the manifest was read, and takes away the files that it names."""
    folder = made(two[0], tmp_path / "I")
    read, changes = index.read_codec, [lambda: delete_passages(folder, ["p3"]), lambda: compact(folder, quiet=True)]

    def reading(path: Path) -> PlaceCodec:
        with monkeypatch.context() as patch:
            patch.setattr(index, "read_codec", read)
            while changes:
                changes.pop(0)()
        return read(path)

    monkeypatch.setattr(index, "read_codec", reading)
    assert CompressedIndex(folder).passages == 299
    (folder / "segments/00001/records.u8").unlink()
    with pytest.raises(InputError, match=r"records\.u8: missing"):
        CompressedIndex(folder)


def test_what_a_killed_change_left_is_removed(
    two: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the new manifest is there, or before the old files are gone."""
    folder = made(two[0], tmp_path / "I")
    delete_passages(folder, ["p3"])
    for place in ("_publish", "_sweep"):
        for broken in (
            lambda: add_passages(folder, two[1], quiet=True),
            lambda: delete_passages(folder, ["p4"]),
            lambda: compact(folder, quiet=True),
        ):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                # the first sweep of a change is before it, the second one after it
                patch.setattr(change, place, Mock(side_effect=[DEFAULT] * (place == "_sweep") + [KeyboardInterrupt]))
                broken()
    delete_passages(folder, ["p5"])
    manifest = compact(folder, quiet=True)
    assert manifest.passages == 377
    assert {path.name for path in folder.iterdir()} == {
        "codec.safetensors",
        "diffretriever.json",
        "lock",
        "multi.json",
        "segments",
        manifest.candidates,
    }
    assert [path.name for path in (folder / "segments").iterdir()] == [manifest.segments[0][0]]


def test_what_is_refused(two: tuple[Store, Store], tmp_path: Path) -> None:
    folder = made(two[0], tmp_path / "I")
    other = write_store(tmp_path / "K", made_up_vectors(10, k=3), [f"q{i}" for i in range(10)])
    with pytest.raises(InputError, match=r"k_passage=3.*k_passage=4.*come from one model"):
        add_passages(folder, other, quiet=True)
    empty = write_store(tmp_path / "E", np.zeros((0, 4, 32), np.float32))
    with pytest.raises(InputError, match="nothing to add"):
        add_passages(folder, empty, quiet=True)
    with pytest.raises(InputError, match="this would delete every passage"):
        delete_passages(folder, [f"p{i}" for i in range(300)])
    with pytest.raises(InputError, match="is no multi-vector index"):
        compact(tmp_path, quiet=True)
    assert not (tmp_path / "lock").exists()
    with only_writer(folder / "lock", "I"), pytest.raises(DiffRetrieverError, match="being written by another"):
        delete_passages(folder, ["p1"])


def test_a_changed_side_is_not_built_again_unasked(two: tuple[Store, Store], tmp_path: Path) -> None:
    options = IndexOptions(dense=None, lexical=False, multi=MultiBuild(bytes_per_vector=20), quiet=True)
    build_index(two[0], tmp_path / "I", options)
    build_index(two[0], tmp_path / "I", options)  # nothing would be lost
    assert not (tmp_path / "I.multi.unfinished").exists()
    add_passages(tmp_path / "I" / "multi", two[1], quiet=True)
    compact(tmp_path / "I" / "multi", quiet=True)
    with pytest.raises(DiffRetrieverError, match="would undo that"):
        build_index(two[0], tmp_path / "I", options)
    assert CompressedIndex(tmp_path / "I" / "multi").passages == 380
    with pytest.raises(InputError, match=r"did you mean .*I/multi\?"):
        compact(tmp_path / "I", quiet=True)
