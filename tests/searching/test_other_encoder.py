"""Search refuses an index, and encode refuses to resume a store, that another encoder made, whatever the difference."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.model.resolve import resolve_config

from .. import warm
from ..encoding.conftest import passages, write_corpus
from ..model.conftest import checkpoints, copy_folder, edit_json, tiny_bert, tiny_llada
from ..model.test_fingerprint import DECIDING, editable, tiny_dream_adapter

__all__ = ["checkpoints", "tiny_bert", "tiny_dream_adapter", "tiny_llada"]
Setups = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="session")
def setups(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Setups:
    """Fixture name of a checkpoint → a copy of it, and a folder with its corpus, topics, store and index."""
    known: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in known:
            work = tmp_path_factory.mktemp(name)
            encoder = editable(request.getfixturevalue(name), work / "encoder")
            write_corpus(work / "corpus.jsonl", passages(20))
            (work / "topics.tsv").write_text("q1\tdense retrieval\n")
            assert main(encode(encoder, work)) == 0
            assert main(["index", "--store", f"{work}/S", "--output", f"{work}/I", "--dense", "flat", "--quiet"]) == 0
            known[name] = encoder, work
        return known[name]

    return make


def encode(encoder: Path, work: Path, store: str = "S") -> list[str]:
    paths = ["--encoder", str(encoder), "--corpus", f"{work}/corpus.jsonl", "--output", f"{work}/{store}"]
    return ["encode", *paths, "--part-size", "4", "--workers", "0", "--quiet"]


def search(encoder: Path | None, work: Path, output: Path) -> list[str]:
    name = ["--encoder", str(encoder)] if encoder else []
    return ["search", "--index", f"{work}/I", *name, "--topics", f"{work}/topics.tsv", "--output", str(output)]


def half(work: Path) -> dict[Path, bytes]:
    """A store whose last parts are missing, as a kill leaves it; returns its files."""
    shutil.rmtree(work / "half", ignore_errors=True)
    shutil.copytree(work / "S", work / "half")
    shutil.rmtree(work / "half" / "shards")
    for part in sorted((work / "half" / "parts").rglob("*.safetensors"))[2:]:
        part.unlink()
    return files(work / "half")


def files(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and "locks" not in str(path)
    }


@pytest.mark.parametrize("name", DECIDING)
def test_another_encoder_is_refused(
    name: str, setups: Setups, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture, change, difference = DECIDING[name]
    encoder, work = setups(fixture)
    assert main(search(encoder, work, tmp_path / "run.txt")) == 0
    other = copy_folder(encoder, tmp_path / "other")
    change(other)
    capsys.readouterr()

    assert main(search(other, work, tmp_path / "other.txt")) != 0
    error = capsys.readouterr().err
    assert "I holds passages of another encoder: " in error
    assert difference in error
    assert "search with the encoder that built the index" in error
    assert not (tmp_path / "other.txt").exists()

    before = half(work)
    assert main(encode(other, work, "half")) != 0
    error = capsys.readouterr().err
    assert "half was begun with passages of another encoder: " in error
    assert difference in error
    assert "continue with the same encoder, or name another folder" in error
    assert files(work / "half") == before

    assert main(encode(encoder, work, "half")) == 0
    assert {path.name: data for path, data in files(work / "half" / "parts").items()} == {
        path.name: data for path, data in files(work / "S" / "parts").items()
    }


def test_a_checkpoint_changed_under_the_same_path(setups: Setups, tmp_path: Path) -> None:
    """The usual case: the same command and name, another adapter in the folder."""
    encoder, work = setups("tiny_dream_adapter")
    shutil.copytree(work, tmp_path / "work")
    work, index = tmp_path / "work", tmp_path / "work" / "I" / "index.json"
    record = json.loads(index.read_text())
    assert record["provenance"]["encoder"] == str(encoder)
    start = [warm.python(), "-m", "diffretriever_pyserini"]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*start, *command], capture_output=True, text=True, check=False, cwd=tmp_path)

    old = (encoder / "adapter_config.json").read_bytes()
    try:
        edit_json(encoder / "adapter_config.json", lora_alpha=99)
        done = run(*search(None, work, tmp_path / "run.txt"))
        assert done.returncode != 0
        assert "lora_alpha is 99, was" in done.stderr
        half(work)
        done = run(*encode(encoder, work, "half"))
        assert done.returncode != 0
        assert "lora_alpha is 99, was" in done.stderr
    finally:
        (encoder / "adapter_config.json").write_bytes(old)


def test_every_output_has_the_same_record_of_its_encoder(setups: Setups, tmp_path: Path) -> None:
    encoder, work = setups("tiny_bert")
    output = tmp_path / "queries"
    command = ["encode-queries", "--encoder", str(encoder), "--topics", f"{work}/topics.tsv", "--output", str(output)]
    assert main(command) == 0
    records: list[dict[str, Any]] = [
        json.loads(path.read_text())["provenance"]
        for path in (
            work / "S" / "store.json",
            work / "I" / "index.json",
            work / "I" / "dense" / "diffretriever.json",
            output / "manifest.json",
        )
    ]
    assert all(record == records[0] for record in records)
    assert records[0]["passage"]["k"] == resolve_config(str(encoder)).k_passage
