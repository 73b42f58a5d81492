"""Running one command: everything it says goes to a log, its last line to the terminal while it runs."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import DiffRetrieverError

_LAST_LINES = 15


@dataclass(frozen=True)
class Step:
    """One command: the arguments after `python -m`, and the file or folder that it must leave behind."""

    title: str
    arguments: list[str]
    produces: str


class StepError(DiffRetrieverError):
    """A command that failed, with the last lines it wrote."""


def shown(arguments: list[str]) -> str:
    """Return the command line as a person would type it."""
    return shlex.join(["python", "-m", *arguments])


def run_step(step: Step, folder: Path, log: Path, screen: TextIO = sys.stderr, keeps: bool = True) -> float:
    """Run `python -m <arguments>` in `folder` and return its wall time in seconds.

    Errors show the last lines of `log`, and name it where the caller `keeps` it.

    Raises
    ------
    StepError
        When the command fails, or ends without leaving what it should.
    """
    started = time.monotonic()
    with log.open("wb", buffering=0) as file:  # unbuffered: it can be watched, and survives an interruption
        process = subprocess.Popen(
            [sys.executable, "-m", *step.arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            _follow(process, file.write, screen)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise StepError(f"{step.title}: the command ended with exit code {code}.\n{_tail(log, keeps)}")
    made = folder / step.produces
    if not made.exists() or (made.is_file() and not made.stat().st_size) or (made.is_dir() and not any(made.iterdir())):
        raise StepError(f"{step.title}: the command left no {step.produces}.\n{_tail(log, keeps)}")
    return time.monotonic() - started


def _follow(process: "subprocess.Popen[bytes]", write: Callable[[bytes], object], screen: TextIO) -> None:
    """Copy what the command says; on a terminal its latest line (a progress bar, mostly) is shown in place."""
    assert process.stdout is not None
    lively, latest = screen.isatty(), b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        write(chunk)
        if lively:
            latest = (latest + chunk)[-4096:]
            lines = [line for line in latest.replace(b"\r", b"\n").split(b"\n") if line.strip()]
            if lines:
                width = shutil.get_terminal_size().columns - 6
                screen.write(f"\r\x1b[K    {lines[-1].decode('utf-8', 'replace').strip()[:width]}")
                screen.flush()
    if lively:
        screen.write("\r\x1b[K")
        screen.flush()


def _tail(log: Path, keeps: bool) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    kept = [line for line in lines if line.strip()][-_LAST_LINES:]
    rest = f" (all of them are in {log})" if keeps else ""
    return "\n".join([f"Its last lines{rest}:", *(f"    {line}" for line in kept)])
