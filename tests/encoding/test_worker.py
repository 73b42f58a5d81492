"""Worker processes do not run the program that encodes again, however it was started and written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.encoding import worker as worker_module
from diffretriever_pyserini.encoding.worker import Worker
from diffretriever_pyserini.errors import ConfigError, DiffRetrieverError, InputError

from .. import warm
from .conftest import passages, write_corpus

_LIBRARY = """
import sys
open("ran", "a").write("x")
from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.encoding import prefetch
prefetch.CHUNK = 8  # many chunks; the program waits for the workers, so that they prepare some of them
start = prefetch.Prefetcher.__init__
def started(self, *arguments):
    start(self, *arguments)
    assert len([future.result() for future in self._starting]) == 2
    work = self._work
    self._work = lambda chunk: (open("chunks", "a").write("x"), work(chunk))[1]
prefetch.Prefetcher.__init__ = started
model = DiffRetriever.from_pretrained({model!r})
encode_corpus(model, Corpus(["corpus.jsonl"]), "S", EncodeOptions(workers=2))
"""
_COMMAND = """
open("ran", "a").write("x")
from diffretriever_pyserini.cli import main
code = main(["encode", "--encoder", {model!r}, "--corpus", "corpus.jsonl", "--output", "S", "--workers", "1"])
raise SystemExit(code)
"""


def run(folder: Path, program: str, source: str, model: DiffRetriever) -> subprocess.CompletedProcess[str]:
    program = program.replace("{model!r}", repr(model.config.backbone))
    write_corpus(folder / "corpus.jsonl", passages(100))
    command = {"script": ["script.py"], "stdin": ["-"], "string": ["-c", program]}[source]
    (folder / "script.py").write_text(program)
    text = program if source == "stdin" else None
    return subprocess.run(
        [warm.python(), *command], cwd=folder, input=text, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("program", "source"),
    [(_LIBRARY, "script"), pytest.param(_LIBRARY, "stdin", marks=pytest.mark.rare), (_COMMAND, "string")],
)
def test_a_program_without_a_guard_runs_once(tmp_path: Path, model: DiffRetriever, program: str, source: str) -> None:
    done = run(tmp_path, program, source, model)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "ran").read_text() == "x"
    assert (tmp_path / "S" / "store.json").is_file()
    if program is _LIBRARY:
        assert len((tmp_path / "chunks").read_text()) == 13, "the workers prepared them"


def test_a_bad_row_is_named_by_a_worker(tmp_path: Path, model: DiffRetriever) -> None:
    program = _LIBRARY.replace("model = Diff", 'open("corpus.jsonl", "a").write("{broken\\n")\nmodel = Diff')
    done = run(tmp_path, program, "script", model)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("diffretriever_pyserini.errors.InputError")
    assert "corpus.jsonl, line 101: broken JSON" in done.stderr.strip().splitlines()[-1]


def _adder(base: int):  # type: ignore[no-untyped-def]
    def add(value: int) -> int:
        if value < 0:
            raise InputError(f"{value} is negative")
        return base + value + 0 * len(str(1 // (value - 7)))

    return add


def _broken() -> None:
    raise ConfigError("no such setting")


def _killer():  # type: ignore[no-untyped-def]
    return lambda number: os.kill(os.getpid(), number)


def _reporter():  # type: ignore[no-untyped-def]
    return lambda _: (os.getpid(), getattr(sys.modules["__main__"], "__file__", None), sys.path)


def test_results_and_errors_come_back() -> None:
    worker = Worker(_adder, 100)
    try:
        worker.wait()
        assert [worker(value) for value in range(5)] == [100, 101, 102, 103, 104]
        with pytest.raises(InputError, match="-3 is negative"):
            worker(-3)
        with pytest.raises(ZeroDivisionError) as caught:
            worker(7)
        assert "In a worker process:\nTraceback" in caught.value.__notes__[0]
        assert worker(1) == 101
    finally:
        worker.end()
    with pytest.raises(DiffRetrieverError, match="died"):
        worker(1)


def test_an_error_of_the_setup_is_raised() -> None:
    worker = Worker(_broken)
    with pytest.raises(ConfigError, match="no such setting"):
        worker.wait()
    worker.end()


def test_a_worker_that_never_starts_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """More is sent than a pipe holds, so that the death of the worker shows while sending."""
    monkeypatch.setattr(worker_module, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(DiffRetrieverError, match=r"a worker process that prepares texts died \(exit code 3"):
        Worker(_adder, "x" * (8 << 20))


def test_a_worker_that_was_killed_is_an_error() -> None:
    worker = Worker(_killer)
    worker.wait()
    with pytest.raises(DiffRetrieverError, match=r"a worker process that prepares texts died \(killed by signal 9"):
        worker(signal.SIGKILL)


def test_a_worker_has_the_path_of_this_process_and_no_main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    worker = Worker(_reporter)
    worker.wait()
    process, main, path = worker(None)
    worker.end()
    assert process == worker.process.pid
    assert main is None
    assert path == sys.path


def test_an_interrupt_ends_the_program_and_its_workers(tmp_path: Path, model: DiffRetriever) -> None:
    """Ctrl-C interrupts the whole process group, but not the worker: the program ends it."""
    program = _LIBRARY.replace(
        "encode_corpus(",
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "represent = model.represent\n"
        "def interrupted(*arguments, **options):\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    return represent(*arguments, **options)\n"
        "model.represent = interrupted\n"
        "initialise = prefetch.Prefetcher.__init__\n"
        "def initialised(self, *arguments):\n"
        "    initialise(self, *arguments)\n"
        "    print(json.dumps([worker.process.pid for worker in self._workers]), flush=True)\n"
        "prefetch.Prefetcher.__init__ = initialised\n"
        "encode_corpus(",
    ).replace("import sys\n", "import json, os\nos.setpgid(0, 0)\n", 1)
    done = run(tmp_path, program, "script", model)
    assert done.returncode == -signal.SIGINT or done.returncode == 130, done.stderr
    assert done.stderr.count("KeyboardInterrupt") == 1, done.stderr
    deadline = time.monotonic() + 60
    for worker in json.loads(done.stdout):
        while _exists(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _exists(worker)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
