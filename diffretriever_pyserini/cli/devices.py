"""``diffretriever encode --devices A,B``: one process and one progress bar per device, and one summary."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

from ..encoding.progress import total_figures
from ..errors import DiffRetrieverError
from .format import counted

_ERROR = "diffretriever: error: "


def encode_on_each(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Encode with one process per device, each with its own shard; if one fails, the others are stopped.

    Returns
    -------
    The figures of all shards together, and a line of text for each shard.

    Raises
    ------
    DiffRetrieverError
        When a process fails; the message has its device and its error.
    """
    from ..store.begin import remove_unused
    from ..store.spec import SPEC

    devices = [device.strip() for device in arguments.devices.split(",") if device.strip()]
    if arguments.shard_num != 1 or arguments.shard_id != 0:
        raise DiffRetrieverError("--devices makes its own shards; on several machines use --shard-id and --device.")
    if not devices:
        raise DiffRetrieverError(f"--devices {arguments.devices!r} names no device; write for example cuda:0,cuda:1.")
    new = not (arguments.output / SPEC).is_file()
    bars = Bars(devices, disable=True if arguments.quiet or arguments.json else None)
    try:
        with contextlib.closing(bars), _processes(arguments.argv, devices) as processes:
            readers = [_OutputReader(process, shard, bars, arguments) for shard, process in enumerate(processes)]
            failed = _first_failure(processes)
            if failed is not None:
                _stop(processes)
            for reader in readers:
                reader.join()
        if failed is not None:
            raise _failure(devices, failed, processes[failed].returncode, readers[failed].error)
    except BaseException:
        if new:  # a killed process could not do this itself
            with contextlib.suppress(OSError, DiffRetrieverError):
                remove_unused(arguments.output)
        raise
    return _summarised(devices, [reader.summary for reader in readers], bars.seconds)


def _failure(devices: list[str], failed: int, code: int, error: str) -> DiffRetrieverError:
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    detail = f": {error}" if error else "."
    return DiffRetrieverError(
        f"encoding on {devices[failed]} (shard {failed} of {len(devices)}) failed, {how}{detail} The other processes "
        "were stopped, and all written parts are complete. Fix the error and run the same command again to continue."
    )


@contextlib.contextmanager
def _processes(command: list[str], devices: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start one process per device with its output on pipes; all have ended when the block ends."""
    start = [sys.executable, "-m", "diffretriever_pyserini", *command, "--one-device", "--json"]
    running: list[subprocess.Popen[str]] = []
    try:
        for shard, device in enumerate(devices):
            options = ["--device", device, "--shard-id", str(shard), "--shard-num", str(len(devices))]
            pipe = subprocess.PIPE
            running.append(subprocess.Popen([*start, *options], stdout=pipe, stderr=pipe, text=True, errors="replace"))
        yield running
    finally:
        _stop(running)


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    """Kill ``processes``: the store stays intact, and none of them continues to write after this command has ended."""
    for process in processes:
        process.kill()  # no effect on a process that has ended
    for process in processes:
        process.wait()


def _first_failure(processes: list[subprocess.Popen[str]]) -> int | None:
    """Wait until all processes have succeeded (None) or one has failed (its shard)."""
    while True:
        codes = [process.poll() for process in processes]
        failed = next((shard for shard, code in enumerate(codes) if code), None)
        if failed is not None or None not in codes:
            return failed
        time.sleep(0.05)


class Bars:
    """One progress bar per process, each on its own line of the terminal."""

    def __init__(self, devices: list[str], disable: bool | None = None, file: IO[str] | None = None):
        from tqdm.auto import tqdm

        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self._bars = [
            tqdm(
                desc=label,
                position=shard,
                unit=" passages",
                disable=disable,
                file=file,
                mininterval=0,
                miniters=1,
                smoothing=0,
            )
            for shard, label in enumerate(self.labels(devices))
        ]

    @staticmethod
    def labels(devices: list[str]) -> list[str]:
        """The name of each process, padded to one width."""
        names = [f"shard {shard} ({device})" for shard, device in enumerate(devices)]
        return [name.ljust(max(map(len, names))) for name in names]

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._started

    def update(self, shard: int, line: dict[str, Any]) -> None:
        """Update a bar from a line of its process's log."""
        bar = self._bars[shard]
        with self._lock:
            bar.total, bar.initial = line["total"], line["kept"]
            if "MFU" in line:
                bar.set_postfix({"MFU": f"{line['MFU']:.0%}"}, refresh=False)
            bar.update(line["done"] - bar.n)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        with self._lock:
            self._bars[0].write(text, file=sys.stderr)

    def close(self) -> None:
        """Close all bars."""
        for bar in self._bars:
            bar.close()


class _OutputReader:
    """Reads a process's output: the log updates the bars (or is passed on), and other lines are printed above them."""

    def __init__(self, process: subprocess.Popen[str], shard: int, bars: Bars, arguments: argparse.Namespace):
        self._shard, self._bars = shard, bars
        self._pass_on, self._quiet = arguments.json, arguments.quiet
        self.error = ""
        self.summary: dict[str, Any] = {}
        self._threads = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in ((self._read_log, process.stdout), (self._read_errors, process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until the process and its workers have closed their outputs."""
        for thread in self._threads:
            thread.join()

    def _read_log(self, stream: IO[str]) -> None:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:  # text of a library on standard output must not end this thread
                self._bars.say(f"shard {self._shard}: {text.rstrip()}")
                continue
            self.summary = line.get("summary", self.summary)
            if self._pass_on:
                print(text, end="", flush=True)
            elif "done" in line:
                self._bars.update(self._shard, line)

    def _read_errors(self, stream: IO[str]) -> None:
        for text in stream:
            if text.startswith(_ERROR):
                self.error = text.removeprefix(_ERROR).strip()
            elif text.strip() and not self._quiet:
                self._bars.say(f"shard {self._shard}: {text.rstrip()}")


def _summarised(
    devices: list[str], summaries: list[dict[str, Any]], seconds: float
) -> tuple[dict[str, Any], list[str]]:
    """The sum of all shards, and a line of text for each."""
    lines = []
    for label, summary in zip(Bars.labels(devices), summaries, strict=True):
        share = f", {summary['MFU']:.0%} of its peak" if "MFU" in summary else ""
        lines.append(
            f"  {label}: {counted(summary['passages'], 'passage')} in {counted(summary['parts'], 'part')}, "
            f"{summary['seconds']:,.1f} s, {summary['passages/s']:,.1f} passages/s{share}"
        )
    return total_figures(summaries, seconds), lines
