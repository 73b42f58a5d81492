"""Damaged files of every kind: an error that a person can read, or a result that lost nothing; no trace, no hang.

``FUZZ_CASES=10000 pytest -s tests/end_to_end/fuzzing`` tries as many, from seed ``FUZZ_SEED`` on; a few are tried in
every run. ``python -m tests.end_to_end.fuzzing.worker CHECKPOINTS`` with a seed on its standard input tries one
(``FUZZ_SHOW=1``: and shows what it prints).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.java, pytest.mark.slow]
CASES = int(os.environ.get("FUZZ_CASES", "60"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 120.0  # of one case: far more than any takes


def answers(seeds: list[int], checkpoints: Path) -> Iterator[dict[str, Any]]:
    """What came of each case; of one that ended the process or took too long, that."""
    while seeds:
        command = [sys.executable, "-m", "tests.end_to_end.fuzzing.worker", str(checkpoints)]
        root = Path(__file__).parents[3]
        with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout and process.stdout.readline() == "ready\n"
            while seeds:
                with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                    process.stdin.write(f"{seeds[0]}\n")
                    process.stdin.flush()
                if not select.select([process.stdout], [], [], SECONDS)[0]:
                    process.kill()
                    yield {"seed": seeds.pop(0), "target": "?", "wrong": f"no answer in {SECONDS:.0f} s"}
                    break
                if not (line := process.stdout.readline()):
                    yield {"seed": seeds.pop(0), "target": "?", "wrong": f"the process ended ({process.wait()})"}
                    break
                seeds.pop(0)
                yield json.loads(line)


@pytest.mark.timeout(max(600, 10 * CASES))
def test_damaged_files_are_refused_in_words_or_taken_whole(conformance_dir: Path) -> None:
    started, counts, wrong = time.monotonic(), collections.Counter[tuple[str, str]](), list[str]()
    for answer in answers(list(range(FIRST, FIRST + CASES)), conformance_dir / "checkpoints"):
        outcome = "wrong" if answer["wrong"] else "taken" if answer["code"] == 0 else "refused"
        counts[answer["target"], outcome] += 1
        if answer["wrong"]:
            wrong.append(f"seed {answer['seed']}, {answer['target']}, {answer.get('damage')}:\n{answer['wrong']}")
            print(wrong[-1], flush=True)
    print(f"{CASES} cases in {time.monotonic() - started:.0f} s")
    for (target, outcome), count in sorted(counts.items()):
        print(f"{target:24} {outcome:8} {count:6}")
    assert not wrong, "\n\n".join(wrong)
    if CASES >= 60:
        assert {outcome for _, outcome in counts} == {"taken", "refused"}, "the cases test nothing"
