"""TREC run files: a written run is read back, and every bad line is named."""

from pathlib import Path

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.runs import read_run, run_writer, write_run


def test_a_run_is_read_back_as_written(tmp_path: Path) -> None:
    run = {"q1": {"a": 1.5, "b": 2.25}, "q2": {"c": -0.5}}
    write_run(tmp_path / "run.txt", run, tag="mine")
    assert (tmp_path / "run.txt").read_text() == (
        "q1 Q0 b 1 2.250000 mine\nq1 Q0 a 2 1.500000 mine\nq2 Q0 c 1 -0.500000 mine\n"
    )
    assert read_run(tmp_path / "run.txt") == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d1 1 0.5", "line 2: 5 columns"),
        ("q1 Q0 d 1 1 0.5 tag", "line 2: 7 columns"),
        ("q1 Q0 d1 1 high tag", "line 2: the score 'high' is not a number"),
        ("q1 Q0 d1 1 nan tag", "line 2: the score nan is not finite"),
        ("q1 Q0 d0 1 0.5 tag", "line 2: passage 'd0' is listed twice for query 'q1'"),
        ("q1\0 Q0 d1 1 0.5 tag", "line 2: holds a NUL character"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "run.txt"
    path.write_text(f"q1 Q0 d0 1 0.9 tag\n{line}\n")
    with pytest.raises(InputError, match=message) as caught:
        read_run(path)
    assert str(path) in str(caught.value)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        read_run(tmp_path / "none.txt")


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), run_writer(tmp_path / "run.txt") as write:
        write("q1", [("a", 1.0)])
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("qid", "docid", "tag"),
    [
        ("q 1", "a", "x"),
        ("q1", "a b", "x"),
        ("q1", "\x85a", "x"),
        ("q1", "a\u2028", "x"),
        ("q1", "", "x"),
        ("q1", "a", ""),
    ],
)
def test_blanks_would_break_the_columns(tmp_path: Path, qid: str, docid: str, tag: str) -> None:
    with pytest.raises(InputError, match="is empty or has blanks"), run_writer(tmp_path / "run.txt", tag) as write:
        write(qid, [(docid, 1.0)])
    assert not list(tmp_path.iterdir())


def test_decimals_keep_close_scores_apart(tmp_path: Path) -> None:
    with run_writer(tmp_path / "run.txt", decimals=9) as write:
        write("q1", [("a", 1 / 1060), ("b", 1 / 1061)])
    assert list(read_run(tmp_path / "run.txt")["q1"].values()) == [0.000943396, 0.000942507]


def test_ties_are_written_as_trec_eval_ranks_them(tmp_path: Path) -> None:
    """Also ties that arise only from the rounding of the file."""
    write_run(tmp_path / "run.txt", {"q1": {"a": 0.10000004, "b": 0.1, "c": 0.2}})
    assert [line.split()[2:5] for line in (tmp_path / "run.txt").read_text().splitlines()] == [
        ["c", "1", "0.200000"],
        ["b", "2", "0.100000"],
        ["a", "3", "0.100000"],
    ]
    means = {docid: evaluate(read_run(tmp_path / "run.txt"), {"q1": {docid: 1}}, ["RR"]).means["RR"] for docid in "cba"}
    assert means == {"c": 1.0, "b": 0.5, "a": pytest.approx(1 / 3)}
