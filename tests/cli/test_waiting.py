"""What takes seconds is announced at once, on a terminal only; a search without Lucene imports no Pyserini."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from diffretriever_pyserini import Corpus, DiffRetriever, EncodeOptions, IndexOptions, build_index, encode_corpus
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.model.hub import local_folder
from diffretriever_pyserini.model.weights import parameter_count
from diffretriever_pyserini.runtime import java
from diffretriever_pyserini.runtime.waiting import shown, waiting_for

from ..model.conftest import save_masked_lm

PROGRAM = """
import json, logging, sys
from diffretriever_pyserini.cli import main

class Announced(logging.Handler):
    def emit(self, record):
        heavy = {"torch", "transformers", "faiss", "pyserini", "jnius"} & sys.modules.keys()
        print(json.dumps([record.getMessage(), sorted(heavy)]))

logging.getLogger("diffretriever_pyserini.waiting").addHandler(Announced())
logging.getLogger("diffretriever_pyserini.waiting").setLevel(logging.INFO)
code = main(sys.argv[1:])
print(json.dumps([code, sorted({"pyserini", "jnius"} & sys.modules.keys())]))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense index of two passages by a random BERT."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "bert").mkdir()
    save_masked_lm(folder / "bert")
    (folder / "corpus.jsonl").write_text('{"id": "p1", "text": "dense retrieval"}\n{"id": "p2", "text": "language"}\n')
    model = DiffRetriever.from_pretrained(str(folder / "bert"))
    encode_corpus(model, Corpus(folder / "corpus.jsonl"), folder / "S", EncodeOptions(workers=0))
    build_index(folder / "S", folder / "I", IndexOptions(lexical=False, quiet=True))
    (folder / "topics.tsv").write_text("1\tdense retrieval\n")
    return folder / "I"


def arguments(index: Path) -> list[str]:
    return ["search", "--index", str(index), "--topics", str(index.parent / "topics.tsv"), "--output", "run.txt"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_dense_search_announces_the_model_first_and_imports_no_pyserini(index: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, *arguments(index), "--mode", "dense"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    (what, loaded), *_, end = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert what.startswith("loading ") and what.endswith(" parameters")
    assert loaded == []
    assert end == [0, []]
    assert done.stderr == ""  # it is no terminal
    assert (tmp_path / "run.txt").read_text().startswith("1 Q0 p")


def test_lines_are_shown_on_a_terminal_unless_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for quiet, stream, expected in (
        (False, Terminal(), "starting Java ...\n"),
        (True, Terminal(), ""),
        (False, io.StringIO(), ""),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with shown(quiet):
            waiting_for("starting Java")
        waiting_for("nobody waits")
        assert stream.getvalue() == expected
        assert logging.getLogger("diffretriever_pyserini.waiting").handlers == []


def test_a_model_in_memory_is_not_loaded_again(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    model = DiffRetriever.from_pretrained(str(index.parent / "bert"))
    assert main(arguments(index)) == 0
    assert "loading" not in sys.stderr.getvalue()
    assert model.device == "cpu"


def test_java_is_announced_before_pyserini_is_imported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "jvm_running", lambda: False)
    monkeypatch.setattr(java, "point_environment", lambda: None)
    monkeypatch.setitem(sys.modules, "pyserini", None)  # so that its import fails
    with caplog.at_level(logging.INFO, "diffretriever_pyserini.waiting"), pytest.raises(ImportError):
        java.prepare()
    assert caplog.messages == ["starting Java"]


def test_the_parameters_are_counted_by_the_headers(tmp_path: Path) -> None:
    base = local_folder("sentence-transformers/all-MiniLM-L6-v2") / "model.safetensors"
    assert parameter_count([base]) // 10**6 == 22
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 30)
    assert parameter_count([tmp_path / "damaged.safetensors", tmp_path / "absent.safetensors"]) == 0
