"""Tables: alignment and the figures in them."""

from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.report import markdown_table, measures_table, text_table


def test_columns_are_aligned() -> None:
    assert text_table(["run", "nDCG@10"], [["BM25", "0.5"], ["a long name", "0.25"]]).splitlines() == [
        "run          nDCG@10",
        "-----------  -------",
        "BM25             0.5",
        "a long name     0.25",
    ]


def test_markdown() -> None:
    assert markdown_table(["run", "x"], [["BM25", "1"]]) == "| run | x |\n| --- | ---: |\n| BM25 | 1 |"


def test_each_run_has_its_line() -> None:
    qrels = {"q1": {"a": 1}}
    evaluations = {"good": evaluate({"q1": {"a": 1.0}}, qrels), "bad": evaluate({}, qrels)}
    lines = measures_table(evaluations, ["nDCG@10", "RR@10"]).splitlines()
    assert lines[2].split() == ["good", "1.0000", "1.0000"]
    assert lines[3].split() == ["bad", "0.0000", "0.0000"]
