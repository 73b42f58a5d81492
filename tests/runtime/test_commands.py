"""Running a step: its log, its error messages, and the error for an empty output."""

import io
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.commands import Step, StepError, run_step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(folder: Path, code: str, produces: str = "out.txt") -> Step:
    (folder / "script_under_test.py").write_text(code)
    return Step("do something", ["script_under_test"], produces)


def test_the_output_of_a_step_goes_to_its_log(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); open('out.txt', 'w').write('x')"
    assert run_step(step(tmp_path, code), tmp_path, tmp_path / "log", io.StringIO()) > 0
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_a_terminal_shows_the_latest_line_and_is_cleared(tmp_path: Path) -> None:
    screen = Terminal()
    run_step(step(tmp_path, "print('1/2\\r2/2'); open('out.txt', 'w').write('x')"), tmp_path, tmp_path / "log", screen)
    assert "2/2" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_a_failure_shows_the_last_lines(tmp_path: Path) -> None:
    code = "for i in range(40): print('line', i)\nraise SystemExit('no such index')"
    with pytest.raises(StepError, match="do something: the command ended with exit code 1") as caught:
        run_step(step(tmp_path, code), tmp_path, tmp_path / "log", io.StringIO())
    assert "no such index" in str(caught.value)
    assert "line 39" in str(caught.value)
    assert "line 20" not in str(caught.value)
    assert str(tmp_path / "log") in str(caught.value)


@pytest.mark.parametrize("code", ["", "open('out.txt', 'w')"], ids=["nothing", "empty"])
def test_a_step_without_output_is_an_error(tmp_path: Path, code: str) -> None:
    with pytest.raises(StepError, match=r"produced no out\.txt"):
        run_step(step(tmp_path, code), tmp_path, tmp_path / "log", io.StringIO())


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="produced no index"):
        run_step(step(tmp_path, "import os; os.mkdir('index')", "index"), tmp_path, tmp_path / "log", io.StringIO())
