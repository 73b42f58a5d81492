"""A process that tries cases: it reads one seed per line of standard input and answers each with a line of JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import tempfile
import traceback
from pathlib import Path

from .mutations import copied, damage_file
from .targets import drawn, prepare

MESSAGE = "diffretriever: error: "
MAX_LENGTH = 2_000  # characters of standard error


def run_case(seed: int, prepared: Path) -> dict[str, object]:
    """Damage a file, run the command that reads it, and return what was wrong with the outcome, or None."""
    from diffretriever_pyserini.cli import main

    draw = random.Random(seed)
    target = drawn(draw)
    with tempfile.TemporaryDirectory() as work:
        case = Path(work)
        words = {name.partition("/")[0] for name in (*target.files, *target.command.split(), "tiny-dream")}
        for word in sorted(words | {"pairs.jsonl"} if "train.yaml" in words else words):
            if (prepared / word).exists():
                copied(prepared / word, case / word)
        files = sorted(
            path for name in target.files for path in case.glob(name) if path.is_file() and path.parent.name != "locks"
        )
        damage = [
            damage_file(path, draw) for path in draw.sample(files, 2 if len(files) > 1 and draw.random() < 0.1 else 1)
        ]
        stderr, code, wrong = io.StringIO(), None, None
        with contextlib.chdir(case), contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(target.command.split())
            except SystemExit as error:
                wrong = f"SystemExit({error.code!r})"
            except BaseException:
                wrong = traceback.format_exc()
        text = stderr.getvalue()
        errors = [line for line in text.splitlines() if line.startswith(MESSAGE)]
        if wrong is None and code == 0:
            try:
                target.check(case, prepared)
            except Exception:
                wrong = f"accepted, but:\n{traceback.format_exc()}"
        elif wrong is None and (code != 2 or not errors or len(text) > MAX_LENGTH or "Traceback" in text):
            wrong = f"code {code}: {text[:5000]}"
        elif wrong is None and any(path.is_file() for path in case.glob("out*")):
            wrong = f"refused, but its output exists: {errors[0]}"
        return {
            "seed": seed, "target": target.name, "damage": damage, "code": code, "wrong": wrong,
            "error": errors[0].removeprefix(MESSAGE) if errors else "",
        }  # fmt: skip


def answer() -> None:
    """Prepare a folder, print "ready", and try the seeds of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), Path(sys.argv[1]))
        if "FUZZ_SHOW" not in os.environ:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(run_case(int(line), Path(folder))), file=answers, flush=True)


if __name__ == "__main__":
    answer()
