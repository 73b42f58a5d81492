"""Damaged files of every kind give a readable error or a complete result, without a traceback or a hang.

``FUZZ_CASES=10000 pytest -s tests/end_to_end/fuzzing`` tries 10,000 cases, from seed ``FUZZ_SEED`` on; other runs
try a few. ``python -m tests.end_to_end.fuzzing.worker CHECKPOINTS`` tries the seeds on its standard input
(``FUZZ_SHOW=1`` shows what the commands print).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ... import warm

pytestmark = [pytest.mark.java, pytest.mark.slow]
CASES = int(os.environ.get("FUZZ_CASES", "60"))
FIRST = int(os.environ.get("FUZZ_SEED", "0"))
MINUTES = float(os.environ.get("FUZZ_MINUTES", "inf"))
SECONDS = 120.0  # limit of one case, far above its usual time


def answers(seeds: list[int], checkpoints: Path) -> Iterator[dict[str, Any]]:
    """The outcome of each case, also of one that ended the process or took too long."""
    while seeds:
        command = [warm.python(), "-m", "tests.end_to_end.fuzzing.worker", str(checkpoints)]
        root = Path(__file__).parents[3]
        with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout and process.stdout.readline() == "ready\n"
            while seeds:
                with contextlib.suppress(BrokenPipeError):  # reading the answer then fails as well
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
def test_damaged_files_are_refused_with_a_message_or_accepted_whole(conformance_dir: Path) -> None:
    started, counts, wrong = time.monotonic(), collections.Counter[tuple[str, str]](), list[str]()
    for answer in answers(list(range(FIRST, FIRST + CASES)), conformance_dir / "checkpoints"):
        if time.monotonic() - started > 60 * MINUTES:
            break
        outcome = "accepted" if answer.get("code") == 0 else "refused"
        if answer["wrong"]:
            outcome = "wrong"
        counts[answer["target"], outcome] += 1
        if answer["wrong"]:
            wrong.append(f"seed {answer['seed']}, {answer['target']}, {answer.get('damage')}:\n{answer['wrong']}")
            print(wrong[-1], flush=True)
    print(f"{counts.total()} cases in {time.monotonic() - started:.0f} s")
    for (target, outcome), count in sorted(counts.items()):
        print(f"{target:24} {outcome:8} {count:6}")
    assert not wrong, "\n\n".join(wrong)
    if CASES >= 60:
        assert {outcome for _, outcome in counts} == {"accepted", "refused"}, "all cases had the same outcome"
