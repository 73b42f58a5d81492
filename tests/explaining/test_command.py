"""`diffretriever explain` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main

from .conftest import PASSAGES, SCRIPT

pytestmark = pytest.mark.java
QUERY = "dense retrieval of passages"
Out = pytest.CaptureFixture[str]


def command(work: Path, *more: str) -> list[str]:
    return ["explain", "--index", str(work / "INDEX"), "--query", QUERY, *more]


def unmarked(out: str) -> str:
    """``out`` on one line, without the stars around matched words."""
    return " ".join(out.split()).replace("*", "")


def test_text_page_and_json(work: Path, tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = tmp_path / "why.html"
    arguments = command(work, "--docid", "p1", SCRIPT, "p1", "--corpus", str(work / "corpus.jsonl"))
    assert main([*arguments, "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert out.count("1. The result") == 2  # each passage once
    assert PASSAGES["p1"] in unmarked(out) and "*dense* retrieval of *passages*, " in " ".join(out.split())
    assert out.rstrip().endswith(f"page: {page}")
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("page:"))
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in html and "<script" not in html and html.count("<article") == 2

    assert main([*arguments, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["docid"], second["docid"]) == ("p1", SCRIPT)
    assert first["result"]["returned"] and first["terms"]["score"] == first["indexed_terms"]["score"] > 0
    assert len(first["passage"]["positions"]) == 3 and first["notes"] == []
    assert f"{first['vectors']['score']:.4f}" in out
    matched = {term["shown"]: term for term in first["terms"]["matched"]}
    assert matched["##s"]["query_words"] == ["passages"] and "passages" in matched["##s"]["passage_words"]


def test_the_result_is_in_the_run_of_search(work: Path, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "topics.tsv").write_text(f"1\t{QUERY}\n")
    run = tmp_path / "run.txt"
    options = [
        "--mode",
        "dense,multi,lexical",
        "--weights",
        "multi=2",
        "--alpha",
        "0.5",
        "--hits",
        "5",
        "--depth",
        "9",
        "--k-query",
        "2",
    ]
    topics = ["--topics", str(tmp_path / "topics.tsv"), "--output", str(run)]
    assert main(["search", "--index", str(work / "INDEX"), *options, *topics]) == 0
    capsys.readouterr()
    lines = {line.split()[2]: line.split() for line in run.read_text().splitlines()}
    assert len(lines) == 5
    assert main(command(work, *options, "--json", "--docid", *lines, "empty")) == 0
    for one in json.loads(capsys.readouterr().out):
        result = one["result"]
        assert result["returned"] is (one["docid"] in lines)
        if result["returned"]:
            _, _, _, rank, score, _ = lines[one["docid"]]
            assert (result["rank"], f"{result['score']:.9f}") == (int(rank), score)


def test_in_a_pipe_a_sentence_is_a_line(work: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(command(work, "--docid", "p1", "--corpus", str(work / "corpus.jsonl"))) == 0
    out = capsys.readouterr().out
    assert "   *dense* retrieval of *passages*, indexing words" in out.splitlines()
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_without_docids_the_first_passages_are_explained(work: Path, capsys: Out) -> None:
    assert main(["search", "--index", str(work / "INDEX"), "--query", QUERY, "--json"]) == 0
    ranked = [hit["docid"] for hit in json.loads(capsys.readouterr().out)["hits"]]
    corpus = ["--corpus", str(work / "corpus.jsonl")]
    assert main(command(work, "--json", *corpus)) == 0
    explained = json.loads(capsys.readouterr().out)
    assert [(one["docid"], one["result"]["rank"]) for one in explained] == list(zip(ranked[:3], (1, 2, 3), strict=True))
    assert all(one["passage"] is not None for one in explained)
    assert main(command(work, "--json", "--first", "5", "--hits", "2")) == 0
    assert [one["docid"] for one in json.loads(capsys.readouterr().out)] == ranked[:2]
    assert main(["explain", "--index", str(work / "INDEX"), "--query", "zebra", "--mode", "lexical"]) == 0
    assert capsys.readouterr().out == "No passage matches.\n"


def test_a_text_as_an_option(work: Path, capsys: Out) -> None:
    assert main(command(work, "--docid", "p1", "--text", PASSAGES["p1"])) == 0
    out = capsys.readouterr().out
    assert PASSAGES["p1"] in unmarked(out) and "Note" not in out


def test_without_a_text_a_note_says_how_to_give_it(work: Path, capsys: Out) -> None:
    assert main(command(work, "--docid", "p1")) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Give the corpus with --corpus" in out and "MaxSim with the index's vectors" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--docid", "p77"], "holds no passage 'p77'"),
        (["--docid", "p1", "p2", "--text", "x"], "--docid names 2 passages"),
        (["--text", "x"], "there is no --docid"),
        (["--docid", "p1", "--first", "2"], "not allowed with argument --docid"),
        (["--first", "0"], "--first: '0' must be a whole number of at least 1"),
        (["--corpus", "no-such-file"], "no such file"),
        (["--docid", "p1", "--top", "0"], "--top: '0' must be a whole number of at least 1"),
        (["--docid", "p1", "--html", "corpus.jsonl"], "ends in .html"),
        (["--docid", "p1", "--html", "no/such/folder/x.html"], "there is no folder"),
        (["--docid", "p1", "--corpus", "no-such-file"], "no such file"),
        (["--docid", "p1", "--mode", "sparse"], "'sparse' is not one of"),
        (["--docid", "p1", "--weights", "multi"], "write a signal and a number"),
        (["--docid", "p1", "--hits", "0"], "--hits: '0' must"),
        (["--docid", "p1", "--hits", "9", "--depth", "8"], "at least hits=9"),
    ],
)
def test_arguments_that_are_refused(work: Path, capsys: Out, more: list[str], message: str) -> None:
    try:
        code = main(command(work, *more))
    except SystemExit as stop:  # from argparse
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_docid_may_be_repeated(work: Path, capsys: Out) -> None:
    assert main(command(work, "--docid", "p1", "--docid", "p2", "--json")) == 0
    assert [one["docid"] for one in json.loads(capsys.readouterr().out)] == ["p1", "p2"]


def test_bm25_alone_has_no_explanation(work: Path, tmp_path: Path, capsys: Out) -> None:
    index = ["--store", str(work / "store"), "--output", str(tmp_path / "I"), "--text", "--quiet"]
    assert main(["index", *index]) == 0
    arguments = ["explain", "--index", str(tmp_path / "I"), "--query", QUERY, "--docid", "p1", "--mode", "bm25"]
    assert main(arguments) == 2
    assert "mode bm25 alone uses no model" in capsys.readouterr().err


def test_an_index_without_the_signal(work: Path, capsys: Out) -> None:
    arguments = ["explain", "--dense-index", str(work / "INDEX" / "dense"), "--query", QUERY, "--docid", "p1"]
    assert main([*arguments, "--mode", "multi"]) == 2
    assert "has no multi signal" in capsys.readouterr().err


def test_help_shows_examples_and_options(capsys: Out) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    out = capsys.readouterr().out
    assert "examples:" in out and "--corpus" in out and "--alpha" in out
