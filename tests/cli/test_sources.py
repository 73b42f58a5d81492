"""Names of topics and judgements on the command line: folders with their splits, and data sets of ir_datasets."""

from __future__ import annotations

import json
from pathlib import Path

import ir_datasets
import pytest

from diffretriever_pyserini.cli import main


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in BEIR layout, two runs of its test split, and the same judgements in ir_datasets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    (tmp_path / "beir" / "queries.jsonl").write_text('{"_id": "q1", "text": "moon"}\n{"_id": "q2", "text": "sun"}\n')
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\n")
    (tmp_path / "beir" / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\tb\t1\n")
    (tmp_path / "run.txt").write_text("q1 Q0 a 1 2.0 x\nq2 Q0 a 1 2.0 x\nq2 Q0 b 2 1.0 x\n")
    (tmp_path / "other.txt").write_text("q1 Q0 b 1 2.0 x\nq1 Q0 a 2 1.0 x\nq2 Q0 b 1 1.0 x\n")
    return tmp_path


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    assert main(["evaluate", "--run", "run.txt", "--measures", "RECIP_RANK", "--json", *words]) == 0
    means: dict[str, float] = json.loads(capsys.readouterr().out)["run.txt"]
    return means


def test_the_split_of_a_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(capsys, "--qrels", "beir") == {"RECIP_RANK": 1.0}
    assert measured(capsys, "--qrels", "beir", "--split", "dev") == {"RECIP_RANK": 0.5}


def test_topics_of_a_folder_in_a_comparison(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--run", "run.txt", "--compare", "other.txt", "--topics", "beir", "--split", "dev"]
    assert main([*words, "--qrels", "beir"]) == 0
    assert "q2  sun" in capsys.readouterr().out


def test_a_data_set(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (work / "qrels.txt").write_text("q2 0 b 1\n")
    monkeypatch.setattr(ir_datasets.registry, "_registered", dict(ir_datasets.registry._registered))
    ir_datasets.registry.register("tiny", ir_datasets.create_dataset(qrels_trec=str(work / "qrels.txt")))
    assert measured(capsys, "--qrels", "irds:tiny") == {"RECIP_RANK": 0.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--qrels beir/qrels/test.tsv --split dev", "--split belongs to a folder in BEIR layout, and none is given"),
        ("--qrels beir --split train", "the splits of this folder are dev, test"),
        ("--qrels irds:tin", "ir_datasets has no data set 'tin'"),
        ("--qrels none.txt", "none.txt: cannot be read"),
    ],
)
def test_a_source_that_does_not_fit(work: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", "run.txt", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
