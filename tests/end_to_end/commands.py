"""Pyserini's literal commands, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .. import warm

Run = dict[str, list[tuple[str, float]]]


def pyserini(module: str, arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m pyserini.<module> <arguments>`` in ``folder``; fails the test with its output if it fails."""
    done = attempt(module, arguments, folder, **environment)
    assert done.returncode == 0, f"pyserini.{module} {arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def attempt(module: str, arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As :func:`pyserini`, without the check of the exit code."""
    return subprocess.run(
        [warm.python(), "-m", f"pyserini.{module}", *arguments.split()],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def write_corpus(folder: Path, passages: Iterable[dict[str, str]]) -> None:
    """One JSON line per passage in ``folder``/passages.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(passage, ensure_ascii=False) for passage in passages)
    (folder / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_run(path: Path) -> Run:
    """query id -> [(docid, score)] in the order of the file."""
    run: Run = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, _, docid, rank, score, _ = line.split(" ")
        run.setdefault(query, []).append((docid, float(score)))
        assert int(rank) == len(run[query])
    return run
