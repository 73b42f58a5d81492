"""A cluster makes the store that one process makes, whatever dies on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import Store
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.cluster.encoding import EncodeTask, encode_on_ray
from diffretriever_pyserini.cluster.options import ClusterOptions
from diffretriever_pyserini.encoding.options import EncodeOptions
from diffretriever_pyserini.errors import DiffRetrieverError

from .conftest import PART, ROWS, encode_command, parts, write_corpus

KILLS = int(os.environ.get("RAY_KILLS", "1"))


class Watcher:
    """A view that calls ``react`` with each progress."""

    def __init__(self, react: Callable[[dict[str, Any]], None] = lambda progress: None):
        self.react, self.said, self.finished = react, list[str](), list[int]()

    def update(self, progress: dict[str, Any]) -> None:
        self.said += progress["messages"]
        self.react(progress)

    def finish(self, shard: int, result: Any) -> None:
        self.finished.append(shard)

    def say(self, text: str) -> None:
        self.said.append(text)


def task(work: Path, store: Path, encoder: str, shards: int) -> EncodeTask:
    options = EncodeOptions(shards=shards, rows_per_part=PART, workers=0)
    return EncodeTask(encoder, (str(work / "corpus.jsonl"),), str(store), options)


def test_two_workers_make_the_store_of_one_process(
    cluster: None, work: Path, tmp_path: Path, tiny_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ray", "--shards", "3", "--cpus-per-worker", "1", "--json"]
    assert main(encode_command(work / "corpus.jsonl", tmp_path / "S", tiny_name, *options)) == 0
    *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (last["shards"], last["summary"]["passages"], last["summary"]["parts"]) == (3, ROWS, ROWS // PART)
    assert parts(tmp_path / "S") == parts(work / "store")
    assert (tmp_path / "S/store.json").read_bytes() == (work / "store/store.json").read_bytes()
    assert not (tmp_path / "S.logs").exists()
    assert Store(tmp_path / "S").digest == Store(work / "store").digest


@pytest.mark.rare  # tests/encoding/test_worker.py shows it without Ray
def test_a_bad_row_stops_all_and_names_the_shard_and_its_log(cluster: None, tmp_path: Path, tiny_name: str) -> None:
    lines = write_corpus(tmp_path / "corpus.jsonl", 100).read_text().splitlines()
    (tmp_path / "corpus.jsonl").write_text("\n".join([*lines[:PART], "{broken", *lines[PART + 1 :]]))
    where = r"shard 1 failed on .*, process \d+: .*corpus\.jsonl, line 11: .*S\.logs/00001-of-00002\.log"
    with pytest.raises(DiffRetrieverError, match=where):
        encode_on_ray(task(tmp_path, tmp_path / "S", tiny_name, 2), ClusterOptions(cpus_per_worker=1), Watcher())
    assert "InputError" in (tmp_path / "S.logs/00001-of-00002.log").read_text()


@pytest.mark.rare  # a killed worker of `index` is replaced by the same code (test_searching.py)
def test_killed_workers_are_replaced(cluster: None, work: Path, tmp_path: Path, tiny_name: str) -> None:
    """Kills a worker at a random moment, ``RAY_KILLS`` times; its shard is continued by another one."""
    chance, killed = random.Random(1), list[int]()
    due = [time.monotonic() + chance.uniform(0, 2)]

    def kill(progress: dict[str, Any]) -> None:
        if len(killed) < KILLS and time.monotonic() > due[0]:
            os.kill(progress["process"], signal.SIGKILL)
            killed.append(progress["process"])
            due[0] = time.monotonic() + chance.uniform(0, 4)

    number = 0
    while len(killed) < KILLS:  # a run may end before its kill is due
        watcher, store = Watcher(kill), tmp_path / f"S{number}"
        number += 1
        encode_on_ray(task(work, store, tiny_name, 4), ClusterOptions(cpus_per_worker=1), watcher)
        assert parts(store) == parts(work / "store")
        assert sorted(watcher.finished) == [0, 1, 2, 3]
        assert sum("another one continues" in text for text in watcher.said) <= KILLS
    assert len(set(killed)) == KILLS
    print(f"{KILLS} workers killed in {number} runs")


@pytest.mark.rare  # a killed command is continued like any other (tests/encoding/test_soak.py)
def test_a_killed_driver_is_continued(work: Path, tmp_path: Path, tiny_name: str) -> None:
    """The command is killed ``RAY_KILLS`` times, after some seconds or some new parts, and run again at once."""
    options = ["--ray", "--shards", "4", "--cpus-per-worker", "1"]
    command = [sys.executable, "-m", "diffretriever_pyserini"]
    command += encode_command(work / "corpus.jsonl", tmp_path / "S", tiny_name, *options)
    chance, left = random.Random(2), [0]

    def written() -> int:
        return sum(1 for _ in (tmp_path / "S").glob("parts/*/*.safetensors"))

    for number in range(KILLS):
        process, seconds, new = subprocess.Popen(command), chance.uniform(0, 20), chance.randint(1, 5)
        began = time.monotonic()
        while process.poll() is None and (
            time.monotonic() - began < seconds if number % 2 else written() < left[-1] + new
        ):
            time.sleep(0.01)
        process.kill()
        process.wait()
        left.append(written())
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert parts(tmp_path / "S") == parts(work / "store")
    print(f"{KILLS} drivers killed, leaving {left[1:]} of {ROWS // PART} parts")
