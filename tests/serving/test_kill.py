"""An upload that is killed at random instants and continued: the same points as without a kill."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffretriever_pyserini import Store
from diffretriever_pyserini.serving import export_to_qdrant

from .conftest import Collections, write_store
from .test_changes import contents

pytest.importorskip("qdrant_edge")
KILLS = int(os.environ.get("QDRANT_KILLS", "2"))


@pytest.mark.parametrize("kind", ["edge", pytest.param("local", marks=pytest.mark.rare)])
def test_killed_and_continued(kind: str, tmp_path: Path) -> None:
    docids = [f"p{i}" for i in range(1000)]
    store = write_store(tmp_path / "store", docids=docids, rows_per_part=200)
    whole = Collections("edge", str(tmp_path / "whole"))
    whole.export(store)
    target = tmp_path / "killed"
    if kind == "local":
        target.mkdir()
        (target / "meta.json").write_text('{"collections": {}, "aliases": {}}')
    generator = random.Random(7)
    kills = 0
    for _ in range(4 * KILLS):
        kills += _killed(store, target, generator.uniform(0, 0.8))
        if kills == KILLS:
            break
    figures = export_to_qdrant(store, target, "c")
    assert kills == KILLS
    assert figures["points"] == len(docids)
    killed = Collections("edge", str(target))
    assert contents(killed, docids) == contents(whole, docids)
    with whole.open() as one, killed.open() as other:
        for mode in ("dense", "multi", "lexical", "hybrid"):
            expected, run = (index.search({"q": "query 1"}, mode, hits=50)["q"] for index in (one, other))
            assert dict(run) == pytest.approx(dict(expected), abs=1e-6)


def _killed(store: Store, target: Path, seconds: float) -> bool:
    """Whether an upload was killed, so many ``seconds`` after it wrote its record."""
    # Not a warm Python: its fork outlives a killed client for a moment, and holds the lock.
    command = [sys.executable, "-m", "diffretriever_pyserini", "export", "qdrant", "--store", str(store.folder)]
    command += ["--path", str(target), "--collection", "c", "--batch-size", "4", "--quiet"]
    record = target / "meta.json" if (target / "meta.json").exists() else target / "c" / "collection.json"
    before = _written(record)
    process = subprocess.Popen(command)
    while process.poll() is None and _written(record) == before:
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
