"""`diffretriever encode-queries`: both files hold the model's representations; the folder is whole or absent."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.cli import main

TOPICS = {
    "1": "How do search engines rank documents?",
    "007": "neural retrieval models",
    "x": "neural retrieval models",
}


@pytest.fixture
def topics(tmp_path: Path) -> Path:
    path = tmp_path / "topics.tsv"
    path.write_text("".join(f"{qid}\t{text} \n" for qid, text in TOPICS.items()))
    return path


def encode(tiny_dream: Path, topics: Path, output: Path, *more: str) -> int:
    return main(
        ["encode-queries", "--encoder", str(tiny_dream), "--topics", str(topics), "--output", str(output), *more]
    )


def test_the_files_hold_the_models_representations(tiny_dream: Path, topics: Path, tmp_path: Path) -> None:
    assert encode(tiny_dream, topics, tmp_path / "out", "--batch-size", "2") == 0
    reps = DiffRetriever.from_pretrained(str(tiny_dream)).encode(list(TOPICS.values()), side="query")
    lines = [json.loads(line) for line in (tmp_path / "out" / "queries.jsonl").read_text().splitlines()]
    assert [(line["id"], line["contents"]) for line in lines] == list(TOPICS.items())
    assert [line["vector"] for line in lines] == reps.impacts
    vectors = np.load(tmp_path / "out" / "vectors.npy", allow_pickle=False)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, reps.pooled, atol=1e-5)
    assert (tmp_path / "out" / "ids.txt").read_text().split() == list(TOPICS)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["queries"], manifest["dimension"]) == (3, 64)
    assert manifest["provenance"]["fingerprint"]


def test_pyserini_finds_each_query_in_the_file(tiny_dream: Path, topics: Path, tmp_path: Path) -> None:
    from pyserini.encode import CachedDataQueryEncoder

    encode(tiny_dream, topics, tmp_path / "out")
    cached = CachedDataQueryEncoder(str(tmp_path / "out" / "queries.jsonl"))
    reps = DiffRetriever.from_pretrained(str(tiny_dream)).encode(list(TOPICS.values()), side="query")
    assert [cached.encode(f" {text} ") for text in TOPICS.values()] == reps.impacts


def test_the_same_command_gives_the_same_bytes(tiny_dream: Path, topics: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        encode(tiny_dream, topics, tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_an_earlier_output_is_replaced_and_other_folders_are_not(
    tiny_dream: Path, topics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(tiny_dream, topics, tmp_path / "out") == 0
    assert encode(tiny_dream, topics, tmp_path / "out") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert encode(tiny_dream, topics, tmp_path / "mine") == 2
    assert "exists and is not an output of this command" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_after_an_error_there_is_no_output(
    tiny_dream: Path, topics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(tiny_dream, topics, tmp_path / "out", "--max-length", "3") == 2
    assert "max_length" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_query_is_named(tiny_dream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.tsv").write_text("1\tfine\n2\t\n")
    assert encode(tiny_dream, tmp_path / "t.tsv", tmp_path / "out") == 2
    assert "t.tsv, line 2: query '2' is empty" in capsys.readouterr().err


def test_hard_queries_are_encoded(tiny_dream: Path, tmp_path: Path) -> None:
    hard = ["the of and", "?!...", "nul \x00 byte", "lone \ud800 surrogate", "word " * 3000]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"qid": str(i), "title": text}) + "\n" for i, text in enumerate(hard)))
    assert encode(tiny_dream, path, tmp_path / "out", "--max-length", "128") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "queries.jsonl").read_text().splitlines()]
    assert [line["contents"] for line in lines] == [text.strip() for text in hard]
    assert lines[0]["vector"] == {}
    assert np.isfinite(np.load(tmp_path / "out" / "vectors.npy")).all()
