"""The commands, from a corpus to a run, with a small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini import Corpus, DiffRetriever, EncodeOptions, encode_corpus, open_index
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.evaluation.runs import read_run

from ..encoding.conftest import passages, write_corpus
from ..model.conftest import save_masked_lm

pytest.importorskip("qdrant_edge")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its store, a collection of it in ``qdrant``, topics, and another model."""
    folder = tmp_path_factory.mktemp("commands")
    for name in ("bert", "other"):
        save_masked_lm(folder / name, **({} if name == "bert" else {"num_hidden_layers": 1}))
    write_corpus(folder / "corpus.jsonl", passages(60))
    model = DiffRetriever.from_pretrained(str(folder / "bert"), k_passage=3)
    options = EncodeOptions(rows_per_part=32, workers=0, dtype="float32")
    encode_corpus(model, Corpus(folder / "corpus.jsonl"), folder / "store", options)
    (folder / "topics.tsv").write_text(
        "q1\tdense retrieval\nq2\tvector index\nd3\tsearch with a model\nempty\tthe of\n"
    )
    texts = ["--texts", str(folder / "corpus.jsonl")]
    assert _main("export qdrant --collection c", folder, "--store store --path qdrant", *texts) == 0
    return folder


def _main(command: str, folder: Path, options: str, *more: str) -> int:
    """Run a command whose ``options`` name files of ``folder``."""
    names = [str(folder / word) if not word.startswith("-") else word for word in options.split()]
    return main([*command.split(), *names, *more])


def test_a_run_is_that_of_the_store(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = "--qdrant qdrant --topics topics.tsv --output run.txt"
    assert _main("search --collection c --mode multi --hits 20 --json", folder, files) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["mode"], figures["exact"], figures["queries"]) == ("multi", False, 4)
    topics = dict(line.split("\t") for line in (folder / "topics.tsv").read_text().splitlines())
    with open_index(folder / "store") as index:
        expected = index.search(topics, "multi", hits=20)
    run = read_run(folder / "run.txt")
    for qid in topics:
        assert run[qid] == pytest.approx(dict(expected[qid]), abs=1e-4)
    assert _main("search --collection c --fusion rrf --ef-search 50", folder, files) == 0
    assert "rrf over lists of 1,000" in capsys.readouterr().out
    assert _main("search --collection c --mode hybrid --remove-query --scan", folder, files) == 0
    assert "d3" not in read_run(folder / "run.txt")["d3"]


def test_one_question(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = "search --collection c --mode multi --hits 60"
    assert _main(f"{asked} --json", folder, "--qdrant qdrant", "--query", "the Retrieval") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["rank"] for hit in hits] == [*range(1, len(hits) + 1)]
    rows = {row["id"]: row for row in map(json.loads, (folder / "corpus.jsonl").read_text().splitlines())}
    for hit in hits:
        row = rows[hit["docid"]]
        assert (hit["title"], hit["snippet"]) == (row["title"], row["text"])
        words = {hit["snippet"][start:end] for start, end in hit["marks"]}
        assert words == ({"retrieval"} if "retrieval" in hit["snippet"].split() else set())
    assert _main(asked, folder, "--qdrant qdrant", "--query", "the Retrieval") == 0
    assert "*retrieval*" in capsys.readouterr().out

    assert _main("export qdrant --collection bare --quiet", folder, "--store store --path qdrant") == 0
    assert _main("search --collection bare --hits 1", folder, "--qdrant qdrant", "--query", "retrieval") == 0
    hit, note = capsys.readouterr().out.splitlines()
    assert hit.startswith("1.  ") and "run `diffretriever export qdrant` again with --texts CORPUS" in note


def test_info_and_delete(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("export qdrant --collection d --quiet", folder, "--store store --path qdrant") == 0
    (tmp_path / "docids.txt").write_text("d1\nd59\nnever\n")
    assert (
        _main("qdrant delete --collection d", folder, "--qdrant qdrant", "--docids", str(tmp_path / "docids.txt")) == 0
    )
    said = capsys.readouterr().out
    assert "2 passages deleted from d" in said and "1 id, for instance never" in said
    assert _main("qdrant info --collection d --json", folder, "--qdrant qdrant") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["points"], facts["complete"], facts["unfinished"]) == (58, True, None)
    assert facts["layout"] == {"dimension": 32, "k": 3, "datatype": "float32", "quantization": None}
    assert _main("qdrant info --collection d", folder, "--qdrant qdrant") == 0
    assert "3 x 32 float32 per passage" in capsys.readouterr().out
    (tmp_path / "docids.txt").write_text("d2\nd3 d4\n")
    assert (
        _main("qdrant delete --collection d", folder, "--qdrant qdrant", "--docids", str(tmp_path / "docids.txt")) == 2
    )
    assert "docids.txt, line 2: 2 columns instead of one docid per line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "files", "message"),
    [
        (
            "search --collection c --encoder OTHER",
            "--qdrant qdrant --topics topics.tsv --output r",
            "of another encoder",
        ),
        (
            "search --collection c",
            "--qdrant qdrant --index store --topics topics.tsv --output r",
            "--index has no meaning",
        ),
        ("search --collection c", "--qdrant qdrant --index store --query tower", "--index has no meaning"),
        ("search", "--qdrant qdrant --topics topics.tsv --output r", "--qdrant needs --collection NAME"),
        ("search --collection c", "--index store --topics topics.tsv --output r", "belong to --qdrant"),
        (
            "search --collection c",
            "--qdrant qdrant --topics topics.tsv --output qdrant/c/x",
            "would be inside --qdrant",
        ),
        (
            "search --collection c --mode bm42",
            "--qdrant qdrant --topics topics.tsv --output r",
            "mode 'bm42' is not one of",
        ),
        (
            "search --collection c --mode bm25,dense",
            "--qdrant qdrant --topics topics.tsv --output r",
            "has no index for bm25: search with --mode dense",
        ),
        ("export qdrant --collection c --url localhost:6333", "--store store", "write http://localhost:6333"),
        ("export qdrant --collection parts", "--store store --path store", "--path .*parts would be inside"),
        ("export qdrant --collection bert", "--store store --path .", "bert holds .* and is no collection"),
        (
            "qdrant info --collection nix",
            "--qdrant qdrant",
            r"nix in .*qdrant does not exist \(there are: .*c.*\); make",
        ),
        ("qdrant info --collection c", "--qdrant qdrant --docids topics.tsv", "--docids FILE belongs to"),
    ],
)
def test_errors(folder: Path, capsys: pytest.CaptureFixture[str], command: str, files: str, message: str) -> None:
    import re

    assert _main(command.replace("OTHER", str(folder / "other")), folder, files) == 2
    assert re.search(message, capsys.readouterr().err)


def test_two_processes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diffretriever_pyserini.serving.engine import open_engine

    engine = open_engine(folder / "qdrant", "c")
    assert _main("qdrant info --collection c", folder, "--qdrant qdrant") == 2
    assert "is being written by another process" in capsys.readouterr().err
    engine.close()
    assert _main("qdrant info --collection c", folder, "--qdrant qdrant") == 0
