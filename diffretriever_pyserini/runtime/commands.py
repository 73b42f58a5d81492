"""Running a command: its output goes to a log, and its latest line to the terminal while it runs."""

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
    """A command: the arguments after `python -m`, and the file or folder that it must produce."""

    title: str
    arguments: list[str]
    produces: str


class StepError(DiffRetrieverError):
    """A command failed; the message has the last lines of its output."""


def shown(arguments: list[str]) -> str:
    """Return the command line as a person would type it."""
    return shlex.join(["python", "-m", *arguments])


def run_step(step: Step, folder: Path, log: Path, screen: TextIO | None = None, keeps: bool = True) -> float:
    """Run `python -m <arguments>` in `folder` and return its wall time in seconds.

    Errors show the last lines of `log`, and name it if the caller `keeps` it.

    Raises
    ------
    StepError
        When the command fails, or ends without producing its file or folder.
    """
    screen = screen or sys.stderr
    started = time.monotonic()
    with log.open("wb", buffering=0) as file:  # unbuffered: readable at once, and complete after an interruption
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
    product = folder / step.produces
    empty_file = product.is_file() and product.stat().st_size == 0
    empty_folder = product.is_dir() and not any(product.iterdir())
    if empty_file or empty_folder or not product.exists():
        raise StepError(f"{step.title}: the command produced no {step.produces}.\n{_tail(log, keeps)}")
    return time.monotonic() - started


def _follow(process: "subprocess.Popen[bytes]", write: Callable[[bytes], object], screen: TextIO) -> None:
    """Copy the command's output; on a terminal, also show its latest line (usually a progress bar)."""
    assert process.stdout is not None
    terminal, latest = screen.isatty(), b""
    while chunk := os.read(process.stdout.fileno(), 65536):
        write(chunk)
        if terminal:
            latest = (latest + chunk)[-4096:]
            lines = [line for line in latest.replace(b"\r", b"\n").split(b"\n") if line.strip()]
            if lines:
                width = shutil.get_terminal_size().columns - 6
                screen.write(f"\r\x1b[K    {lines[-1].decode('utf-8', 'replace').strip()[:width]}")
                screen.flush()
    if terminal:
        screen.write("\r\x1b[K")
        screen.flush()


def _tail(log: Path, keeps: bool) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    last = [line for line in lines if line.strip()][-_LAST_LINES:]
    hint = f" (all of them are in {log})" if keeps else ""
    return "\n".join([f"Its last lines{hint}:", *(f"    {line}" for line in last)])
