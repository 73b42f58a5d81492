"""`diffretriever search`: a run that trec_eval reads, times as JSON, and no partial output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main

pytestmark = pytest.mark.java

TEXTS = {"p1": "the quick brown fox jumps", "p2": "language models predict masked positions", "007": "finance"}
TOPICS = "q1\twhich models predict masked positions\n007\tfinance\nq3\tof the\nq4\tfinance\n"


@pytest.fixture(scope="module")
def name(tiny_dream: Path) -> str:
    return f"diffretriever:{tiny_dream}"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder with the signals ``dense`` and ``lexical`` of three passages, and ``topics.tsv``."""
    from tests.searching.conftest import write_signals

    folder = tmp_path_factory.mktemp("work")
    write_signals(folder, name, TEXTS)
    (folder / "topics.tsv").write_text(TOPICS)
    return folder


def command(work: Path, name: str, *more: str) -> list[str]:
    signals = ["--dense-index", str(work / "dense"), "--lexical-index", str(work / "lexical"), "--encoder", name]
    return ["search", *signals, "--topics", str(work / "topics.tsv"), *more]


def test_a_run_is_written_and_trec_eval_reads_it(
    work: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pytrec_eval

    run_file = tmp_path / "run.txt"
    assert main(command(work, name, "--output", str(run_file), "--tag", "mine", "--threads", "2")) == 0
    rows = [line.split(" ") for line in run_file.read_text().splitlines()]
    assert all(len(row) == 6 and row[1] == "Q0" and row[5] == "mine" for row in rows)
    assert list(dict.fromkeys(row[0] for row in rows)) == ["q1", "007", "q3", "q4"]
    assert next(row[2:4] for row in rows if row[0] == "007") == ["007", "1"]
    assert [row[2:5] for row in rows if row[0] == "007"] == [row[2:5] for row in rows if row[0] == "q4"]
    with run_file.open() as file:
        run = pytrec_eval.parse_run(file)
    measured = pytrec_eval.RelevanceEvaluator({"007": {"007": 1}}, {"recip_rank"}).evaluate(run)
    assert measured == {"007": {"recip_rank": 1.0}}
    out = capsys.readouterr().out
    assert "4 queries (hybrid: dense + lexical, minmax over lists of 1,000, weights dense 1, lexical 1, at most" in out
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


def test_json_has_the_time_of_each_stage(
    work: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--mode", "lexical", "--hits", "1", "--remove-query", "--json", "--output", str(tmp_path / "run.txt")]
    assert main(command(work, name, *more)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mode"] == "lexical"
    assert (summary["queries"], summary["hits"], summary["depth"]) == (4, 1, 1)
    assert (summary["fusion"], summary["exact"]) == (None, False)
    assert summary["without_results"] == ["q3"]  # stopwords only
    assert set(summary["seconds"]) == {"open", "encode", "lexical", "fuse", "write"}
    assert summary["queries/s"] > 0
    first = {line.split()[0]: line.split()[2] for line in (tmp_path / "run.txt").read_text().splitlines()}
    assert first["q1"] == "p2"
    assert first["q4"] == "007"  # it has the text of query 007, for which passage 007 was dropped
    assert first["007"] != "007"


def test_reciprocal_ranks_stay_apart_in_the_file(work: Path, name: str, tmp_path: Path) -> None:
    more = ["--fusion", "rrf", "--rrf-k", "10000", "--mode", "hybrid", "--output", str(tmp_path / "run.txt")]
    assert main(command(work, name, *more)) == 0
    scores = [line.split()[4] for line in (tmp_path / "run.txt").read_text().splitlines() if line.startswith("q3")]
    assert len(scores) == len(TEXTS)
    assert sorted(scores, reverse=True) == scores


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--hits", "0"], "--hits: '0' must be a whole number of at least 1"),
        (["--depth", "10"], "depth=10 must be a whole number of at least hits=1000"),
        (["--rrf-k", "10001"], "--rrf-k: '10001' must be a whole number between 1 and 10,000"),
        (["--alpha", "-1"], "--alpha: '-1' must be a number of at least 0"),
        (["--weights", "sparse=1"], "--weights: sparse=1: 'sparse' must be one of 'dense', 'multi', 'lexical'"),
        (["--weights", "multi=x"], "--weights: multi=x: 'x' must be a number of at least 0"),
        (["--candidates", "0"], "--candidates: '0' must be"),
        (["--tag", "my run"], "the tag 'my run' is empty or has blanks"),
        (["--nprobe", "3"], "has no parameter nprobe"),
        (["--dtype", "float8"], "dtype 'float8' is not one of"),
        (["--index", "I"], "give either --index"),
    ],
)
def test_a_failure_leaves_no_run(
    work: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    try:
        code = main(command(work, name, "--output", str(tmp_path / "run.txt"), *more))
    except SystemExit as stop:  # from argparse
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mode", "lexical", "--nprobe", "3"], "--nprobe has no effect: mode lexical searches lexical"),
        (["--candidates", "9"], "--candidates has no effect: mode hybrid searches dense and lexical"),
        (["--refine", "9"], "--refine has no effect: mode hybrid"),
        (["--mode", "dense", "--alpha", "2"], "--alpha has no effect: mode dense searches dense"),
        (["--mode", "dense", "--fusion", "rrf"], "--fusion has no effect: mode dense searches dense"),
        (["--mode", "dense", "--depth", "2000"], "--depth has no effect: mode dense searches dense"),
    ],
)
def test_options_without_effect_get_a_note(
    work: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    run = ["--output", str(tmp_path / "run.txt")]
    try:
        main(command(work, name, *run, *more))
    finally:
        assert capsys.readouterr().err.count(f"note: {message}") == 1


def test_an_older_run_survives_a_failure(work: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("old\n")
    assert main(command(work, name, "--output", str(tmp_path / "run.txt"), "--nprobe", "3")) == 2
    assert (tmp_path / "run.txt").read_text() == "old\n"


def test_invalid_paths_are_named(work: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output in (tmp_path, tmp_path / "none/run.txt"):
        assert main(command(work, name, "--output", str(output))) == 2
        assert f"{output}: cannot be written" in capsys.readouterr().err
    assert main(["search", "--topics", str(work / "none.tsv"), "--output", "x", "--index", str(work)]) == 2
    assert "none.tsv: no such topic file" in capsys.readouterr().err
    topics, output = str(work / "topics.tsv"), str(tmp_path / "run.txt")
    assert main(["search", "--topics", topics, "--output", output, "--index", str(work / "dense")]) == 2
    assert "it is a FAISS folder" in capsys.readouterr().err


def test_the_topic_file_is_not_overwritten(work: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    topics = work / "topics.tsv"
    before = topics.read_text()
    assert main(command(work, name, "--output", str(topics))) == 2
    assert "would overwrite --topics" in capsys.readouterr().err
    assert topics.read_text() == before
