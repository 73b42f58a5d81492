"""Encoding a corpus: what is stored, in which order, and what happens to bad rows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import only_writer
from diffretriever_pyserini.store.store import Store
from diffretriever_pyserini.text import join_title

from .conftest import passages, write_corpus


def encode(model: DiffRetriever, corpus: Path, output: Path, **options: Any) -> dict[str, Any]:
    options = {"rows_per_part": 16, "workers": 0} | options
    return encode_corpus(model, Corpus([corpus]), output, EncodeOptions(**options))


def content(store: Path) -> dict[str, bytes]:
    """Return the files of a store without its locks."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and "locks" not in path.parts
    }


def test_a_store_holds_the_representations_of_the_model(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path
) -> None:
    figures = encode(model, corpus_file, tmp_path / "S", dtype="float32")
    store = Store(tmp_path / "S")
    records = passages(100)
    expected = model.encode([join_title(record["title"], record["text"]) for record in records])
    assert list(store.docids()) == [record["id"] for record in records]
    assert len(store) == figures["passages"] == 100
    vectors = np.concatenate([part.vectors() for part in store.parts])
    np.testing.assert_allclose(vectors, expected.vectors, atol=1e-6)
    pooled = np.concatenate([part.pooled() for part in store.parts])
    np.testing.assert_allclose(pooled, expected.pooled, atol=1e-6)
    for part, start in zip(store.parts, store.bounds, strict=False):
        weights = expected.weights[start : start + len(part)]
        assert abs(part.weights - weights).max() <= 1, "they differ only by rounding"
    for part in store.parts:
        part.verify()


@pytest.mark.parametrize(("dtype", "error"), [("float16", 6e-4), ("int8", 5e-3)])
def test_narrow_vectors_are_close(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path, dtype: str, error: float
) -> None:
    encode(model, corpus_file, tmp_path / "S", dtype=dtype)
    expected = model.encode([join_title(record["title"], record["text"]) for record in passages(100)])
    vectors = np.concatenate([part.vectors() for part in Store(tmp_path / "S").parts])
    assert 0 < np.abs(vectors - expected.vectors).max() < error


def test_only_pooled_vectors(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "S", vectors="pooled", dtype="float32")
    expected = model.encode([join_title(record["title"], record["text"]) for record in passages(100)])
    store = Store(tmp_path / "S")
    assert store.parts[0].vectors().shape == (16, 1, model.dimension)
    np.testing.assert_allclose(np.concatenate([part.pooled() for part in store.parts]), expected.pooled, atol=1e-6)


def test_workers_and_shards_do_not_change_the_bytes(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "one")
    encode(model, corpus_file, tmp_path / "workers", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "workers")
    for shard in (2, 0, 1):
        with pytest.raises(InputError, match=r"not finished|store\.json is missing"):
            Store(tmp_path / "sharded")
        encode(model, corpus_file, tmp_path / "sharded", shard=shard, shards=3)
    assert list(Store(tmp_path / "sharded").docids()) == list(Store(tmp_path / "one").docids())
    parts = [
        {name: data for name, data in content(tmp_path / folder).items() if name.startswith("parts")}
        for folder in ("one", "sharded")
    ]
    assert parts[0] == parts[1]


def test_a_second_run_encodes_nothing(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "S")
    before = content(tmp_path / "S")
    figures = encode(model, corpus_file, tmp_path / "S")
    assert (figures["kept"], figures["encoded"], figures["passages"]) == (7, 0, 100)
    assert content(tmp_path / "S") == before


BAD = [
    ('{"id": "x", "text": "cut in ha', "broken JSON"),
    ('{"text": "no id"}', "has no id"),
    ('{"id": "a b", "text": "x"}', "white space"),
    ('{"id": "y", "text": 7}', "must be a string"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_stops_with_file_and_line(model: DiffRetriever, tmp_path: Path, line: str, reason: str) -> None:
    path = write_corpus(tmp_path / "c.jsonl", passages(20))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=rf"c\.jsonl, line 21: .*{reason}.*--on-error skip"):
        encode(model, path, tmp_path / "S")


def test_skipped_rows_are_listed(model: DiffRetriever, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "c.jsonl", passages(20))
    good = path.read_text().splitlines()
    lines = [good[0], *(line for line, _ in BAD), *good[1:], good[3]]
    path.write_text("\n".join(lines) + "\n")
    figures = encode(model, path, tmp_path / "S", on_error="skip", rows_per_part=100)
    store = Store(tmp_path / "S")
    assert list(store.docids()) == [f"d{i}" for i in range(20)]
    assert (figures["rows"], figures["passages"], figures["skipped"]) == (25, 20, 5)
    locations, reasons = zip(*store.skipped(), strict=True)
    assert [location.rpartition(" ")[2] for location in locations] == ["2", "3", "4", "5", "25"]
    for reason, (_, expected) in zip(reasons, [*BAD, ("", "was seen before in")], strict=True):
        assert expected in reason
    expected_weights = model.encode([join_title(record["title"], record["text"]) for record in passages(20)]).weights
    assert abs(store.parts[0].weights - expected_weights).max() <= 1


def test_a_repeated_id_stops(model: DiffRetriever, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "c.jsonl", [*passages(5), passages(5)[2]])
    with pytest.raises(InputError, match=r"line 6: passage id 'd2' was seen before in .*line 3"):
        encode(model, path, tmp_path / "S")


def test_another_encoder_corpus_or_format_is_refused(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "S")
    with pytest.raises(DiffRetrieverError, match="begun with rows_per_part = 16, this run has 8"):
        encode(model, corpus_file, tmp_path / "S", rows_per_part=8)
    with pytest.raises(DiffRetrieverError, match="begun with max_length"):
        encode(model, corpus_file, tmp_path / "S", max_length=20)
    deeper = replace(model.config, k_passage=model.config.k_passage + 1)
    with pytest.raises(DiffRetrieverError, match="of another encoder: k_passage is 4, was 3: continue with"):
        encode(DiffRetriever(deeper), corpus_file, tmp_path / "S")
    other = write_corpus(tmp_path / "other.jsonl", passages(3))
    with pytest.raises(DiffRetrieverError, match="begun with corpus = "):
        encode(model, other, tmp_path / "S")
    with pytest.raises(DiffRetrieverError, match=r"holds other\.jsonl and is no store|holds S and is no store"):
        encode(model, corpus_file, tmp_path)


def test_a_damaged_part_is_named_and_replaced(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path, capfd: Any
) -> None:
    encode(model, corpus_file, tmp_path / "S")
    before = content(tmp_path / "S")
    parts = [part.path for part in Store(tmp_path / "S").parts]
    data = bytearray(parts[2].read_bytes())
    data[-3] ^= 1
    parts[2].write_bytes(data)
    parts[4].write_bytes(parts[4].read_bytes()[:-10])
    with pytest.raises(InputError, match=r"part-00000002.*checksum is wrong"):
        Store(tmp_path / "S").parts[2].verify()
    figures = encode(model, corpus_file, tmp_path / "S")
    assert figures["kept"] == 5
    output = capfd.readouterr().err
    assert "part-00000002" in output
    assert "part-00000004" in output
    assert content(tmp_path / "S") == before


def test_two_writers_of_one_shard_refuse_each_other(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / "S/locks/00000-of-00001", "x"),
        pytest.raises(DiffRetrieverError, match="shard 0 of 1, is being written by another process"),
    ):
        encode(model, corpus_file, tmp_path / "S")


def test_nan_names_the_row(model: DiffRetriever, corpus_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    forward = model.reader.forward

    def broken(sequences: Any, layout: Any, columns: Any = None) -> Any:
        reading = forward(sequences, layout, columns)
        hidden = reading.hidden.clone()
        hidden[0] = torch.nan  # the longest text of the batch
        return reading._replace(hidden=hidden)

    monkeypatch.setattr(model.reader, "forward", broken)
    with pytest.raises(DiffRetrieverError, match=r"corpus\.jsonl, line \d+: .*returned NaN"):
        encode(model, corpus_file, tmp_path / "S")


def test_long_texts_are_cut_before_tokenisation(model: DiffRetriever, tmp_path: Path) -> None:
    """Only the beginning of ten million characters is tokenised."""
    text = "dense retrieval of passages " * 400_000
    path = write_corpus(tmp_path / "c.jsonl", [{"id": "long", "text": text}, {"id": "short", "text": text[:100_000]}])
    encode(model, path, tmp_path / "S", dtype="float32")
    part = Store(tmp_path / "S").parts[0]
    np.testing.assert_array_equal(part.vectors()[0], part.vectors()[1])
    assert abs(part.weights[0] - part.weights[1]).max() == 0


def test_a_link_to_a_folder_that_does_not_exist_yet_is_followed(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "S").symlink_to("disk/S")
    encode(model, corpus_file, tmp_path / "S")
    assert (tmp_path / "S").is_symlink() and len(Store(tmp_path / "disk" / "S")) == 100


def test_a_store_cannot_replace_a_file_or_a_device(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    (tmp_path / "S").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("S", "pipe"):
        with pytest.raises(DiffRetrieverError, match=f"{name} is no folder"):
            encode(model, corpus_file, tmp_path / name)


def test_a_store_is_kept_apart_from_its_corpus(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "S", tmp_path / "deep" / "S"):
        with pytest.raises(InputError, match="--corpus"):
            encode_corpus(model, Corpus([tmp_path]), output, EncodeOptions(workers=0))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]
