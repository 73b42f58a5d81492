"""Real installation from a folder, from an sdist and editable, into a temporary environment, and uninstallation."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from functools import partial
from importlib import metadata
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns

import pytest
from packaging.metadata import Metadata

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parents[2]
CACHES = ("__pycache__", ".*")
DATA = ("docs", "examples", "prebuilt_configs")
STATE = (
    "import os, pyserini, sys; from diffretriever_pyserini.plugin import registry; "
    "from diffretriever_pyserini.model.lexical import stopwords; "
    "from diffretriever_pyserini.model.prebuilt import prebuilt_dir; "
    "print(registry.route(), len(stopwords()) == 198, "
    "len(list((prebuilt_dir() / 'models').glob('*.yaml'))))"
)


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, since building writes into it: what the Dockerfile copies, and MANIFEST.in."""
    if not (ROOT / "setup.py").is_file():
        pytest.skip("these tests need the checkout, not an installed copy")
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools >= 77: install the dev extra")
    folder = tmp_path_factory.mktemp("source")
    for line in [*(ROOT / ".dockerignore").read_text().splitlines(), "!MANIFEST.in"]:
        if line.startswith("!"):
            path = ROOT / line[1:]
            copy = partial(copytree, ignore=ignore_patterns(*CACHES)) if path.is_dir() else copy2
            copy(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with pip; this one's packages are on its path, but not its start-up files."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
    site_packages(folder).joinpath("zz-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def pip(environment: Path, *arguments: str | Path) -> str:
    return run(environment / "bin/python", "-m", "pip", "--disable-pip-version-check", *arguments, cwd=environment)


def built_sdist(source: Path, folder: Path) -> Path:
    program = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", program, folder, cwd=source).splitlines()[-1]
    return folder / name


@pytest.mark.parametrize("kind", ["folder", "sdist", "editable"])
def test_it_installs_works_and_leaves_nothing_behind(
    kind: str, source: Path, environment: Path, tmp_path: Path
) -> None:
    before = sorted(path.name for path in site_packages(environment).iterdir())
    target = {"folder": [source], "editable": ["-e", source], "sdist": []}[kind] or [built_sdist(source, tmp_path)]
    pip(environment, "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *target)
    installed = {path.name for path in site_packages(environment).iterdir()} - set(before)
    python = environment / "bin/python"
    models = len(list((ROOT / "prebuilt_configs/models").glob("*.yaml")))
    try:
        assert {"diffretriever-pyserini.pth", "diffretriever-pyserini.start"} <= installed
        assert run(python, "-c", STATE, cwd=tmp_path) == f"hook True {models}\n"
        out = run(python, "-c", f"import os; os.environ['DIFFRETRIEVER_NO_PLUGIN'] = '1'; {STATE}", cwd=tmp_path)
        assert out == f"None True {models}\n"
        assert run(python, "-S", "-c", "print('up')", cwd=tmp_path) == "up\n"
        file = run(python, "-c", "import diffretriever_pyserini as d; print(d.__file__)", cwd=tmp_path)
        assert Path(file.strip()).is_relative_to(source if kind == "editable" else environment)
        helps = (run(environment / "bin/diffretriever", *words, "--help", cwd=tmp_path) for words in ((), ("train",)))
        named = [Path(path) for text in helps for path in re.findall(r"/\S+/(?:docs|examples)/\S+", text)]
        assert [path.name for path in named if path.exists()] == ["quickstart.md", "train", "training.md"]
        assert all(path.is_relative_to(source if kind == "editable" else environment) for path in named)
    finally:
        pip(environment, "uninstall", "--quiet", "--yes", "diffretriever-pyserini")
    assert sorted(path.name for path in site_packages(environment).iterdir()) == before
    assert not (environment / "bin/diffretriever").exists()


def test_without_a_gpu(source: Path, environment: Path, tmp_path: Path) -> None:
    """The commands of README and the Dockerfile; faiss-cpu, which alone is missing, is an empty wheel of that name."""
    about = "faiss_cpu-1.99.dist-info"
    with zipfile.ZipFile(tmp_path / "faiss_cpu-1.99-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: faiss-cpu\nVersion: 1.99\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    before = sorted(path.name for path in site_packages(environment).iterdir())
    offline = ("install", "--quiet", "--no-index", "--find-links", tmp_path)
    try:
        pip(environment, *offline, "-r", source / "requirements-cpu.txt")
        assert sorted(path.name for path in site_packages(environment).iterdir()) == sorted([*before, about])
        pip(environment, *offline, "--no-deps", "--no-build-isolation", source)
        report = run(
            environment / "bin/python", "-c", "from diffretriever_pyserini.cli import doctor; print(*doctor._faiss())"
        )
    finally:
        pip(environment, "uninstall", "--quiet", "--yes", "diffretriever-pyserini", "faiss-cpu")
    if "faiss-gpu" in metadata.packages_distributions()["faiss"]:  # both, in this test only
        assert "pip uninstall -y faiss-cpu faiss-gpu && pip install --no-deps faiss-gpu==" in report


def test_start_up_files_without_the_module_are_harmless(source: Path, environment: Path, tmp_path: Path) -> None:
    """As after moving an editable checkout, or an interrupted uninstallation."""
    program = (
        "import runpy; print(runpy.run_path('setup.py', run_name='x')['STARTUP_FILES']['diffretriever-pyserini.pth'])"
    )
    text = run(sys.executable, "-c", f"import setuptools; setuptools.setup = lambda **k: None; {program}", cwd=source)
    stale = site_packages(environment) / "diffretriever-pyserini.pth"
    stale.write_text(text)
    try:
        done = subprocess.run(
            [environment / "bin/python", "-c", "print('up')"], capture_output=True, text=True, cwd=tmp_path, check=False
        )
    finally:
        stale.unlink()
    assert (done.returncode, done.stdout, done.stderr) == (0, "up\n", "")


def test_the_start_file_names_a_function_without_parameters() -> None:
    """Python 3.15 reads `package.module:callable` lines and calls each."""
    from inspect import signature
    from pkgutil import resolve_name

    function = resolve_name("_diffretriever_pyserini_startup:install")
    assert not signature(function).parameters


def test_a_wheel_has_every_file_that_is_read_at_run_time(source: Path, tmp_path: Path) -> None:
    program = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    wheel = tmp_path / run(sys.executable, "-c", program, tmp_path, cwd=source).splitlines()[-1]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        start = archive.read("diffretriever-pyserini.start").decode()
        about = next(archive.read(name) for name in names if name.endswith(".dist-info/METADATA"))
    described = Metadata.from_email(about, validate=True)
    assert described.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert described.description_content_type == "text/markdown"
    assert described.project_urls == {"Paper": "https://arxiv.org/abs/2605.07210"}
    assert start == "_diffretriever_pyserini_startup:install\n"
    expected = {
        f"diffretriever_pyserini/{path.relative_to(source / 'diffretriever_pyserini').as_posix()}"
        for path in (source / "diffretriever_pyserini").rglob("*.py")
    }
    expected |= {
        f"diffretriever_pyserini/{path.relative_to(source).as_posix()}"
        for name in DATA
        for path in (source / name).rglob("*")
        if path.is_file()
    }
    expected |= {
        "_diffretriever_pyserini_startup.py",
        "diffretriever-pyserini.pth",
        "diffretriever_pyserini/model/data/stopwords.txt",
        "diffretriever_pyserini/explaining/page.html.j2",
        "diffretriever_pyserini/explaining/page.css",
    }
    assert expected - names == set()
    assert not {name for name in names if name.startswith(("tests/", "docs/", "scripts/"))}


def test_an_sdist_has_every_file_that_a_build_needs(source: Path, tmp_path: Path) -> None:
    with tarfile.open(built_sdist(source, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "_diffretriever_pyserini_startup.py", "requirements.lock"} <= names
    assert any(name.startswith("prebuilt_configs/models/") for name in names)
    assert {f"diffretriever_pyserini/explaining/page.{end}" for end in ("html.j2", "css")} <= names
    assert "diffretriever_pyserini/model/data/stopwords.txt" in names
