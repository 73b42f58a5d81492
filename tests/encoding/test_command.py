"""`diffretriever encode`: its log, its summary, and several devices at once."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.cli import devices, main
from diffretriever_pyserini.cli.devices import Bars
from diffretriever_pyserini.encoding import progress as module
from diffretriever_pyserini.encoding.options import EncodeOptions
from diffretriever_pyserini.encoding.progress import Progress
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.store.store import Store

from .. import warm
from .conftest import passages, write_corpus
from .test_job import content


@pytest.fixture
def arguments(model: DiffRetriever, corpus_file: Path, tmp_path: Path) -> list[str]:
    command = ["encode", "--encoder", f"diffretriever:{model.config.backbone}", "--corpus", str(corpus_file)]
    return [*command, "--output", str(tmp_path / "S"), "--workers", "0", "--part-size", "32"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_command_line(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "100 passages in 4 parts" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "4 parts existed already" in capsys.readouterr().out
    assert main(["store", str(tmp_path / "S"), "--verify"]) == 0
    output = capsys.readouterr().out
    assert "all checksums are correct" in output
    assert re.search(r"100 passages in 4 parts, \d+\.\d kB", output)


def test_one_passage_is_singular(
    arguments: list[str], corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(corpus_file, passages(1))
    assert main(arguments) == 0
    assert "1 passage in 1 part:" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "1 part existed already" in capsys.readouterr().out


def test_the_log(arguments: list[str], corpus_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = corpus_file.read_text().splitlines()
    text[40] = "{"
    corpus_file.write_text("\n".join(text) + "\n")
    assert main([*arguments, "--json", "--on-error", "skip"]) == 0
    *log, last = lines(capsys.readouterr().out)
    assert last["summary"]["passages"] == 99
    assert (last["shard"], last["shards"]) == (0, 1)
    ends = [line for line in log if line["done"] in (32, 64, 96, 100)]
    assert [line["passages"] for line in ends] == [32, 63, 95, 99]
    for line in ends:
        assert (line["shard"], line["shards"], line["kept"]) == (0, 1, 0)
        assert line["total"] in (None, 100)
        assert line["tokens"] > line["passages"]
        seconds = pytest.approx(line["seconds"], abs=0.006)  # it is rounded to hundredths
        assert line["passages"] / line["passages/s"] == seconds
        assert line["tokens/s"] > line["passages/s"] > 0
        assert "MFU" not in line
        if line["total"] is not None:
            left = (100 - line["done"]) / line["done"]
            assert line["ETA"] == pytest.approx(line["seconds"] * left, abs=0.06 + 0.006 * left)
        else:
            assert line["ETA"] is None


def test_a_line_has_the_progress_and_the_rates(model: DiffRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 rows 200 existed; of the other 800 a quarter took 10 seconds, so 30 seconds remain."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "peak_flops", lambda device: 1e9)
    log = io.StringIO()
    progress = Progress(model, log=log, shard=3, shards=4)
    progress.keep(200)
    now[0] += 10
    progress.tick(190)
    progress.expect(1000)
    progress.model(rows=200, passages=190, tokens=5000, seconds=8)
    (line,) = lines(log.getvalue())
    flops = 2 * module.block_parameters(model) * 5000 + module.head_flops(model) * model.config.k_passage * 190
    assert line == {
        "shard": 3,
        "shards": 4,
        "done": 400,
        "total": 1000,
        "kept": 200,
        "passages": 190,
        "tokens": 5000,
        "seconds": 10,
        "passages/s": 19,
        "tokens/s": 500,
        "MFU": round(flops / 10 / 1e9, 4),
        "ETA": 30,
    }
    progress.tick(50)
    assert len(lines(log.getvalue())) == 1
    now[0] += module.LOG_SECONDS + 1
    progress.tick(50)  # a part that takes long writes lines too
    assert [line["done"] for line in lines(log.getvalue())] == [400, 500]


def test_the_bar_has_one_rate(model: DiffRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(module.sys, "stderr", terminal)
    monkeypatch.setattr(module, "peak_flops", lambda device: 1e9)
    progress = Progress(model)
    progress.model(rows=200, passages=190, tokens=5000, seconds=8)
    assert re.search(r" passages/s, MFU=\d+%\]$", str(progress._bar))
    assert str(progress._bar).count("/s") == 1
    progress.close()


def test_rows_of_a_shard() -> None:
    options = [EncodeOptions(shard=shard, shards=3, rows_per_part=4) for shard in range(3)]
    for rows in range(40):
        parts = [range(start, min(start + 4, rows)) for start in range(0, rows, 4)]
        for shard in range(3):
            assert options[shard].rows_of_shard(rows) == sum(map(len, parts[shard::3]))


def test_several_devices_make_one_store(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())
    assert main([*arguments, "--device=cpu", "--devices=cpu,cpu"]) == 0
    assert list(Store(tmp_path / "S").docids()) == [record["id"] for record in passages(100)]
    output = capfd.readouterr().out
    assert "100 passages in 4 parts" in output
    assert re.search(r"shard 0 \(cpu\): 64 passages in 2 parts, ", output)
    assert re.search(r"shard 1 \(cpu\): 36 passages in 2 parts, ", output)
    assert main([*arguments, "--devices", "cpu,cpu", "--shard-num", "3"]) == 2
    assert "--devices makes its own shards" in capfd.readouterr().err


def test_the_log_of_several_devices(
    arguments: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())
    assert main([*arguments, "--devices", "cpu,cpu", "--json"]) == 0
    *log, last = lines(capfd.readouterr().out)
    assert (last["shards"], last["summary"]["passages"], last["summary"]["parts"]) == (2, 100, 4)
    assert "shard" not in last
    summaries = {line["shard"]: line["summary"]["passages"] for line in log if "summary" in line}
    assert summaries == {0: 64, 1: 36}
    done = {shard: max(line["done"] for line in log if line["shard"] == shard and "done" in line) for shard in (0, 1)}
    assert done == summaries


def test_a_process_that_fails_stops_the_others(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", warm.python())
    assert main([*arguments, "--devices", "cpu,nonsense:7"]) == 2
    output = capfd.readouterr().err
    assert "encoding on nonsense:7 (shard 1 of 2) failed, exit code" in output
    assert "nonsense" in output.split("exit code")[1], "the reason is part of the message"
    with pytest.raises(InputError, match="no store here|not finished"):
        Store(tmp_path / "S")


def test_a_process_that_is_killed_is_named(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    first_failure = devices._first_failure

    def watch(processes: list[Any]) -> int | None:
        seen.extend(processes)
        threading.Thread(target=lambda: (time.sleep(0.5), processes[0].send_signal(signal.SIGKILL))).start()
        return first_failure(processes)

    monkeypatch.setattr(devices, "_first_failure", watch)
    assert main([*arguments, "--devices", "cpu,cpu"]) == 2
    assert "encoding on cpu (shard 0 of 2) failed, killed by signal 9" in capfd.readouterr().err
    assert [process.returncode for process in seen] == [-signal.SIGKILL, -signal.SIGKILL]
    assert content(tmp_path / "S") == {}


def test_an_interrupt_leaves_no_process(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def interrupted(processes: list[Any]) -> int | None:
        seen.extend(processes)
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "_first_failure", interrupted)
    assert main([*arguments, "--devices", "cpu,cpu"]) == 130
    assert [process.returncode for process in seen] == [-signal.SIGKILL] * 2
    assert content(tmp_path / "S") == {}


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows: it knows carriage returns, new lines and moves upwards."""
    rows, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]+", written):
        if piece == "\x1b[A":
            row -= 1
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        else:
            rows[row] = rows[row][:column].ljust(column) + piece + rows[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in rows]


def test_each_bar_has_its_own_line() -> None:
    file = io.StringIO()
    bars = Bars(["cuda:0", "cuda:11"], disable=False, file=file)
    state = {"total": 100, "kept": 10, "tokens/s": 1234.5, "MFU": 0.512}
    for done in (20, 30):
        for shard in (0, 1):
            bars.update(shard, state | {"done": done + 5 * shard})
    shown = [line for line in screen(file.getvalue()) if line]
    assert len(shown) == 2
    assert re.match(r"shard 0 \(cuda:0\) :  30%.* 30/100 .*MFU=51%", shown[0])
    assert re.match(r"shard 1 \(cuda:11\):  35%.* 35/100 .*MFU=51%", shown[1])
    assert [line.count("/s") for line in shown] == [1, 1]
    bars.close()
