"""`diffretriever demo` in full: Pyserini's commands in subprocesses on a tiny collection, and their output files."""

import gzip
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever, scoring
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.runs import read_run

from .. import warm

TOPICS = ["volcano eruption", "sourdough bread", "chess opening", "solar panel", "jazz trumpet", "coral reef"]
DETAILS = ["history and origins of", "a beginner's guide to", "common mistakes with", "the science behind", "famous"]
QUERIES = {f"{number:03d}": f"tell me about {topic}" for number, topic in enumerate(TOPICS, start=1)}

pytestmark = [pytest.mark.java, pytest.mark.slow]


def demo(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [warm.python(), "-m", "diffretriever_pyserini", "demo", *map(str, arguments)]
    environment = os.environ | {"PYTHON_EXEC": warm.python()}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def write_beir(folder: Path) -> Path:
    """30 passages, gzipped; the folder's name contains words that Pyserini takes for known collections."""
    (folder / "qrels").mkdir(parents=True)
    passages = [
        {"_id": f"d{i:02d}", "title": topic.title(), "text": f"{DETAILS[i % 5]} {topic}, part {i}. Nothing else."}
        for i, topic in enumerate(topic for topic in TOPICS for _ in DETAILS)
    ]
    lines = "".join(json.dumps(passage) + "\n" for passage in passages)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": t}) + "\n" for q, t in QUERIES.items()))
    judged = [f"{qid}\td{5 * i + j:02d}\t{2 if j == 0 else 1}\n" for i, qid in enumerate(QUERIES) for j in range(5)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_dream: Path) -> tuple[Path, str]:
    """Output folder and printed text of one demo; with K = 1 the tiny model's zero-shot vectors are not cut."""
    folder = tmp_path_factory.mktemp("demo")
    dataset = write_beir(folder / "beir-cacm-like")
    done = demo(folder, "--dataset", dataset, "--encoder", tiny_dream, "--output", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", done.stdout


def test_each_command_is_shown_and_each_run_named(finished: tuple[Path, str]) -> None:
    out, printed = finished
    assert printed.count("$ python -m pyserini.") == 8
    assert "beir-cacm-like, 30 passages, 6 queries" in printed
    for name in ("bm25", "dense", "lexical", "hybrid"):
        assert str(Path("out") / f"run.{name}.txt") in printed
        assert (out / f"run.{name}.txt").is_file()
    assert not out.with_name("out.unfinished").exists()


def test_the_printed_measures_are_those_of_the_run_files(finished: tuple[Path, str]) -> None:
    out, printed = finished
    qrels = {qid: {f"d{5 * i + j:02d}": 2 if j == 0 else 1 for j in range(5)} for i, qid in enumerate(QUERIES)}
    recorded = json.loads((out / "demo.json").read_text())["measures"]
    for name in ("BM25", "dense", "lexical", "hybrid"):
        means = evaluate(read_run(out / f"run.{name.lower()}.txt"), qrels, ["nDCG@10", "R@100"]).means
        assert recorded[name] == means
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{name} ")]
        assert line.split() == [name, f"{means['nDCG@10']:.4f}", f"{means['R@100']:.4f}"]
    assert recorded["BM25"]["nDCG@10"] > 0.9  # the words of each query occur only in its passages
    assert recorded["dense"]["R@100"] == 1.0  # 30 passages: all of them are returned


def test_the_last_line_asks_a_question_that_works(finished: tuple[Path, str]) -> None:
    out, printed = finished
    (command,) = [line.strip() for line in printed.splitlines() if line.strip().startswith("diffretriever search")]
    words = [warm.python(), "-m", "diffretriever_pyserini", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=out.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "*volcano* *eruption*" in done.stdout  # the text of one of five passages about the first query's topic
    assert "signal" in printed.partition("First hits")[2].partition("run ")[0]


def test_the_dense_run_is_the_models_own_scores(finished: tuple[Path, str], tiny_dream: Path) -> None:
    out, _ = finished
    model = DiffRetriever.from_pretrained(str(tiny_dream))
    corpus = [json.loads(line) for line in (out / "corpus" / "corpus.jsonl").read_text().splitlines()]
    passages = model.encode([record["contents"] for record in corpus], side="passage", max_length=256)
    queries = model.encode(list(QUERIES.values()), side="query")
    scores = scoring.pooled_scores(queries.pooled, passages.pooled)
    run = read_run(out / "run.dense.txt")
    for row, qid in zip(scores, QUERIES, strict=True):
        expected = {record["id"]: score for record, score in zip(corpus, row.tolist(), strict=True)}
        assert run[qid] == pytest.approx(expected, abs=2e-5)


def test_three_queries_are_shown_with_grades(finished: tuple[Path, str]) -> None:
    _, printed = finished
    assert [line for line in printed.splitlines() if line.startswith("query ")] == [
        f"query {qid}: {QUERIES[qid]}" for qid in ("001", "003", "005")
    ]
    assert printed.count("  1. [") == 3


def test_a_broken_collection_is_named_and_leaves_no_output(tmp_path: Path, tiny_dream: Path) -> None:
    dataset = write_beir(tmp_path / "set")
    (dataset / "queries.jsonl").write_text('{"_id": "001", "text": "fine"}\n{"_id": "002", "te')
    done = demo(tmp_path, "--dataset", dataset, "--encoder", tiny_dream, "--output", "out")
    assert done.returncode == 2
    assert "queries.jsonl, line 2: broken JSON" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_command_that_fails_is_shown_and_leaves_no_output(tmp_path: Path, tiny_dream: Path) -> None:
    dataset = write_beir(tmp_path / "set")
    broken = tmp_path / "broken-model"
    broken.mkdir()
    for file in tiny_dream.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not weights")
    done = demo(tmp_path, "--dataset", dataset, "--encoder", broken, "--output", "out")
    assert done.returncode == 2
    assert "[1/8]" in done.stdout
    assert "the command ended with exit code" in done.stderr
    assert "Its last lines" in done.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.unfinished" / "logs" / "1.log").is_file()


def test_an_unknown_model_is_named_before_anything_is_written(tmp_path: Path) -> None:
    done = demo(tmp_path, "--dataset", write_beir(tmp_path / "set"), "--encoder", "nobody/nothing", "--output", "out")
    assert done.returncode == 2
    assert "nobody/nothing" in done.stderr
    assert not (tmp_path / "out.unfinished").exists()
