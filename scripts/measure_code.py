#!/usr/bin/env python3
"""Size and coupling of the code: a table with a column per version.

    scripts/measure_code.py                 # the working tree
    scripts/measure_code.py 75c80c9 HEAD    # two commits, the working tree last
    scripts/measure_code.py --no-trace      # without the last two rows, for which commands are run

Lines of code leave out docstrings, comments and blank lines. "Modules that a query crosses" are those of the package in
which a function runs during `diffretriever search` with one query; a passage goes through `encode` and `index`.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "diffretriever_pyserini"
MANY = 5
# Signatures that Pyserini, transformers or FAISS define.
EXEMPT = re.compile(r"^(plugin|pyserini_api)/|packing\.py:attend$")


@dataclass(frozen=True)
class Function:
    """A function: ``where`` is ``file:name``, ``lines`` counts from its def to its end, ``parameters`` without self."""

    where: str
    lines: int
    parameters: int


def python_files(package: Path) -> list[Path]:
    """The Python files of the package, sorted."""
    return sorted(package.rglob("*.py"))


def code_lines(path: Path) -> int:
    """Lines that hold code: no docstrings, comments or blank lines."""
    text = path.read_text(encoding="utf-8")
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                skipped |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    marks = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in marks:
            used |= set(range(token.start[0], token.end[0] + 1))
    return len(used - skipped)


def functions(package: Path) -> Iterator[Function]:
    """Every function and method of the package."""
    for path in python_files(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([one for one in parameters if one.arg not in ("self", "cls")])
                where = f"{path.relative_to(package)}:{node.name}"
                yield Function(where, (node.end_lineno or node.lineno) - node.lineno + 1, count)


def many_parameters(package: Path) -> list[Function]:
    """Functions with more than five parameters whose signature is ours."""
    return [one for one in functions(package) if one.parameters > MANY and not EXEMPT.search(one.where)]


def top_level(path: Path, package: Path) -> str:
    """The package or module directly below the package that ``path`` belongs to."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(path: Path, package: Path) -> set[str]:
    """Top-level packages and modules that a file imports anywhere in its code, except for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = [PACKAGE, *path.relative_to(package).parts[:-1]]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{PACKAGE}.{alias.name}" for alias in node.names} if stem == PACKAGE else {stem}
    return {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}


def edges(package: Path) -> set[tuple[str, str]]:
    """(importing, imported) pairs of top-level packages and modules."""
    pairs = {(top_level(path, package), other) for path in python_files(package) for other in imported(path, package)}
    return {(one, other) for one, other in pairs if one != other and "__init__" not in (one, other)}


# Run in a separate process, so that another version of the package can be measured.
_TRACE = """
import json, sys, threading
from pathlib import Path
work, package = Path(sys.argv[1]), sys.argv[2]
(work / "corpus.jsonl").write_text('{"id": "1", "contents": "the moon is far"}\\n{"id": "2", "contents": "a tower"}\\n')
(work / "topics.tsv").write_text("1\\tmoon\\n")
crossed = set()
def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(package) and not code.co_name.startswith("<"):
        crossed.add(code.co_filename[len(package) + 1:])
def run(*commands):
    from diffretriever_pyserini.cli import main
    crossed.clear()
    threading.setprofile(note); sys.setprofile(note)
    try:
        for command in commands:
            main([*map(str, command)])
    finally:
        sys.setprofile(None); threading.setprofile(None)
    return sorted(crossed)
encode = ("encode", "--corpus", work / "corpus.jsonl", "--output", work / "store", "--workers", 0, "--quiet")
index = ("index", "--store", work / "store", "--output", work / "index", "--dense", "flat", "--lexical")
search = ("search", "--index", work / "index", "--topics", work / "topics.tsv", "--output", work / "run.txt")
modules = {"passage": run(encode, index), "query": run(search)}
(work / "crossed.json").write_text(json.dumps(modules))
"""


def crossed(package: Path) -> dict[str, list[str]]:
    """Modules in which a function runs for one passage and for one query, by running the three commands."""
    with tempfile.TemporaryDirectory() as work:
        environment = os.environ | {"PYTHONPATH": str(package.parent), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", _TRACE, work, str(package)]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{package}: the traced commands failed:\n{done.stderr[-2000:]}")
        return json.loads(Path(work, "crossed.json").read_text())


def measure(package: Path, trace: bool) -> dict[str, str]:
    """The rows of the table for one version."""
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(package)}
    longest_file = max(sizes, key=lambda path: sizes[path])
    longest = max(functions(package), key=lambda one: one.lines)
    pairs = edges(package)
    tops = {top_level(path, package) for path in sizes} - {"__init__", "__main__"}
    rows = {
        "lines of code": f"{sum(map(code_lines, sizes)):,}",
        "files": f"{len(sizes)}",
        "lines per file, median": f"{statistics.median(sizes.values()):g}",
        "longest file": f"{sizes[longest_file]} ({longest_file.relative_to(package)})",
        "longest function": f"{longest.lines} ({longest.where})",
        f"functions with more than {MANY} parameters": f"{len(many_parameters(package))}",
        "top-level packages and modules": str(len(tops)),
        "imports between them": f"{len(pairs)}",
    }
    if trace:
        modules = crossed(package)
        rows |= {f"modules that a {what} crosses": str(len(modules[what])) for what in ("passage", "query")}
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", help="commits to measure before the working tree")
    parser.add_argument("--no-trace", action="store_true", help="do not run the commands")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, str]] = {}
    for revision in arguments.revisions:
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                archive.extractall(folder, filter="data")
            columns[revision] = measure(Path(folder, PACKAGE), not arguments.no_trace)
    columns["working tree"] = measure(ROOT / PACKAGE, not arguments.no_trace)
    print("| | " + " | ".join(columns) + " |\n|---" + "|---:" * len(columns) + "|")
    for row in columns["working tree"]:
        print(f"| {row} | " + " | ".join(values[row] for values in columns.values()) + " |")


if __name__ == "__main__":
    main()
