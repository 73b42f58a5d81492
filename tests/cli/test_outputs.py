"""Commands refuse paths that they must not write to; no test here loads a model."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inputs of every command, in the current directory."""
    (tmp_path / "qrels.txt").write_text("1 0 a 1\n")
    for name, order in (("r.txt", "ab"), ("other.txt", "ba")):
        (tmp_path / name).write_text(f"1 Q0 {order[0]} 1 2.0 t\n1 Q0 {order[1]} 2 1.0 t\n")
    (tmp_path / "t.tsv").write_text("1\tmoon landing\n")
    for folder in ("corpus", "ix", "st", "texts", "beir/qrels"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "corpus" / "c.jsonl").write_text('{"id": "p1", "contents": "plants use sunlight"}\n')
    (tmp_path / "texts" / "a.txt").write_text("The moon.")
    (tmp_path / "beir" / "corpus.jsonl").write_text('{"_id": "p1", "title": "", "text": "plants"}\n')
    (tmp_path / "beir" / "queries.jsonl").write_text('{"_id": "1", "text": "plants"}\n')
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tp1\t1\n")
    (tmp_path / "train.jsonl").write_text('{"query": "moon", "positive_passages": [{"docid": "1", "text": "a"}]}\n')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.yaml").write_text("model: m\ndata: train.jsonl\noutput: out\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its content."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


COMPARE = "evaluate --qrels qrels.txt --run r.txt --compare other.txt"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate --qrels qrels.txt --run r.txt --per-query r.txt", "--per-query r.txt would overwrite --run r.txt"),
        ("evaluate --qrels qrels.txt --run r.txt --per-query ./qrels.txt", "would overwrite --qrels"),
        (f"{COMPARE} --per-query other.txt", "would overwrite --compare other.txt"),
        (f"{COMPARE} --deltas qrels.txt", "--deltas qrels.txt would overwrite --qrels qrels.txt"),
        (f"{COMPARE} --deltas r.txt", "would overwrite --run"),
        (f"{COMPARE} --deltas t.tsv --topics t.tsv", "would overwrite --topics"),
        (f"{COMPARE} --plot r.txt", "would overwrite --run"),
        (f"{COMPARE} --deltas new --per-query new", "--per-query and --deltas are one file"),
        ("search --index ix --topics t.tsv --output t.tsv", "would overwrite --topics t.tsv"),
        ("search --index ix --topics t.tsv --output ix/r.txt", "would be inside --index ix"),
        ("search --dense-index ix --topics t.tsv --output ix/index", "would be inside --dense-index ix"),
        ("explain --index ix --query q --docid p1 --html corpus/a.html --corpus corpus", "would be inside --corpus"),
        ("encode-queries --topics t.tsv --output t.tsv", "would overwrite --topics"),
        ("encode-queries --topics out/t.tsv --output out", "would replace the folder of --topics out/t.tsv"),
        ("index --store st --output st", "would overwrite --store st"),
        ("index --store out/st --output out", "would replace the folder of --store out/st"),
        ("encode --corpus corpus --output corpus", "would overwrite --corpus corpus"),
        ("encode --corpus corpus --output corpus/st", "would be inside --corpus corpus"),
        ("encode --corpus corpus/c.jsonl --output corpus", "corpus holds c.jsonl and is no store"),
        ("encode --corpus corpus/c.jsonl --output corpus/c.jsonl", "c.jsonl is no folder"),
        ("mine-negatives --documents texts --output texts/mined", "would be inside --documents texts"),
        ("mine-negatives --pairs train.jsonl --corpus corpus --output corpus", "would overwrite --corpus"),
        ("mine-negatives --pairs out/a.jsonl --output out", "would replace the folder of --pairs"),
        ("demo --dataset beir --output beir", "would replace the folder of --dataset"),
        ("train --config out/train.yaml", "--output out/train.yaml would overwrite --config out/train.yaml"),
    ],
)
def test_no_output_is_an_input(work: Path, command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "out" / "st").mkdir()
    for name in ("t.tsv", "a.jsonl"):
        (work / "out" / name).write_text((work / name.replace("a.", "train.")).read_text())
    before = contents(work)
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert contents(work) == before


def test_a_link_to_an_input_is_the_input(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "link").symlink_to("r.txt")
    assert main(["evaluate", "--qrels", "qrels.txt", "--run", "r.txt", "--per-query", "link"]) == 2
    assert "--per-query link would overwrite --run r.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "search --index ix --topics t.tsv --output",
        "encode-queries --topics t.tsv --output",
        "encode --corpus corpus --output",
        "index --store st --output",
        "explain --index ix --query q --docid p1 --html",
        "evaluate --qrels qrels.txt --run r.txt --per-query",
        f"{COMPARE} --deltas",
        f"{COMPARE} --plot",
        "mine-negatives --documents texts --output",
        "demo --output",
    ],
)
def test_an_empty_name_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--output "$OUT"`` where OUT is not set."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), ""])
    assert ended.value.code == 2
    assert "'' must be a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["encode-queries --topics t.tsv --output .", "mine-negatives --documents texts --output ."]
)
def test_the_current_directory_is_not_replaced(work: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "current").mkdir()
    os.chdir(work / "current")
    assert main(command.replace("t.tsv", "../t.tsv").replace("texts", "../texts").split()) == 2
    assert "is the current directory" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--per-query", "--deltas"])
def test_tables_are_written_to_pipes_and_through_links(work: Path, option: str) -> None:
    import threading

    os.mkfifo(work / "pipe")
    (work / "deep").mkdir()
    (work / "link").symlink_to("deep/table.tsv")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((work / "pipe").read_text()))
    reader.start()
    for name in ("pipe", "link"):
        assert main([*COMPARE.split(), option, name]) == 0
    reader.join()
    assert read == [(work / "deep" / "table.tsv").read_text()] and read[0].count("\n") > 1
    assert stat.S_ISFIFO((work / "pipe").stat().st_mode) and (work / "link").is_symlink()


@pytest.mark.parametrize(
    "command",
    [
        "search --index ix --topics t.tsv --output none/r.txt",
        "evaluate --qrels qrels.txt --run r.txt --per-query none/q.tsv",
        f"{COMPARE} --deltas none/d.tsv",
        f"{COMPARE} --plot none/d.png",
        "explain --index ix --query q --docid p1 --html none/a.html",
        "encode --corpus none --output new",
        "index --store none --output new",
        "encode-queries --topics none/t.tsv --output new",
        "mine-negatives --documents none --output new",
        "mine-negatives --pairs none.jsonl --output new",
        "demo --dataset none --output new",
        "train --model diffretriever --data none.jsonl --output new",
        "evaluate --qrels none/q.txt --run r.txt",
        "evaluate --qrels qrels.txt --run none/r.txt",
    ],
)
def test_a_folder_that_does_not_exist_is_one_sentence(
    work: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("diffretriever: error: ") and "none" in lines[0]
    assert not (work / "none").exists()
    assert command.startswith("train") or not (work / "new").exists()  # a run keeps its settings from the start


@pytest.mark.parametrize(
    "command",
    [
        "encode --corpus corpus --output new",
        "mine-negatives --documents texts --output new",
        "train --model diffretriever --data corpus --output new",
    ],
)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_broken_link_or_a_pipe_inside_a_folder_is_named(
    work: Path, command: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (work / "corpus" / "d.jsonl", work / "texts" / "d.txt"):
        if kind == "link":
            path.symlink_to("/nowhere/d")
        else:
            os.mkfifo(path)
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert ("d.jsonl: " in error or "d.txt: " in error) and len(error.splitlines()) == 1
    assert ("a broken link to /nowhere/d" if kind == "link" else "no regular file") in error


@pytest.mark.parametrize(
    "command",
    [
        "encode --corpus mined/corpus --output st2 --encoder none/such",
        "train --model diffretriever --data mined/train.jsonl --output new --batch-size 1 --negatives 1 --max-steps 1",
        "encode-queries --topics mined/t.tsv --output new --encoder none/such",
        "evaluate --qrels mined/qrels.txt --run mined/r.txt",
        "search --index mined --topics t.tsv --output r2.txt",
    ],
)
def test_every_reader_restores_a_folder_that_a_kill_left_without_its_name(work: Path, command: str) -> None:
    """As after a kill between the two renames on a file system that cannot exchange names."""
    older = work / "mined.replaced"
    (older / "corpus").mkdir(parents=True)
    for name in ("qrels.txt", "r.txt", "t.tsv", "train.jsonl"):
        (older / name).write_text((work / name).read_text())
    (older / "corpus" / "corpus.jsonl").write_text((work / "corpus" / "c.jsonl").read_text())
    (older / ("index.json" if "--index" in command else "mined.json")).write_text("{}")
    before = contents(older)
    main(command.split())
    assert contents(work / "mined") == before and not older.exists()
