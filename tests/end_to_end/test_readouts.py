"""The commands with each read-out of the baselines: from a corpus to runs, and what is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffretriever_pyserini import (
    ConfigError,
    DiffRetriever,
    DiffRetrieverDocumentEncoder,
    DiffRetrieverQueryEncoder,
    Representations,
    scoring,
)
from diffretriever_pyserini.cli import main

from ..model.conftest import save_causal
from .commands import pyserini, read_run, write_corpus

PASSAGES = [
    ("d1", "dense", "index of passages"),
    ("d2", "", "the retrieval of words"),
    ("d3", "", ""),
    ("d4", "word", "query 42"),
    ("d5", "", "words of a passage, dense words"),
]
QUERIES = [("1", "dense retrieval"), ("2", "words"), ("3", "42")]
SETTINGS = {
    "next_token": {"k_query": 3, "k_passage": 2},
    "mean": {},
    "last_token": {"query_prefix": "query: ", "passage_prefix": "passage: "},
}

NO_TERMS = "gives one vector per text and no term weights"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands have run, with a YAML file for each read-out of one causal model."""
    folder = tmp_path_factory.mktemp("readouts")
    save_causal(folder / "model", "qwen2")
    write_corpus(folder / "C", ({"id": i, "title": t, "text": x} for i, t, x in PASSAGES))
    (folder / "T.tsv").write_text("".join(f"{i}\t{q}\n" for i, q in QUERIES))
    fields = "input --corpus C --fields title text output"
    for readout, settings in SETTINGS.items():
        values = {"backbone": "model", "readout": readout, "max_length": 160, **settings}
        (folder / f"{readout}.yaml").write_text(yaml.safe_dump(values))
        name, topics = f"diffretriever:{readout}.yaml", "--topics T.tsv --output"
        encoder = f"encoder --encoder {name} --fields title text --dimension 32 --device cpu"
        pyserini("encode", f"{fields} --embeddings {readout}.D --to-faiss {encoder}", folder)
        faiss = f"-index {readout}.D --encoder {name} {topics} {readout}.faiss"
        if readout == "mean":
            pyserini("search.faiss", f"-{faiss}", folder)
        with contextlib.chdir(folder):
            for command in (
                *([] if readout == "mean" else [f"search --dense{faiss}"]),
                f"encode --encoder {name} --corpus C --output {readout}.S --workers 0",
                f"index --store {readout}.S --output {readout}.I",
                f"search --index {readout}.I --mode dense {topics} {readout}.dense",
                f"search --index {readout}.S {topics} {readout}.exact",
                f"encode-queries --encoder {name} {topics} {readout}.Q",
            ):
                assert main(command.split()) == 0, command
    topics = "--topics T.tsv --output mean.multi"
    with contextlib.chdir(folder):
        for command in ("index --store mean.S --output mean.I --multi", f"search --index mean.I --mode multi {topics}"):
            assert main(command.split()) == 0, command
    return folder


@pytest.fixture(autouse=True)
def in_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


def encoded(readout: str) -> tuple[Representations, Representations]:
    """Queries and passages."""
    model = DiffRetriever.from_pretrained(f"{readout}.yaml")
    texts = [f"{title} {text}".strip() for _, title, text in PASSAGES]
    return model.encode_query([text for _, text in QUERIES]), model.encode_document(texts)


def assert_run(path: str, scores: np.ndarray, tolerance: float, lexical: bool = False) -> None:
    """The run in ``path`` has ``scores`` [queries, passages]; a lexical list only those above 0."""
    run, column = read_run(Path(path)), {docid: i for i, (docid, *_) in enumerate(PASSAGES)}
    for row, (query, _) in zip(scores, QUERIES, strict=True):
        hits = run.get(query, [])
        assert {docid for docid, _ in hits} == {docid for docid, i in column.items() if not lexical or row[i] > 0}
        for docid, score in hits:
            assert score == pytest.approx(row[column[docid]], abs=tolerance)


@pytest.mark.parametrize("readout", SETTINGS)
def test_every_score(readout: str, capsys: pytest.CaptureFixture[str]) -> None:
    queries, passages = encoded(readout)
    dense = scoring.pooled_scores(queries.pooled, passages.pooled)
    exact = scoring.maxsim(queries.vectors, passages.vectors)
    assert_run(f"{readout}.faiss", dense, 2e-5)
    assert_run(f"{readout}.dense", dense, 2e-3)  # the store holds float16
    assert_run(f"{readout}.exact", exact, 5e-3)
    if readout == "mean":
        assert set(read_run(Path("mean.multi"))) == {qid for qid, _ in QUERIES}
    assert passages.pooled[2].any() == (readout != "mean"), "an empty passage without a prompt has no vector"
    np.testing.assert_allclose(np.load(f"{readout}.Q/vectors.npy"), queries.pooled, atol=1e-5)
    assert Path(f"{readout}.Q/queries.jsonl").is_file() is (readout == "next_token")
    assert Path(f"{readout}.I/lexical").is_dir() is (readout == "next_token")
    explain = ["explain", "--index", f"{readout}.I", "--mode", "dense", "--query", "dense retrieval", "--corpus", "C"]
    capsys.readouterr()
    assert main([*explain, "--docid", "d1", "d3"]) == 0
    assert "d3" in capsys.readouterr().out


def test_promptreps_has_a_lexical_signal() -> None:
    queries, passages = encoded("next_token")
    lexical = scoring.lexical_scores(queries.weights, passages.weights)
    assert (lexical > 0).any()
    arguments = "--impact --encoder diffretriever:next_token.yaml --min-idf -1 --topics T.tsv --output run.lexical"
    pyserini("search.lucene", f"--index next_token.I/lexical {arguments}", Path())
    assert_run("run.lexical", lexical, 0.01, lexical=True)
    hybrid = "search --index next_token.I --mode dense,lexical --topics T.tsv --output run.hybrid"
    assert main(hybrid.split()) == 0
    assert len(read_run(Path("run.hybrid"))) == len(QUERIES)


@pytest.mark.parametrize("readout", ["mean", "last_token"])
def test_lexical_use_is_refused(readout: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, lexical, topics = f"diffretriever:{readout}.yaml", "next_token.I/lexical", "--topics T.tsv --output refused"
    for command in (
        f"index --store {readout}.S --output refused --lexical",
        f"search --index {readout}.I --mode lexical {topics}",
        f"search --index {readout}.I --mode hybrid {topics}",
        f"search --lexical-index {lexical} --encoder {name} {topics}",
    ):
        assert main(command.split()) == 2, command
        assert NO_TERMS in capsys.readouterr().err
    assert not Path("refused").exists()
    for make in (DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder):
        with pytest.raises(ConfigError, match=NO_TERMS):
            make(f"diffretriever-lexical:{readout}.yaml")
    with pytest.raises(ConfigError, match=NO_TERMS):
        _ = DiffRetrieverQueryEncoder(name).lexical
