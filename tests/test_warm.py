"""The warm Python of the tests (warm.py) does for a command what a fresh one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import warm

REPORT = """
import json, os, sys, atexit, threading, warnings
import _diffretriever_pyserini_startup as startup

atexit.register(lambda: print("at exit"))
threading.Thread(target=lambda: (threading.Event().wait(0.3), print("thread"))).start()
main = sys.modules["__main__"]
raised = False
try:
    if sys.warnoptions:
        warnings.warn("an error")
except UserWarning:
    raised = True
print(json.dumps({
    "argv": sys.argv, "name": __name__, "file": __file__, "main": vars(main) is globals(), "path": sys.path[0],
    "spec": __spec__ and __spec__.name, "folder": os.getcwd(), "executable": sys.executable,
    "variable": os.environ.get("DIFFRETRIEVER_NO_PLUGIN"), "hook": list(startup.finder.callbacks),
    "ours": sorted(name for name in sys.modules if name.partition(".")[0] in
                   ("pyserini", "jnius", "diffretriever_pyserini", "tests")),
    "warnings": sys.warnoptions, "raised": raised, "stdin": sys.stdin.read(),
}))
sys.stdout.reconfigure(errors="replace")
print("said", file=sys.stderr)
exec(sys.argv[1])
"""
ENDS = [
    "pass",
    "sys.exit(3)",
    "sys.exit('a word')",
    "raise ValueError('no')",
    "raise KeyboardInterrupt",
    "os.kill(os.getpid(), 9)",
]


def run(python: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = warm.ENVIRONMENT | variables
    return subprocess.run(
        [python, *arguments], cwd=folder, env=environment, input="given", capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def python() -> str:
    if (path := warm.python()) == sys.executable:
        pytest.skip("every command gets a Python of its own here")
    return path


HOWS = {
    "module": ("-m", "package.report"),
    "script": ("package/report.py",),
    "string": ("-u", "-W", "error::UserWarning", "-c", REPORT.replace("__file__", "None")),
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("end", ENDS)
def test_a_command_is_as_in_a_fresh_python(
    python: str, how: tuple[str, ...], end: str, tmp_path: Path, hook_installed: None
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "report.py").write_text(REPORT)
    warmed, fresh = (
        run(one, tmp_path, *how, end, "é x", DIFFRETRIEVER_NO_PLUGIN="0") for one in (python, sys.executable)
    )
    assert (warmed.returncode, warmed.stdout) == (fresh.returncode, fresh.stdout)
    assert warmed.stderr.splitlines()[:1] == fresh.stderr.splitlines()[:1]
    assert warmed.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]
    if end == "pass":
        assert json.loads(fresh.stdout.splitlines()[0])["hook"] == ["pyserini"]


def test_libraries_are_there_unless_the_environment_is_another(python: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import sys\nprint('torch' in sys.modules)")
    assert run(python, tmp_path, "program.py").stdout == "True\n"
    assert run(python, tmp_path, "program.py", HF_HOME=str(tmp_path)).stdout == "False\n"
    assert run(python, tmp_path, "-P", "program.py").stdout == "False\n"


def test_what_a_command_starts_is_warm_if_asked(python: str, tmp_path: Path) -> None:
    program = "import subprocess, sys; print(subprocess.check_output([sys.executable, 'program.py'], text=True))"
    (tmp_path / "program.py").write_text("import sys\nprint('torch' in sys.modules)")
    assert [run(python, tmp_path, "-c", program, **more).stdout.strip() for more in ({}, {"PYTHON_EXEC": python})] == [
        "False",
        "True",
    ]


def test_a_command_ends_with_its_client(python: str, tmp_path: Path) -> None:
    """As when a test that takes too long kills it."""
    program = "import time; print('begun', flush=True); time.sleep(600)"
    with subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout and client.stdout.readline() == "begun\n"
        client.kill()
        assert client.stdout.read() == "", "the end of a pipe that the command held open"


def test_torchrun_starts_warm_processes(python: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, sys\n"
        "with open(os.environ['RANK'], 'w') as file:\n"
        "    print(os.environ['WORLD_SIZE'], 'torch' in sys.modules, *sys.argv, file=file)\n"
    )
    done = subprocess.run(
        [*warm.torchrun(), "program.py", "x"], cwd=tmp_path, env=warm.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2 True program.py x\n"] * 2
