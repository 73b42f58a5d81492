"""Tables: their alignment and figures."""

from __future__ import annotations

import io

import pytest

from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.report import (
    captured,
    markdown_table,
    measures_table,
    plain_table,
    text_console,
    text_table,
)


def test_columns_are_aligned() -> None:
    assert text_table(["run", "nDCG@10", "R@1"], [["BM25", "0.5", "1"], ["a long name", "0.25", "-"]]).splitlines() == [
        "run          nDCG@10  R@1",
        "------------ -------- ---",
        "BM25             0.5    1",
        "a long name     0.25    -",
    ]


def test_wide_characters_take_two_columns() -> None:
    lines = text_table(["run", "x"], [["東京", "1"], ["e\u0301", "2"]]).splitlines()
    assert lines[2:] == ["東京  1", "e\u0301     2"]


def test_nothing_is_cut_or_read_as_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run = "[red]runs[/red]/:smile:/" + "x" * 300
    header, _, row = text_table(["run", "value"], [[run, "123456789.123456789"]]).splitlines()
    assert row.split() == [run, "123456789.123456789"] and "\x1b" not in header + row


def test_only_terminals_get_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    table = plain_table(["run", "x"], [["BM25", "1"]])
    assert "\x1b[1m" in captured(text_console(Terminal(), 80), table)
    assert "\x1b" not in captured(text_console(io.StringIO(), 80), table)


def test_markdown() -> None:
    assert markdown_table(["run", "x"], [["BM25", "1"]]) == "| run | x |\n| --- | ---: |\n| BM25 | 1 |"


def test_each_run_has_one_line() -> None:
    qrels = {"q1": {"a": 1}}
    evaluations = {"good": evaluate({"q1": {"a": 1.0}}, qrels), "bad": evaluate({}, qrels)}
    lines = measures_table(evaluations, ["nDCG@10", "RR@10"]).splitlines()
    assert lines[2].split() == ["good", "1.0000", "1.0000"]
    assert lines[3].split() == ["bad", "0.0000", "0.0000"]
