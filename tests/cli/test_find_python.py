"""scripts/find_python.sh: candidates are started, and if none is suitable the error is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "find_python.sh"


def find(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with only `path` on the PATH."""
    clean = {"PATH": str(path), "HOME": str(path), **environment}
    return subprocess.run(["/bin/sh", str(SCRIPT)], env=clean, capture_output=True, text=True)


def executable(folder: Path, name: str, text: str) -> Path:
    """Write an executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def good(folder: Path, name: str) -> Path:
    """A command that is this Python."""
    return executable(folder, name, f'exec "{sys.executable}" "$@"')


@pytest.fixture
def too_old(tmp_path: Path) -> Path:
    return executable(tmp_path, "python3", "exit 1")


@pytest.mark.parametrize("name", ["python3.13", "python3.12", "python3.14", "python3", "python"])
def test_a_python_on_the_path_is_found(tmp_path: Path, name: str) -> None:
    good(tmp_path, name)
    done = find(tmp_path)
    assert done.returncode == 0, done.stderr
    assert os.path.realpath(done.stdout.strip()) == os.path.realpath(sys.executable)


def test_a_shim_without_an_installed_version_is_skipped(tmp_path: Path, too_old: Path) -> None:
    executable(tmp_path, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    good(tmp_path, "python3.12")
    assert find(tmp_path).returncode == 0


def test_a_version_of_pyenv_is_found(tmp_path: Path, too_old: Path) -> None:
    good(tmp_path / ".pyenv" / "versions" / "3.12.7" / "bin", "python")
    assert find(tmp_path).returncode == 0
    assert find(tmp_path, PYENV_ROOT=str(tmp_path / "elsewhere")).returncode == 1


def test_uv_is_used_last(tmp_path: Path, too_old: Path) -> None:
    hidden = good(tmp_path / "hidden", "found-by-uv")
    executable(tmp_path, "uv", f'[ "$2" = find ] && echo "{hidden}"')
    assert find(tmp_path).returncode == 0


def test_without_a_python_one_sentence_says_what_to_do(tmp_path: Path, too_old: Path) -> None:
    done = find(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("No Python >= 3.12 found")
    assert done.stderr.count("\n") == 1


def test_a_named_python_is_used_or_refused(tmp_path: Path, too_old: Path) -> None:
    good(tmp_path, "python3.12")
    assert find(tmp_path, PYTHON=sys.executable).returncode == 0
    refused = find(tmp_path, PYTHON=str(too_old))
    assert refused.returncode == 1
    assert str(too_old) in refused.stderr
