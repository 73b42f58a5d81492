"""Shards, skipped rows, changed corpora and damage: nothing is lost or stored twice, and errors are explained."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import RawRow
from diffretriever_pyserini.encoding import prefetch
from diffretriever_pyserini.encoding.progress import Progress, peak_flops
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import only_writer
from diffretriever_pyserini.store.part import Part
from diffretriever_pyserini.store.store import ShardNote, Store

from .. import warm
from .conftest import passages, write_corpus
from .test_job import content, encode


def parts(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(folder).items() if name.startswith("parts")}


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("vectors", ["all", "pooled"])
def test_a_part_may_have_only_skipped_rows(model: DiffRetriever, tmp_path: Path, dtype: str, vectors: str) -> None:
    path = write_corpus(tmp_path / "c.jsonl", passages(12))
    lines = path.read_text().splitlines()
    lines[4:8] = ["{"] * 4
    path.write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"rows_per_part": 4, "on_error": "skip", "dtype": dtype, "vectors": vectors}
    for _ in range(2):  # the second run keeps the empty part
        figures = encode(model, path, tmp_path / "S", **options)
        assert (figures["rows"], figures["passages"], figures["skipped"]) == (12, 8, 4)
    store = Store(tmp_path / "S")
    assert store.bounds == [0, 4, 4, 8]
    assert list(store.docids()) == [f"d{i}" for i in (*range(4), *range(8, 12))]
    assert store.parts[1].pooled().shape == (0, model.dimension)
    assert store.parts[1].weights.shape == (0, model.vocab_size)


def test_more_shards_than_parts_then_one_shard(model: DiffRetriever, tmp_path: Path) -> None:
    """32 rows are exactly two parts: the third of three shards has none; then one shard encodes the rest."""
    path = write_corpus(tmp_path / "c.jsonl", passages(32))
    encode(model, path, tmp_path / "whole")
    assert encode(model, path, tmp_path / "S", shard=2, shards=3)["parts"] == 0
    encode(model, path, tmp_path / "S", shard=1, shards=3)
    with pytest.raises(InputError, match="not finished"):
        Store(tmp_path / "S")
    assert encode(model, path, tmp_path / "S")["kept"] == 1
    assert len(Store(tmp_path / "S")) == 32
    assert parts(tmp_path / "S") == parts(tmp_path / "whole")


def test_another_number_of_shards_at_the_same_time_is_refused(
    model: DiffRetriever, corpus_file: Path, tmp_path: Path
) -> None:
    encode(model, corpus_file, tmp_path / "S", shard=0, shards=2)
    with (
        only_writer(tmp_path / "S/locks/00001-of-00002", "x"),
        pytest.raises(DiffRetrieverError, match="another number of shards than 1"),
    ):
        encode(model, corpus_file, tmp_path / "S")
    assert encode(model, corpus_file, tmp_path / "S")["passages"] == 100


def test_a_corpus_that_changed_behind_its_name_is_refused(model: DiffRetriever, tmp_path: Path) -> None:
    """A data set of the hub may grow or shrink: then the existing parts no longer cover its rows."""
    path = write_corpus(tmp_path / "c.jsonl", passages(20))
    encode(model, path, tmp_path / "S")
    before, size = content(tmp_path / "S"), path.stat().st_size
    for count in (16, 24, 12):
        text = "".join(f'{{"id":"e{i}","text":""}}\n' for i in range(count))
        path.write_text(text + " " * (size - len(text)))
        with pytest.raises(InputError, match=r"part-0000000\d\S* was made from \d+ rows .* the corpus has changed"):
            encode(model, path, tmp_path / "S")
    assert content(tmp_path / "S") == before


def test_a_corpus_whose_texts_changed_behind_its_name_is_refused(model: DiffRetriever, tmp_path: Path) -> None:
    """As many bytes and rows: else a continued store would hold the vectors of texts that are in no corpus."""
    path = write_corpus(tmp_path / "c.jsonl", passages(20))
    encode(model, path, tmp_path / "S")
    before = content(tmp_path / "S")
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in ([*lines[:12], *lines[13:], lines[12]], [lines[0].swapcase().replace(b"ID", b"id", 1), *lines[1:]]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(InputError, match=r"part-0000000\d\S* was made from .* read otherwise now: the corpus has"):
            encode(model, path, tmp_path / "S")
    assert content(tmp_path / "S") == before
    path.write_bytes(b"".join(lines))
    assert encode(model, path, tmp_path / "S")["kept"] == encode(model, path, tmp_path / "S")["parts"]


def test_shards_that_disagree_are_an_error(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "S", shard=0, shards=2)
    encode(model, corpus_file, tmp_path / "S", shard=1, shards=2)
    ShardNote(99, 50, 0).write(tmp_path / "S", 1, 2)
    with pytest.raises(InputError, match="counted 99 and 100 rows"):
        Store(tmp_path / "S")


def test_a_part_under_the_name_of_another_is_replaced(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> None:
    encode(model, corpus_file, tmp_path / "S")
    before = content(tmp_path / "S")
    paths = [part.path for part in Store(tmp_path / "S").parts]
    paths[1].write_bytes(paths[3].read_bytes())
    with pytest.raises(InputError, match="holds part 3 with 16 rows of the corpus, not part 1"):
        len(Store(tmp_path / "S"))
    assert encode(model, corpus_file, tmp_path / "S")["kept"] == 6
    assert content(tmp_path / "S") == before


def test_a_flipped_bit_of_a_header_is_an_error_or_harmless(model: DiffRetriever, tmp_path: Path) -> None:
    encode(model, write_corpus(tmp_path / "c.jsonl", passages(3)), tmp_path / "S")
    store = Store(tmp_path / "S")
    docids, vectors, weights = store.parts[0].docids, store.parts[0].vectors(), store.parts[0].weights
    good = store.parts[0].path.read_bytes()
    text = 8 + int.from_bytes(good[:8], "little")
    bad = tmp_path / "bad.safetensors"
    errors = 0
    for offset in range(text):
        for bit in (0, 5):
            data = bytearray(good)
            data[offset] ^= 1 << bit
            bad.write_bytes(data)
            part = Part(bad, store.spec)
            try:
                part.verify()
            except InputError as error:
                assert str(bad) in str(error)
                errors += 1
                continue
            # The bit was in white space or in a tensor's end offset, which follows from its shape.
            assert part.docids == docids
            np.testing.assert_array_equal(part.vectors(), vectors)
            assert abs(part.weights - weights).max() == 0
    assert errors > 1.6 * text


def test_pooled_vectors_need_no_memory_for_all_k(model: DiffRetriever) -> None:
    prepared = model.prepare([record["text"] for record in passages(9)], "passage")
    whole, pooled = model.represent(prepared), model.represent(prepared, pooled=True)
    assert pooled.vectors.shape == (9, 1, model.dimension)
    np.testing.assert_array_equal(pooled.pooled, whole.pooled)


def test_batches_of_many_words_are_small(model: DiffRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffretriever_pyserini.model import inference

    many = " ".join(f"{a}{b} retrieval" for a in "abcdefgh" for b in "ijklmnop")
    prepared = model.prepare([many, *["dense"] * 40], "passage")
    assert prepared.content is not None
    row = 4 * model.dimension
    monkeypatch.setattr(inference, "COLUMN_BYTES", 3 * row * int(prepared.content.lengths[0]))
    batches = list(model.reader.batches(prepared, 41))
    assert len(batches[0]) == 3
    assert sorted(index for batch in batches for index in batch) == list(range(41))


def test_chunks_of_long_rows_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "CHUNK_BYTES", 1000)
    rows = [RawRow("jsonl", str(i), b"x" * (400 if i % 2 else 4)) for i in range(600)]
    rows += [RawRow("record", str(i), {"id": i, "text": "x" * 990, "title": None}) for i in range(3)]
    chunks = list(prefetch.chunks(rows))
    assert [row for chunk in chunks for row in chunk] == rows
    assert max(map(len, chunks)) == 6
    assert list(map(len, prefetch.chunks(rows[:1] * 600))) == [250, 250, 100]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed(model: DiffRetriever, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from diffretriever_pyserini.model.resolve import resolve_config
            from diffretriever_pyserini.encoding.prefetch import Prefetcher
            from diffretriever_pyserini.model.tokenization import Preparer

            prefetcher = Prefetcher(Preparer(resolve_config(sys.argv[1])), None, False, 1)
            prefetcher._starting[0].result()
            print(prefetcher._workers[0].process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    output = tmp_path / "output"
    with output.open("w") as file:
        subprocess.run([warm.python(), str(script), model.config.backbone], stdout=file, check=False)
    worker = int(output.read_text())
    deadline = time.monotonic() + 120
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    still_running = running(worker)
    if still_running:
        os.kill(worker, signal.SIGKILL)
    assert not still_running


def running(process: int) -> bool:
    """Whether ``process`` exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_bar_counts_existing_parts_without_speed(model: DiffRetriever) -> None:
    from tqdm import tqdm

    progress = Progress(model, quiet=True)
    progress.keep(60)  # with no bar to move
    progress._bar = bar = tqdm(total=100, file=io.StringIO(), mininterval=0)
    progress.keep(60)
    progress.tick(10)
    assert (bar.n, bar.initial, bar.total) == (70, 60, 100)
    assert bar.format_dict["rate"] <= 10 / bar._ema_dt() * 1.001, "existing passages do not count as speed"
    bar.close()


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 0.0),
        ("NVIDIA L40", 0.0),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_peaks_of_devices(name: str, peak: float, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops("cuda:0") == peak


def test_an_empty_list_of_devices_is_an_error(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffretriever_pyserini.cli import main

    assert main(["encode", "--corpus", str(corpus_file), "--output", str(tmp_path / "S"), "--devices", ","]) == 2
    assert "names no device" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_an_error(model: DiffRetriever, corpus_file: Path) -> None:
    with pytest.raises(DiffRetrieverError, match="is no folder, but a store must be one; give another path"):
        encode(model, corpus_file, corpus_file)
