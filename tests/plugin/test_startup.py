"""The start-up hook in new Python processes, with a fake Pyserini first on the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("hook_installed")

ROUTE = "from diffretriever_pyserini.plugin import registry; print('route', registry.route())"
WORKING_PYSERINI = {
    "__init__.py": "",
    "encode/__init__.py": (
        "document_encoder_class_map = {'ance': int, 'dpr': float}\n"
        "query_encoder_class_map = {'ance': int}\n"
        "class JsonlCollectionIterator:\n    def _load(self, collection_path): return 'pyserini'\n"
        "class JsonlRepresentationWriter:\n"
        "    def __enter__(self): pass\n    def __exit__(self, exc_type, *rest): pass\n"
    ),
    "tool.py": ROUTE + "\nprint('name', __name__, __spec__.name, type(__spec__.loader).__name__)\n",
}


def make_pyserini(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "pyserini" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def python(*arguments: str, path: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "DIFFRETRIEVER_NO_PLUGIN"} | variables
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=path or sys.prefix,  # not the repository, whose folder would come first on the path
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_start_imports_the_hook_and_nothing_else_of_ours() -> None:
    done = python("-c", "import sys; print(sorted(name for name in sys.modules if 'diffretriever_pyserini' in name))")
    names = [name for name in eval(done.stdout) if "__editable__" not in name]
    assert names == ["_diffretriever_pyserini_startup"]
    assert done.stderr == ""


def test_the_hook_fires_when_pyserini_is_imported(tmp_path: Path) -> None:
    pyserini = make_pyserini(tmp_path, WORKING_PYSERINI)
    program = f"import pyserini.encode as e; print(list(e.document_encoder_class_map)); {ROUTE}"
    done = python("-c", program, path=pyserini)
    assert done.stdout.splitlines() == ["['diffretriever', 'ance', 'dpr']", "route hook"]
    assert done.stderr == ""


def test_running_a_module_of_pyserini_fires_it_too(tmp_path: Path) -> None:
    done = python("-m", "pyserini.tool", path=make_pyserini(tmp_path, WORKING_PYSERINI))
    assert done.stdout.splitlines() == ["route hook", "name __main__ pyserini.tool SourceFileLoader"]
    assert done.stderr == ""


def test_running_a_module_that_we_touch_works(tmp_path: Path) -> None:
    """runpy gets the spec and then the code of a module, which it never imports under its own name."""
    files = WORKING_PYSERINI | {"_jvm.py": "def configure_classpath(anserini_root='.'): pass\nprint('ran', __name__)\n"}
    done = python("-m", "pyserini._jvm", path=make_pyserini(tmp_path, files))
    assert done.stdout.splitlines() == ["ran __main__"]
    assert done.stderr == ""


def test_asking_for_a_spec_does_not_use_the_hook_up(tmp_path: Path) -> None:
    pyserini = make_pyserini(tmp_path, WORKING_PYSERINI)
    program = (
        "import importlib.util, sys; importlib.util.find_spec('pyserini'); assert 'pyserini' not in sys.modules; "
        f"import pyserini; {ROUTE}; print(type(pyserini.__spec__.loader).__name__, pyserini.__loader__ is "
        "pyserini.__spec__.loader)"
    )
    assert python("-c", program, path=pyserini).stdout.splitlines() == ["route hook", "SourceFileLoader True"]


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_the_environment_opts_out(tmp_path: Path, value: str) -> None:
    pyserini = make_pyserini(tmp_path, WORKING_PYSERINI)
    program = f"import pyserini.encode as e; print(list(e.document_encoder_class_map)); {ROUTE}"
    done = python("-c", program, path=pyserini, DIFFRETRIEVER_NO_PLUGIN=value)
    assert done.stdout.splitlines() == ["['ance', 'dpr']", "route None"]
    assert done.stderr == ""


def test_opting_out_is_read_when_the_hook_fires(tmp_path: Path) -> None:
    pyserini = make_pyserini(tmp_path, WORKING_PYSERINI)
    late = f"import os; os.environ['DIFFRETRIEVER_NO_PLUGIN'] = '1'; import pyserini; {ROUTE}"
    assert python("-c", late, path=pyserini).stdout == "route None\n"
    withdrawn = f"import os; os.environ['DIFFRETRIEVER_NO_PLUGIN'] = '0'; import pyserini; {ROUTE}"
    assert python("-c", withdrawn, path=pyserini, DIFFRETRIEVER_NO_PLUGIN="1").stdout == "route hook\n"


def test_a_start_without_site_is_left_alone(tmp_path: Path) -> None:
    done = python(
        "-S",
        "-c",
        "import pyserini.encode as e; print(list(e.query_encoder_class_map))",
        path=make_pyserini(tmp_path, WORKING_PYSERINI),
    )
    assert done.stdout == "['ance']\n"
    assert done.stderr == ""


@pytest.mark.parametrize("flags", [[], ["-W", "error"]])
def test_another_pyserini_works_with_one_warning_per_touch_point_that_differs(tmp_path: Path, flags: list[str]) -> None:
    files = WORKING_PYSERINI | {
        "encode/__init__.py": "document_encoder_class_map = []\nclass JsonlCollectionIterator: _load = 3\n"
        "class JsonlRepresentationWriter:\n    def __enter__(self): pass\n    def __exit__(self, kind): pass\n"
    }
    program = "import importlib, pyserini.encode as e; importlib.reload(e); print(e.document_encoder_class_map)"
    done = python(*flags, "-c", program, path=make_pyserini(tmp_path, files))
    assert done.returncode == 0
    assert done.stdout == "[]\n"
    warnings = done.stderr.splitlines()
    expected = {
        "document_encoder_class_map": "it is not a dictionary but list",
        "query_encoder_class_map": "it does not exist",
        "JsonlCollectionIterator._load": "it is not a Python function but int",
        "JsonlRepresentationWriter.__exit__": "its parameters are (self, kind)",
    }
    assert len(warnings) == len(expected)
    for warning, (attribute, problem) in zip(warnings, expected.items(), strict=True):
        assert f"pyserini.encode.{attribute} ({problem}" in warning


def test_a_package_that_cannot_be_loaded_never_breaks_pyserini(tmp_path: Path) -> None:
    pyserini = make_pyserini(tmp_path, WORKING_PYSERINI)
    (pyserini / "diffretriever_pyserini").mkdir()
    (pyserini / "diffretriever_pyserini/__init__.py").write_text("raise RuntimeError('half an upgrade')")
    done = python("-c", "import pyserini.encode as e; print(list(e.query_encoder_class_map))", path=pyserini)
    assert done.stdout == "['ance']\n"
    assert len(done.stderr.splitlines()) == 1
    assert "half an upgrade" in done.stderr and "diffretriever doctor" in done.stderr


def test_a_pyserini_that_fails_to_import_fails_as_it_would_without_us(tmp_path: Path) -> None:
    files = {"__init__.py": "import os\nif os.environ.get('BROKEN'): raise ImportError('no')\n"}
    pyserini = make_pyserini(tmp_path, files)
    program = (
        "import os\ntry:\n    import pyserini\nexcept ImportError as error:\n    print(error)\n"
        f"del os.environ['BROKEN']\nimport pyserini\n{ROUTE}"
    )
    assert python("-c", program, path=pyserini, BROKEN="1").stdout.splitlines() == ["no", "route hook"]
