"""An experiment from end to end on a tiny collection: killed once, continued, compared, and the commands it shows."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.model.prebuilt import prebuilt_values

from ..warm import python

TEXTS = {
    "p1": "Plants turn sunlight, water and carbon dioxide into sugar by photosynthesis.",
    "p2": "The tower in Tokyo is 333 metres high and was built in 1958.",
    "p3": "In July 1969 two astronauts walked on the Moon.",
    "p4": "JavaScript runs in every browser and on many servers.",
    "007": "Spies drive fast cars and drink martini.",
}
QUERIES = {"q1": ("photosynthesis in plants", "p1"), "q2": ("Tokyo tower metres", "p2"), "007": ("fast cars", "p4")}
ROWS = [
    {"collection": "tiny", "mode": "dense"},
    {"collection": "tiny", "mode": "multi,lexical", "published": 0.0},
    {"collection": "tiny", "mode": "bm25", "measure": "R@2", "published": 2 / 3, "source": "by hand"},
    {"collection": "tiny", "mode": "bm25", "measure": "RR@10"},
    {"collection": "mean", "mode": "dense"},
]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A YAML file beside its collection, in which a query has the id of a passage."""
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": docid, "title": "", "text": text} for docid, text in TEXTS.items()]
    queries = [{"_id": qid, "text": text} for qid, (text, _) in QUERIES.items()]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    judged = "".join(f"{qid}\t{docid}\t1\n" for qid, (_, docid) in QUERIES.items())
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    collections = {"tiny": {"folder": "tiny", "remove_query": True}, "mean": {"mean_of": ["tiny"]}}
    config = prebuilt_values("diffretriever") or {}
    values = {"description": "a tiny collection", "config": config, "multi": "exact", "rows": ROWS}
    values["collections"] = collections
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return path


def test_killed_and_continued(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment.parent
    monkeypatch.chdir(folder)
    words = ["reproduce", "run", "tiny.yaml", "--output", "out", "--threads", "1"]
    record = Path("out", "steps.json")
    command = [python(), "-m", "diffretriever_pyserini", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not (record.is_file() and "encode-tiny" in json.loads(record.read_text())):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = json.loads(record.read_text())
    assert not Path("out", "results.json").exists()

    monkeypatch.setattr(sys, "executable", python())  # of Pyserini's commands
    assert main(words) == 1, capsys.readouterr().err  # one score differs
    assert "encode tiny: done before" in capsys.readouterr().out
    after = json.loads(record.read_text())
    assert all(after[step] == entry for step, entry in before.items())
    assert set(after) == {
        *("encode-tiny", "index-tiny", "search-tiny-dense", "search-tiny-multi+lexical"),
        *("bm25-index-tiny", "search-tiny-bm25"),
    }
    results = json.loads(Path("out", "results.json").read_text())
    assert [(row["mode"], row["status"]) for row in results["rows"]] == [
        *(("dense", "measured"), ("multi,lexical", "differs"), ("bm25", "ok"), ("bm25", "measured")),
        ("dense", "measured"),
    ]
    scores = [row["measured"] for row in results["rows"]]
    assert scores[0] == scores[4] > 0.6  # the mean of one collection
    assert scores[2] == pytest.approx(2 / 3)  # the passage with the third query's id is removed
    page = Path("out", "results.md").read_text()
    assert "| tiny | hybrid (multi + lexical) | nDCG@10 | 0.0000 |" in page
    assert "- by hand" in page and "diffretriever encode --encoder out/model.yaml" in page

    run_file = Path("out", "runs", "tiny.multi+lexical.txt")
    expected = run_file.read_bytes()
    assert b"q1 Q0 p1 1 " in expected and b"007 Q0 007" not in expected
    run_file.unlink()
    assert main(shlex.split(after["search-tiny-multi+lexical"]["command"])[1:]) == 0
    assert run_file.read_bytes() == expected  # the shown command gives the same run

    with Path("tiny", "queries.jsonl").open("a") as queries, Path("tiny", "qrels", "test.tsv").open("a") as judged:
        queries.write('{"_id": "q4", "text": "walking on the moon"}\n')
        judged.write("q4\tp3\t1\n")
    capsys.readouterr()
    assert main([*words, "--modes", "dense"]) == 0
    assert "encode tiny: done before" in capsys.readouterr().out  # only the search is done again
    assert "q4 Q0 p3 1 " in Path("out", "runs", "tiny.dense.txt").read_text()


def test_what_is_missing_is_said_before_anything_is_made(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(experiment.parent)
    Path("tiny", "queries.jsonl").rename("elsewhere.jsonl")
    assert main(["reproduce", "run", "tiny.yaml", "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no queries.jsonl" in error
    assert {path.name for path in Path("out").iterdir()} == {"lock"}
    Path("elsewhere.jsonl").rename(Path("tiny", "queries.jsonl"))
    values = json.loads(experiment.read_text())
    values["config"]["adapter"] = "nobody/nothing"
    experiment.write_text(json.dumps(values))
    assert main(["reproduce", "run", "tiny.yaml", "--output", "out"]) == 2
    assert "model 'nobody/nothing' is not on this machine" in capsys.readouterr().err
    assert main(["reproduce", "show"]) == 2
    assert main(["reproduce", "list", "bm25"]) == 2
