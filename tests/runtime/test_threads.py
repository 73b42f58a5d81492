"""Thread pools: a program may exit, or a thread fail, while the threads start."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.threads import Workers, processors

_START = "import faiss, torch, threading, time\nfrom diffretriever_pyserini.runtime import threads\n"
_EXITS_AT_ONCE = """
workers = threads.Workers(40)
print(workers.map(len, ["a", "ab"] * 20)[-1], workers.run(len, "abc"), threads._in_new_thread(torch.get_num_threads))
"""
_EXITS_MEANWHILE = """
def ask():
    try:
        assert threads.Workers(40).run(len, "abc") == 3
    except RuntimeError:  # Python starts no threads any more
        pass
threading.Thread(target=ask).start()
time.sleep(0.003)
"""
_ONE_FAILS = """
started, real = [], threads._use_one_thread
def alone():
    started.append(1)
    if len(started) == 3:
        raise MemoryError("out of memory")
    real()
threads._use_one_thread = alone
try:
    threads.Workers(8).run(len, "abc")
except MemoryError as error:
    print(error, threads._in_new_thread(torch.get_num_threads))
threads._use_one_thread = real
print(threads.Workers(2).run(len, "abc"))
"""


@pytest.mark.parametrize(
    ("program", "output"),
    [(_EXITS_AT_ONCE, "2 3 2\n"), (_EXITS_MEANWHILE, ""), (_ONE_FAILS, "out of memory 2\n3\n")],
    ids=["exits at once", "exits meanwhile", "one fails"],
)
def test_starting(program: str, output: str) -> None:
    """The program exits, and torch's default number of threads is unchanged."""
    done = subprocess.run(
        [sys.executable, "-c", _START + program],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, output), done.stderr


def test_the_number_of_calls_at_a_time_is_limited() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(value: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return 2 * value

    with Workers(4) as workers:
        assert workers.map(work, range(11), 2) == [2 * value for value in range(11)]
        assert most <= 2
        assert workers.map(work, range(2), 3) == [0, 2]
        assert workers.map(work, iter(range(11)), 1) == [2 * value for value in range(11)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the control groups of a machine of eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def count(machine: Path, groups: str, **files: str) -> int:
    (machine / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = machine / "groups" / name.replace("__", "/").replace("_", ".", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return processors(machine / "proc", machine / "groups")


def test_processors_by_affinity_and_quota(machine: Path) -> None:
    assert processors(machine / "none", machine / "none") == 8
    groups = "0::/user/job\n"
    assert count(machine, groups) == 8
    assert count(machine, groups, user__job__cpu_max="max 100000\n") == 8
    assert count(machine, groups, user__job__cpu_max="250000 100000\n") == 3
    assert count(machine, groups, user__job__cpu_max="1000 100000\n") == 1
    assert count(machine, groups, user__job__cpu_max="9900000 100000\n") == 8
    assert count(machine, groups, user__cpu_max="200000 100000\n") == 2, "the group above has less"


def test_processors_in_a_container_of_version_one(machine: Path) -> None:
    groups = "4:cpu,cpuacct:/path/of/the/machine\n3:memory:/x\n"
    files = {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}
    assert count(machine, groups, **files) == 8
    assert count(machine, groups, **files | {"cpu__cpu_cfs_quota_us": "150000\n"}) == 2


def test_processors_of_this_machine() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
