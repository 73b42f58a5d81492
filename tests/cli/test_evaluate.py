"""`diffretriever evaluate`: a table, JSON, per-query values, and notes on queries that were left out."""

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tb\t1\n")
    (tmp_path / "run.txt").write_text("q1 Q0 a 1 2.0 x\nq3 Q0 a 1 2.0 x\n")
    return ["--qrels", str(tmp_path / "test.tsv"), "--run", str(tmp_path / "run.txt")]


def test_table(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files]) == 0
    header, _, row, empty, unjudged = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "nDCG@10", "R@100", "RR@10"]
    assert row.split()[1:] == ["0.5000", "0.5000", "0.5000"]
    assert "1 queries without results (counted 0), for instance q2" in empty
    assert "1 queries not judged, for instance q3" in unjudged


def test_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--json", "--measures", "R@5"]) == 0
    assert json.loads(capsys.readouterr().out) == {files[-1]: {"R@5": 0.5}}


def test_per_query(files: list[str], tmp_path: Path) -> None:
    assert main(["evaluate", *files, "--measures", "R@5", "--per-query", str(tmp_path / "per.tsv")]) == 0
    lines = (tmp_path / "per.tsv").read_text().splitlines()
    assert sorted(line.split("\t")[1:] for line in lines) == [
        ["q1", "R@5", "1.000000"],
        ["q2", "R@5", "0.000000"],
    ]


def test_two_names_of_one_measure_are_two_columns(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--measures", "RR@10", "MRR@10", "RR@10"]) == 0
    header, _, row, *_ = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "RR@10", "MRR@10"] and row.split()[1:] == ["0.5000", "0.5000"]


def test_json_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "qrels.txt").write_text("01 0 a 1\n")
    (tmp_path / "run.txt").write_text("1 Q0 a 1 2.0 x\n")
    assert main(["evaluate", "--qrels", str(tmp_path / "qrels.txt"), "--run", str(tmp_path / "run.txt"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)[str(tmp_path / "run.txt")].values()) == {0.0}
    assert "1 queries without results (counted 0), for instance 01" in err and "not judged, for instance 1" in err


def test_a_grade_out_of_range_is_named_by_line(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--measures", "P@0"]) == 2
    assert "measure 'P@0': cut-off 0 is out of range" in capsys.readouterr().err
    with Path(files[1]).open("a") as file:
        file.write("q1\tb\t99999999999\n")
    assert main(["evaluate", *files]) == 2
    assert "test.tsv, line 4: the grade 99999999999 is out of range: from -1,000,000 to" in capsys.readouterr().err
