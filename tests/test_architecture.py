"""The rooms of docs/architecture.md against the code: the list is whole, and imports only go up it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "diffretriever_pyserini"
NAME = PACKAGE.name
FREE = {"__init__", "__main__"}


def rooms() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("<!-- rooms -->")[1].split("<!-- /rooms -->")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports at any depth of its code, but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [stem] if stem != NAME else [f"{NAME}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith(f"{NAME}.")}
    return found


def test_every_room_is_listed() -> None:
    there = {room_of(path) for path in PACKAGE.rglob("*.py")} - FREE
    assert there == set(rooms())


def test_rooms_import_only_rooms_above_them() -> None:
    order = {room: i for i, room in enumerate(rooms())}
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if (room := room_of(path)) not in FREE
        for other in sorted(imported_rooms(path) & order.keys() - {room})
        if order[other] > order[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_is_cheap() -> None:
    code = f"import sys, {NAME}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    heavy = {"torch", "transformers", "pyserini", "faiss", "jnius", "numpy", "scipy", "nltk"}
    assert not heavy & set(loaded.split())


def test_files_stay_small() -> None:
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long
