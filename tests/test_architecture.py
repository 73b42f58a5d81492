"""docs/architecture.md against the code: the list is whole, imports go up it; files and functions stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import measure_code as code  # noqa: E402

PACKAGE = ROOT / code.PACKAGE
FREE = {"__init__", "__main__"}


def listed() -> list[str]:
    """The packages of docs/architecture.md, in order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("<!-- packages -->")[1].split("<!-- /packages -->")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def test_every_package_is_listed() -> None:
    there = {code.top_level(path, PACKAGE) for path in PACKAGE.rglob("*.py")} - FREE
    assert there == set(listed())


def test_packages_import_only_packages_above_them() -> None:
    order = {name: i for i, name in enumerate(listed())}
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in code.python_files(PACKAGE)
        if (own := code.top_level(path, PACKAGE)) not in FREE
        for other in sorted(code.imported(path, PACKAGE) & order.keys() - {own})
        if order[other] > order[own]
    ]
    assert not wrong, "\n".join(wrong)


def test_patches_are_imported_by_the_commands_alone() -> None:
    importers = {one for one, other in code.edges(PACKAGE) if other == "plugin"}
    assert importers <= {"cli", "demo"}


@pytest.mark.parametrize("module", ["", ".settings", ".plugin", ".searching.options", ".training.settings"])
def test_importing_is_cheap(module: str) -> None:
    program = f"import sys, {code.PACKAGE}{module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    heavy = {
        "torch",
        "transformers",
        "pyserini",
        "faiss",
        "jnius",
        "numpy",
        "scipy",
        "nltk",
        "pydantic",
        "jinja2",
        "rich",
    }
    assert not heavy & set(loaded.split())


def test_files_and_functions_stay_small() -> None:
    files = {str(path): n for path in code.python_files(PACKAGE) if (n := len(path.read_text().splitlines())) > 350}
    assert not files
    assert not [one for one in code.functions(PACKAGE) if one.lines > 60]
    assert len(code.many_parameters(PACKAGE)) <= 10


def test_tests_mirror_the_package() -> None:
    """A folder of tests for every package, and no folder of tests for a package that is gone."""
    packages = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")} - {Path()}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert packages <= folders
    besides = {"benchmarks", "conformance", "docs", "end_to_end", "packaging", "."}
    assert {folder.parts[0] if folder.parts else "." for folder in folders - packages} <= besides


def test_measures_of_a_small_package(tmp_path: Path) -> None:
    """The figures of scripts/measure_code.py on a package that is counted by hand."""
    package = tmp_path / code.PACKAGE
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "outer.py").write_text(
        '"""Two\nlines."""\n\nimport os  # used\n\n\ndef f(a, b, c, *, d, e, g):\n    """Doc."""\n    return os, a\n'
    )
    (package / "inner" / "__init__.py").write_text("from ..outer import f\n")
    (package / "inner" / "deep.py").write_text("def h(self, a):\n    from .. import outer\n    return outer\n")
    assert code.code_lines(package / "outer.py") == 3
    assert code.edges(package) == {("inner", "outer")}
    assert [(one.where, one.lines, one.parameters) for one in code.functions(package)] == [
        ("inner/deep.py:h", 3, 1),
        ("outer.py:f", 3, 6),
    ]
    assert [one.where for one in code.many_parameters(package)] == ["outer.py:f"]


def test_imports_inside_the_package_are_relative() -> None:
    def modules(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []

    absolute = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in code.python_files(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(module.split(".")[0] == code.PACKAGE for module in modules(node))
    ]
    assert not absolute
