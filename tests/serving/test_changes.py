"""Uploads are added, continued and refused; passages are replaced and deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import Corpus, DiffRetrieverError, InputError, Store
from diffretriever_pyserini.serving import delete_passages, export_to_qdrant
from diffretriever_pyserini.serving.changes import collection_facts
from diffretriever_pyserini.serving.options import ExportOptions
from diffretriever_pyserini.serving.record import CollectionRecord, Layout, Upload

from ..indexes.conftest import made_up_provenance
from .conftest import COUNT, DOCIDS, TOPICS, Collections, exact_scores, without_edge, write_store


def contents(collections: Collections, docids: list[str], name: str = "c") -> dict[str, Any]:
    """All points, in a form that can be compared."""
    with collections.open(name) as index:
        points = index._queries.engine.points(docids)
    return {point.docid: (dict(point.payload), _plain(point.vectors)) for point in points}


def _plain(vectors: Any) -> Any:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else dict(zip(value.indices, value.values, strict=True))
        for name, value in vectors.items()
    }


def test_another_store_is_added_and_passages_are_deleted(
    collections: Collections, store: Store, tmp_path: Path
) -> None:
    collections.export(store)
    new = [*DOCIDS[:8], *(f"new {i}" for i in range(12))]
    second = write_store(tmp_path / "second", docids=new, seed=6)
    assert collections.export(second)["points"] == COUNT + 12
    expected = exact_scores(store, "multi", "query 1") | exact_scores(second, "multi", "query 1")
    with collections.open() as index:
        assert dict(index.search({"q": "query 1"}, "multi", hits=500)["q"]) == pytest.approx(expected, abs=1e-4)
    gone = [DOCIDS[0], "x" * 3000, "new 3"]
    assert delete_passages(collections.target, "c", [*gone, "never there", gone[0]]) == (3, ["never there"])
    with collections.open() as index:
        run = dict(index.search({"q": "query 1"}, "multi", hits=500)["q"])
        assert run == pytest.approx({docid: expected[docid] for docid in expected.keys() - {*gone}}, abs=1e-4)
        assert not {*gone} & {docid for docid, _ in index.search({"q": "query 1"}, "lexical", hits=500)["q"]}
    assert collections.export(store)["points"] == COUNT + 11  # what was deleted is back, but not "new 3"


def test_an_upload_that_breaks_off_is_refused_and_continued(
    collections: Collections, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections.export(store, "whole")
    whole = contents(collections, DOCIDS, "whole")
    _break_after(monkeypatch, 18)  # requests of four passages; the record is written before the first and the 17th
    with pytest.raises(DiffRetrieverError, match="on purpose"):
        collections.export(store, batch_size=4)
    incomplete = r"64 of 120 passages of .*store are uploaded\): run `diffretriever export qdrant` again"
    with pytest.raises(InputError, match=incomplete):
        collections.open()
    with pytest.raises(InputError, match=incomplete):
        delete_passages(collections.target, "c", ["7"])
    assert "64 of 120" in collection_facts(collections.target, "c")["unfinished"]
    other = write_store(tmp_path / "other", seed=7)
    with pytest.raises(InputError, match=r"another upload is not finished \(64 of 120.*--rebuild"):
        collections.export(other)
    figures = collections.export(store)
    assert (figures["continued"], figures["points"]) == (64, COUNT)
    assert contents(collections, DOCIDS) == whole
    # A collection that was complete is still searched while another store is added, and says what is missing.
    _break_after(monkeypatch, 1)
    with pytest.raises(DiffRetrieverError, match="on purpose"):
        collections.export(other, batch_size=4)
    with collections.open() as index:
        assert index.unfinished is not None and str(index.unfinished).startswith("0 of 120 passages")
        assert len(index.search({"q": "query 1"}, "dense")["q"]) == COUNT
    with pytest.raises(InputError, match="could bring passages back"):
        delete_passages(collections.target, "c", ["7"])
    assert collections.export(store, rebuild=True)["continued"] == 0
    assert contents(collections, DOCIDS) == whole


def _break_after(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """The next export fails after ``requests`` of points."""
    from diffretriever_pyserini.serving import changes

    original = changes._batches

    def broken(*arguments: Any) -> Any:
        for number, batch in enumerate(original(*arguments)):
            if number == requests:
                monkeypatch.setattr(changes, "_batches", original)
                raise DiffRetrieverError("on purpose")
            yield batch

    monkeypatch.setattr(changes, "_batches", broken)


def test_another_encoder_or_layout_is_refused(collections: Collections, store: Store, tmp_path: Path) -> None:
    collections.export(store)
    other = write_store(tmp_path / "other", provenance=made_up_provenance(weights="0" * 64))
    with pytest.raises(InputError, match=r"collection c (at|in) .* holds passages of another encoder: other weights"):
        collections.export(other)
    with pytest.raises(InputError, match=r"created with datatype = 'float32', and this export has 'float16'"):
        collections.export(store, datatype="float16")
    with pytest.raises(InputError, match=r"created with k = 2, and this export has 0"):
        collections.export(write_store(tmp_path / "pooled", vectors="pooled"))
    assert collections.export(store, datatype="float32")["points"] == COUNT


def test_pooled_vectors_only(collections: Collections, tmp_path: Path) -> None:
    pooled = write_store(tmp_path / "pooled", vectors="pooled")
    collections.export(pooled)
    with collections.open() as index:
        assert index.folder.modes == ("dense", "lexical", "hybrid")
        run = index.search({"q": "query 2"}, "dense", hits=COUNT)["q"]
        assert dict(run) == pytest.approx(exact_scores(pooled, "dense", "query 2"), abs=1e-4)
        with pytest.raises(InputError, match="holds pooled vectors only"):
            index.search(TOPICS, "multi")


def test_texts_are_payload(collections: Collections, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": docid, "title": f"T{i}" if i % 2 else "", "text": f"text of {i}"} for i, docid in enumerate(DOCIDS)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = write_store(tmp_path / "store", corpus=Corpus(corpus).identity())
    collections.export(store, texts=(corpus,))
    payloads = {docid: payload for docid, (payload, _) in contents(collections, DOCIDS).items()}
    assert payloads["東京-7"] == {"docid": "東京-7", "title": "T1", "text": "text of 1"}
    assert payloads["🙂"] == {"docid": "🙂", "text": "text of 2"}
    assert len(payloads) == COUNT
    with pytest.raises(InputError, match="has the texts of its passages.*give --texts CORPUS"):
        collections.export(store)
    collections.export(store, texts=(corpus,))
    changed = corpus.read_text(encoding="utf-8").replace("p5", "q5")
    corpus.write_text(changed, encoding="utf-8")  # of the same size
    with pytest.raises(InputError, match="holds passage 'q5', not 'p5', so the corpus has changed"):
        collections.export(store, texts=(corpus,))
    corpus.write_text(changed + changed, encoding="utf-8")
    with pytest.raises(InputError, match="is not the corpus of .*store"):
        collections.export(store, texts=(corpus,))


def test_what_cannot_be_opened(collections: Collections, store: Store) -> None:
    with pytest.raises(InputError, match="collection name '../c' must be"):
        collections.export(store, "../c")
    if collections.server is None:
        with pytest.raises(InputError, match="no such folder"):
            collections.open()
    collections.export(store)
    with pytest.raises(InputError, match=r"collection d (at|in) .* does not exist \(there are: c\); make it with"):
        collections.open("d")


def test_without_the_engine_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's local mode steps in, but not for a folder of the engine; its own folders stay its own."""
    small = write_store(tmp_path / "small", docids=DOCIDS[:20])
    collections = Collections("local", str(tmp_path / "local"))
    assert export_to_qdrant(small, tmp_path / "edge", "c")["points"] == 20
    with monkeypatch.context() as patch:
        without_edge(patch)
        collections.export(small)
        with pytest.raises(DiffRetrieverError, match="was made by qdrant-edge: pip install qdrant-edge-py"):
            delete_passages(tmp_path / "edge", "c", ["7"])
    with collections.open() as index:
        run = index.search({"q": "query 1"}, "multi")["q"]
    assert dict(run) == pytest.approx(exact_scores(small, "multi", "query 1"), abs=1e-4)


def test_a_vector_that_qdrant_cannot_hold(tmp_path: Path) -> None:
    wide = write_store(tmp_path / "wide", docids=["a"], dimension=65_536)
    with pytest.raises(InputError, match="at most 65,535 components"):
        export_to_qdrant(wide, tmp_path / "c", "c")


def test_an_upload_goes_on_with_texts_as_it_began(store: Store) -> None:
    options = ExportOptions()
    record = CollectionRecord(
        store.spec.provenance, Layout.of(store.spec, options), upload=Upload.of(store, texts=False)
    )
    record.require(store, options, "c")
    with pytest.raises(InputError, match="was begun without --texts and cannot go on with it"):
        record.require(store, replace(options, texts=("corpus.jsonl",)), "c")
