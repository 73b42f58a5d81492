"""The documentation is executed: fences marked ``run`` of a page, in order, in one empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .. import warm

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FRESH = ("README.md",)  # whose commands start as a user's do
_FENCE = re.compile(r"^```(bash|python) run\n(.*?)^```", re.M | re.S)


def fences(page: Path) -> list[tuple[str, str]]:
    """(language, code) of every fence of ``page`` that is meant to be run."""
    return _FENCE.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if fences(page)], ids=lambda page: page.name)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    python = Path(sys.executable if page.name in FRESH else warm.python())
    folders = (str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    for number, (language, code) in enumerate(fences(page), 1):
        script = tmp_path / f".fence{number}"
        script.write_text(code, encoding="utf-8")
        command = ["bash", "-euo", "pipefail", script] if language == "bash" else [python, script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{page.name}, fence {number}:\n{code}\n{done.stdout}\n{done.stderr[-4000:]}"


def test_pages_that_must_run_do() -> None:
    for name in ("README.md", *(f"docs/{page}.md" for page in ("quickstart", "method", "pyserini", "training"))):
        assert fences(ROOT / name), f"{name} has no fence marked `run` any more"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_touch_points_are_the_table() -> None:
    from diffretriever_pyserini.plugin.registry import TOUCH_POINTS

    text = (ROOT / "docs" / "pyserini.md").read_text(encoding="utf-8")
    table = text.split("<!-- touch points -->")[1].split("<!-- /touch points -->")[0]
    rows = table.strip().splitlines()[2:]
    assert rows == [f"| `{point.name}` | {point.why} | {point.checked} |" for point in TOUCH_POINTS]
