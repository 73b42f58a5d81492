"""Pyserini 2.4.0 in an environment of its own, over the packages of this one, which has the locked 2.3.0."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import pytest

VERSION = "2.4.0"
ROOT = Path(__file__).resolve().parents[2]
PATCH = ROOT / "docs" / "upstream" / "import-without-downloads.patch"
TESTS = (
    *sorted(map(str, ROOT.glob("tests/plugin/test_touch_*.py"))),  # the others use a Pyserini of their own
    "tests/plugin/test_names.py",
    "tests/cli/test_doctor.py::test_a_healthy_machine_is_all_right",
)
END_TO_END = ("tests/end_to_end/test_literal_commands.py", "tests/end_to_end/test_multivector.py")
pytestmark = [
    pytest.mark.packaging,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.usefixtures("hook_installed"),
]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DIFFRETRIEVER_"))
    }
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of the environment: its own Pyserini comes first, all else is this environment's, with its hook."""
    folder = tmp_path_factory.mktemp("environment")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    sources = folder / "downloaded"
    fetched = run(
        *pip, "download", "--quiet", "--no-deps", "--no-build-isolation", "-d", sources, f"pyserini=={VERSION}"
    )
    if fetched.returncode:
        reason = (fetched.stderr.strip() or "pip failed").splitlines()[-1]
        pytest.skip(f"Pyserini {VERSION} could not be downloaded from the package index, so it is not tested: {reason}")
    venv.EnvBuilder(symlinks=True).create(folder)
    packages = next(folder.glob("lib/python3*/site-packages"))
    (packages / "zz-packages.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = folder / "bin" / "python"
    script = Path(sys.executable).with_name("diffretriever")
    (folder / "bin" / script.name).write_text(f"#!{python}\n" + script.read_text().partition("\n")[2])
    (folder / "bin" / script.name).chmod(0o755)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--find-links", sources)
    installed = run(*pip, "--python", python, "install", *options, "--ignore-installed", f"pyserini=={VERSION}")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return python


@pytest.mark.parametrize(
    "tests",
    [pytest.param(TESTS, id="plugin"), pytest.param(END_TO_END, id="end-to-end", marks=pytest.mark.rare)],
)
def test_the_tests_pass(python: Path, tests: tuple[str, ...]) -> None:
    version = run(
        python, "-c", "import importlib.metadata, pyserini; print(importlib.metadata.version('pyserini'), pyserini)"
    )
    assert version.stdout.startswith(f"{VERSION} ") and str(python.parent.parent) in version.stdout, version.stderr
    done = run(python, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "-k", "not dream", *tests)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]


def test_the_patch_for_pyserini_makes_our_change_unnecessary(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("patch") is None:
        pytest.skip("the command patch is not installed")
    original = next(python.parent.parent.glob("lib/python3*/site-packages/pyserini/prebuilt_index_info.py"))
    patched = tmp_path / "pyserini" / original.name
    patched.parent.mkdir()
    patched.write_bytes(original.read_bytes())
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no connection")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(OSError, match="no connection"):
        runpy.run_path(str(patched))
    applied = subprocess.run(["patch", "-p1", "-i", PATCH], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    asked.clear()
    names = runpy.run_path(str(patched))
    assert asked == []
    assert "msmarco-passage-unicoil-d2q" in names["IMPACT_INDEX_INFO"]
    names["IMPACT_INDEX_INFO_MSMARCO"]._info = {"msmarco-v1-passage.unicoil": "found"}
    assert names["IMPACT_INDEX_INFO"]["msmarco-passage-unicoil-d2q"] == "found"
