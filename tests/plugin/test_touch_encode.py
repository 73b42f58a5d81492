"""Pyserini's own iterator and writers, with and without our encoder."""

import contextlib
import json
import sys
import weakref
from argparse import Namespace
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.plugin.touch_encode import document_encoder
from diffretriever_pyserini.pyserini_api import encoders as our_encoders
from diffretriever_pyserini.pyserini_api.encoders import DiffRetrieverDocumentEncoder
from diffretriever_pyserini.store.index_record import IndexRecord, read_index_record

from ..indexes.conftest import made_up_provenance


@pytest.fixture
def encoder(tiny_name: str) -> DiffRetrieverDocumentEncoder:
    return DiffRetrieverDocumentEncoder(tiny_name)


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_encoders, "_document_encoders", weakref.WeakSet())


def corpus(folder: Path, *lines: str | dict[str, Any], name: str = "a.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def iterate(path: Path, *fields: str, **options: Any) -> Any:
    from pyserini.encode import JsonlCollectionIterator

    return JsonlCollectionIterator(str(path), list(fields) or ["title", "text"], **options)


GOOD = [
    {"id": "1", "title": "a", "text": "b "},
    {"_id": 2, "title": None, "text": "c"},
    {"docid": "x", "title": "", "text": ""},
]


@pytest.mark.usefixtures("encoder")
def test_a_good_corpus_is_read_as_pyserini_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus(tmp_path / "c", *GOOD, "", {"id": "k", "contents": "t\nbody\n"})
    ours = iterate(path).all_info
    monkeypatch.setattr(our_encoders, "_document_encoders", weakref.WeakSet())
    (path / "a.jsonl").write_text((path / "a.jsonl").read_text().replace("\n\n", "\n"))  # Pyserini fails on one
    assert ours == iterate(path).all_info
    assert ours == {
        "title": ["a", None, None, "t"],
        "text": ["b", "c", None, "body"],
        "id": ["1", "2", "x", "k"],
    }


@pytest.mark.usefixtures("encoder")
def test_files_are_read_in_sorted_order(tmp_path: Path) -> None:
    for name in ("c.jsonl", "a.jsonl", "b.jsonl"):
        corpus(tmp_path / "c", {"id": name, "text": name}, name=name)
    assert iterate(tmp_path / "c", "text").all_info["id"] == ["a.jsonl", "b.jsonl", "c.jsonl"]


BAD = {
    "half a line": (['{"id": "1", "title": "a", "te'], r"a.jsonl, line 2: broken JSON"),
    "not an object": (['["1", "a"]'], r"line 2: expected a JSON object, found list"),
    "no id": ([{"title": "a", "text": "b"}], r"line 2: the passage has no id"),
    "an empty id": ([{"id": "", "title": "a", "text": "b"}], r"line 2: the passage has no id"),
    "a blank in the id": ([{"id": "a b", "title": "a", "text": "b"}], r"line 2: .*'a b' holds white space"),
    "a newline in the id": ([{"id": "a\nb", "title": "a", "text": "b"}], r"line 2: .* holds white space"),
    "a lone surrogate in the id": ([{"id": "a\ud800", "title": "a", "text": "b"}], r"line 2: .*lone surrogate"),
    "an id that is a list": ([{"id": ["1"], "title": "a", "text": "b"}], r"line 2: the passage id must be a string"),
    "an id seen before": (
        [{"id": 0, "title": "a", "text": "b"}],
        r"line 2: passage id '0' was seen before in .*, line 1",
    ),
    "no title": ([{"id": "1", "text": "b"}], r"line 2: the passage has no field 'title', .* 'id', 'text'"),
    "a text that is a number": (
        [{"id": "1", "title": "a", "text": 3}],
        r"line 2: field 'text' must be a string, found int",
    ),
    "contents of too many parts": ([{"id": "1", "contents": "a\nb\nc\nd"}], r"line 2: 'contents' splits into 4 parts"),
}


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(tmp_path: Path, case: str) -> None:
    lines, message = BAD[case]
    with pytest.raises(InputError, match=message):
        iterate(corpus(tmp_path / "c", {"id": "0", "title": "a", "text": "b"}, *lines))


@pytest.mark.usefixtures("encoder")
def test_odd_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this corpus has no passages"):
        iterate(corpus(tmp_path / "empty", ""))
    path = corpus(tmp_path / "c", *GOOD)
    (path / "b.jsonl").write_bytes(b'{"id": "9", "title": "\xff", "text": ""}\n')
    with pytest.raises(InputError, match=r"b\.jsonl.*not valid UTF-8"):
        iterate(path)
    (path / "b.jsonl").unlink()
    (path / "inner").mkdir()
    with pytest.raises(InputError, match="inner is a folder inside the corpus folder"):
        iterate(path)


@pytest.mark.usefixtures("encoder")
def test_odd_characters_in_texts_are_harmless(tmp_path: Path, encoder: DiffRetrieverDocumentEncoder) -> None:
    path = corpus(tmp_path / "c", {"id": "1", "title": "a\x00b", "text": "lone \ud800"}, *GOOD[1:])
    (batch,) = iterate(path)(8)
    assert np.isfinite(encoder.encode(texts=batch["text"], titles=batch["title"])).all()


def as_command(monkeypatch: pytest.MonkeyPatch, module: str = "pyserini.encode.__main__", **arguments: Any) -> None:
    """As in ``python -m MODULE`` after it has read its arguments."""
    main = ModuleType("__main__")
    main.__spec__ = ModuleSpec(module, None)
    main.args = Namespace(**arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)


@pytest.mark.parametrize(
    ("read", "encoded", "message"),
    [
        (
            ["title", "contents"],
            ["text"],
            "input --fields title contents has no field 'text', which encoder --fields names:",
        ),
        (["contents"], ["contents"], "no field 'text', which pyserini.encode always needs"),
        (["text"], ["title", "text"], "input --fields text has no field 'title'"),
    ],
)
def test_missing_fields_are_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, read: list[str], encoded: list[str], message: str
) -> None:
    arguments = {"input": Namespace(fields=read), "encoder": Namespace(fields=encoded, multimodal=False)}
    as_command(monkeypatch, **arguments)
    with pytest.raises(InputError, match=message):
        document_encoder("diffretriever:no model of this name")


@pytest.mark.usefixtures("encoder")
def test_arguments_of_another_program_are_not_read(monkeypatch: pytest.MonkeyPatch, tiny_name: str) -> None:
    as_command(monkeypatch, module="mine", input=Namespace(fields=["x"]), encoder=Namespace(fields="x"))
    document_encoder(tiny_name)


@pytest.mark.parametrize(
    ("suffix", "dimension", "message"),
    [("", 64, None), ("", 768, "pass --dimension 64"), ("-lexical", 64, "leave out --to-faiss")],
)
def test_what_faiss_cannot_hold_is_refused_before_the_corpus_is_read(
    monkeypatch: pytest.MonkeyPatch, tiny_name: str, suffix: str, dimension: int, message: str | None
) -> None:
    as_command(
        monkeypatch,
        input=Namespace(fields=["text"]),
        encoder=Namespace(fields=["text"], dimension=dimension, multimodal=False),
        output=Namespace(to_faiss=True),
    )
    with contextlib.nullcontext() if message is None else pytest.raises(InputError, match=message):
        document_encoder(tiny_name + suffix)


@pytest.mark.usefixtures("no_encoder")
def test_other_encoders_corpora_are_left_to_pyserini(tmp_path: Path) -> None:
    assert iterate(corpus(tmp_path / "c", {"id": "a b", "title": "", "text": "x"})).all_info["id"] == ["a b"]


def batch(encoder: DiffRetrieverDocumentEncoder, *ids: str) -> dict[str, Any]:
    texts: list[str | None] = [f"text of {docid}" for docid in ids]
    return {"id": list(ids), "text": texts, "vector": encoder.encode(texts)}


def faiss_writer(folder: Path, dimension: int = 64) -> Any:
    from pyserini.encode.optional import FaissRepresentationWriter

    return FaissRepresentationWriter(str(folder), dimension=dimension)


def test_a_finished_index_records_its_encoder(tmp_path: Path, encoder: DiffRetrieverDocumentEncoder) -> None:
    import faiss

    writer = faiss_writer(tmp_path / "D")
    with writer:
        writer.write(batch(encoder, "a", "b"), ["text"])
        assert sorted(path.name for path in (tmp_path / "D").iterdir()) == ["docid.partial", "index.partial"]
        writer.write(batch(encoder, "c"), ["text"])
    assert sorted(path.name for path in (tmp_path / "D").iterdir()) == ["diffretriever.json", "docid", "index"]
    assert (tmp_path / "D/docid").read_text() == "a\nb\nc\n"
    assert faiss.read_index(str(tmp_path / "D/index")).ntotal == 3
    assert read_index_record(tmp_path / "D") == IndexRecord(encoder.provenance, 64, 3)
    assert (writer.index_name, writer.id_file_name) == ("index", "docid")


def test_the_encoder_that_made_the_vectors_is_named_not_the_newest(
    tmp_path: Path, encoder: DiffRetrieverDocumentEncoder, tiny_name: str
) -> None:
    newer = DiffRetrieverDocumentEncoder(tiny_name, k_passage=2)
    writer = faiss_writer(tmp_path / "D")
    with writer:
        writer.write(batch(encoder, "a"), ["text"])
    record = read_index_record(tmp_path / "D")
    assert record is not None
    assert record.provenance == encoder.provenance != newer.provenance


def test_vectors_of_another_encoder_remove_the_old_record(
    tmp_path: Path, encoder: DiffRetrieverDocumentEncoder
) -> None:
    writer = faiss_writer(tmp_path / "D")
    with writer:
        writer.write(batch(encoder, "a"), ["text"])
    writer = faiss_writer(tmp_path / "D")
    with writer:
        writer.write({"id": ["a"], "text": ["x"], "vector": np.ones((1, 64), np.float32)}, ["text"])
    assert sorted(path.name for path in (tmp_path / "D").iterdir()) == ["docid", "index"]


def test_a_wrong_dimension_is_named_and_leaves_nothing(tmp_path: Path, encoder: DiffRetrieverDocumentEncoder) -> None:
    writer = faiss_writer(tmp_path / "D", dimension=768)
    with (
        pytest.raises(InputError, match=r"vectors of dimension 64, but --dimension is 768: pass --dimension 64"),
        writer,
    ):
        writer.write(batch(encoder, "a"), ["text"])
    assert not (tmp_path / "D").exists()


def test_term_weights_do_not_go_to_faiss(tmp_path: Path, tiny_name: str) -> None:
    encoder = DiffRetrieverDocumentEncoder(f"{tiny_name}-lexical")
    writer = faiss_writer(tmp_path / "D")
    with pytest.raises(InputError, match="--to-faiss needs vectors"), writer:
        writer.write(batch(encoder, "a"), ["text"])
    assert not (tmp_path / "D").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_the_old_index_alone(
    tmp_path: Path, encoder: DiffRetrieverDocumentEncoder, error: type[BaseException]
) -> None:
    with (old := faiss_writer(tmp_path / "D")):
        pass
    del old
    (tmp_path / "D/docid").write_text("old\n")
    before = {path.name: path.read_bytes() for path in (tmp_path / "D").iterdir()}
    writer = faiss_writer(tmp_path / "D")
    with pytest.raises(error), writer:
        writer.write(batch(encoder, "a"), ["text"])
        raise error
    assert {path.name: path.read_bytes() for path in (tmp_path / "D").iterdir()} == before


def test_an_index_that_cannot_be_written_is_removed(
    tmp_path: Path, encoder: DiffRetrieverDocumentEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    def full_disk(index: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(faiss, "write_index", full_disk)
    writer = faiss_writer(tmp_path / "D")
    with pytest.raises(RuntimeError, match="no space left"), writer:
        writer.write(batch(encoder, "a"), ["text"])
    assert not (tmp_path / "D").exists()


def test_vectors_of_other_encoders_get_no_record(tmp_path: Path, encoder: DiffRetrieverDocumentEncoder) -> None:
    writer = faiss_writer(tmp_path / "D", dimension=4)
    with writer:
        writer.write({"id": ["a"], "vector": np.ones((1, 4), np.float32)}, [])
    assert sorted(path.name for path in (tmp_path / "D").iterdir()) == ["docid", "index"]


@pytest.mark.usefixtures("no_encoder")
def test_other_encoders_files_are_left_to_pyserini(tmp_path: Path) -> None:
    from pyserini.encode import JsonlRepresentationWriter

    with pytest.raises(RuntimeError), (writer := JsonlRepresentationWriter(str(tmp_path / "S"))):
        assert Path(tmp_path, "S/embeddings.jsonl").is_file()
        raise RuntimeError
    assert writer.filename == "embeddings.jsonl"


def jsonl_batches(encoder: DiffRetrieverDocumentEncoder) -> Iterator[dict[str, Any]]:
    yield batch(encoder, "a", "b")
    yield batch(encoder, "c")


@pytest.mark.parametrize("suffix", ["", "-lexical"])
def test_jsonl_embeddings_are_whole(tmp_path: Path, tiny_name: str, suffix: str) -> None:
    from pyserini.encode import JsonlRepresentationWriter

    encoder = DiffRetrieverDocumentEncoder(tiny_name + suffix)
    writer = JsonlRepresentationWriter(str(tmp_path / "S"))
    with writer:
        for one in jsonl_batches(encoder):
            writer.write(one, ["text"])
        assert list((tmp_path / "S").iterdir()) == []
        assert (tmp_path / "S.embeddings.jsonl.partial").is_file()
    assert [path.name for path in (tmp_path / "S").iterdir()] == ["embeddings.jsonl"]
    assert not (tmp_path / "S.embeddings.jsonl.partial").exists()
    lines = [json.loads(line) for line in (tmp_path / "S/embeddings.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert all(isinstance(line["vector"], dict if suffix else list) for line in lines)


def test_jsonl_embeddings_of_a_failed_run_are_absent(tmp_path: Path, encoder: DiffRetrieverDocumentEncoder) -> None:
    from pyserini.encode import JsonlRepresentationWriter

    writer = JsonlRepresentationWriter(str(tmp_path / "S"))
    with pytest.raises(RuntimeError), writer:
        writer.write(batch(encoder, "a"), ["text"])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "S").mkdir()
    with pytest.raises(RuntimeError), JsonlRepresentationWriter(str(tmp_path / "S")):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["S"], "an existing folder stays"


def test_the_unfinished_file_is_inside_the_folder_where_the_parent_cannot_be_used(
    tmp_path: Path, encoder: DiffRetrieverDocumentEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance a mounted output folder: no file can be renamed into it from outside."""
    from pyserini.encode import JsonlRepresentationWriter

    monkeypatch.setattr("os.access", lambda path, mode: False)
    writer = JsonlRepresentationWriter(str(tmp_path / "S"))
    with writer:
        writer.write(batch(encoder, "a"), ["text"])
        assert [path.name for path in (tmp_path / "S").iterdir()] == ["embeddings.jsonl.partial"]
    assert [path.name for path in (tmp_path / "S").iterdir()] == ["embeddings.jsonl"]


def test_a_damaged_provenance_is_named(tmp_path: Path) -> None:
    assert read_index_record(tmp_path) is None
    path = tmp_path / "diffretriever.json"
    path.write_text('{"encoder": "x"}')
    with pytest.raises(InputError, match=r"diffretriever\.json: format None is not 2; build the index again"):
        read_index_record(tmp_path)
    IndexRecord(made_up_provenance(), 8, 3).write(tmp_path)
    whole = json.loads(path.read_text())
    other = whole["provenance"] | {"weights": "x"}
    for change, message in (
        ({"count": "x"}, "damaged"),
        ({"provenance": None}, "another version"),
        ({"provenance": other}, "does not match its fingerprint"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(InputError, match=rf"diffretriever\.json: .*{message}.*; build the index again"):
            read_index_record(tmp_path)
