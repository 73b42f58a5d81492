"""SIGKILL at random moments while a Lucene index is built: the output is complete, and the next run finishes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffretriever_pyserini.store.store import Store

from .conftest import made_up_store
from .test_lucene import NAMES, Vocabulary, ranking, searcher

KILLS = 6
QUERIES = [{NAMES.name(row): 1 + row % 3, NAMES.name(row + 7): 2} for row in range(0, 28, 4)]
SERVER = """
import json, os, sys
import scipy.sparse  # slow to import; only the children start a JVM
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.model.lexical import TermNames

class Vocabulary:
    strings = json.loads(sys.argv[1])
    def __len__(self):
        return len(self.strings)
    def convert_ids_to_tokens(self, ids):
        return [self.strings[i] for i in ids]

for line in sys.stdin:
    store, output = json.loads(line)
    child = os.fork()
    if not child:
        options = IndexOptions(dense=None, rebuild=True)
        build_index(store, output, options, TermNames(Vocabulary(), len(Vocabulary.strings)))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """6,000 passages in parts of 500: about a second of indexing."""
    folder = tmp_path_factory.mktemp("kill") / "S"
    return made_up_store(folder, count=6000, rows_per_part=500, terms=len(Vocabulary.strings))


class Builders:
    """Forks a process for each build from a process that has imported everything, without a JVM and threads."""

    def __init__(self) -> None:
        pipe, command = subprocess.PIPE, [sys.executable, "-c", SERVER, json.dumps(Vocabulary.strings)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def build(self, store: Store, output: Path, seconds: float | None = None) -> int:
        """Build, and kill the process after ``seconds``; returns 0 or the signal that ended it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(store.folder), str(output)]), file=self.process.stdin, flush=True)
        child = int(self.process.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):  # it has finished before
                os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())


@pytest.fixture
def builders() -> Iterator[Builders]:
    server = Builders()
    yield server
    server.process.communicate()


def answers(output: Path) -> list[list[tuple[str, float]]]:
    """Check the size of the index ``output``, and return its rankings."""
    assert json.loads((output / "index.json").read_text())["passages"] == 6000
    index = searcher(output / "lexical")
    return [ranking(index.search(json.dumps(query), 50)) for query in QUERIES]


@pytest.mark.java
@pytest.mark.slow
def test_a_killed_build_leaves_a_complete_index_or_none(store: Store, builders: Builders, tmp_path: Path) -> None:
    assert builders.build(store, tmp_path / "first") == 0
    started = time.monotonic()
    assert builders.build(store, tmp_path / "uninterrupted") == 0
    seconds = time.monotonic() - started
    expected = answers(tmp_path / "uninterrupted")
    assert all(len(hits) == 50 for hits in expected)
    generator, output = random.Random(11), tmp_path / "I"
    killed = unfinished = 0
    for _ in range(10 * KILLS):
        if killed == KILLS:
            break
        existed = output.exists()
        code = builders.build(store, output, generator.uniform(0.1, 1) * seconds)
        assert code in (0, signal.SIGKILL)
        killed += code == signal.SIGKILL
        unfinished += (tmp_path / "I.unfinished").exists()
        if output.exists():
            assert answers(output) == expected
        else:
            assert not existed or (tmp_path / "I.replaced").exists(), "an older index is lost"
        if killed == KILLS // 2 and not output.exists():  # from now on an older index is replaced
            assert builders.build(store, output) == 0
    assert killed == KILLS
    assert unfinished, "no kill came while files were being written"
    assert builders.build(store, output) == 0
    assert answers(output) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["I", "first", "uninterrupted"]
