"""Threads that answer queries: a program may end while they start."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
from diffretriever_pyserini.host.threads import Workers
workers = Workers(40)
print(workers.map(len, ["a", "ab"] * 20)[-1], workers.run(len, "abc"))
"""


def test_a_program_ends_while_threads_still_start() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 3\n", "")
