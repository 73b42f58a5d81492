"""The documentation is executed: the fences of a page marked ``run``, in order, in one empty folder.

A fence marked ``text output`` shows the last lines that the ``run`` fence before it prints.
"""

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
FRESH = ("README.md",)  # pages whose commands start a new Python process, as a user's do
RARE = ("cluster.md",)  # its commands start a cluster each; tests/cluster runs them on one
CITING = ("diffretriever_pyserini", "docs", "tests", "benchmarks", "examples", "scripts", "prebuilt_configs")
_FENCE = re.compile(r"^```(bash run|python run|text output)\n(.*?)^```", re.M | re.S)
_HEADING = re.compile(r"^##+ (.+)$", re.M)
_SECTION_LINK = re.compile(r"\]\(([^)#:\s]*\.md|)#([^)\s]+)\)")
_CITED = re.compile(r"docs/method\.md (§\d+(?:(?:,| and| to) §\d+)*)")
_LINKED = re.compile(r"\[method §(\d+)\]\([./a-z]*method\.md#([^)]+)\)")
_UNNUMBERED = re.compile(r"METHOD[ ](?:sections?|\d)")


def fences(page: Path) -> list[tuple[str, str, str]]:
    """(language, code, shown output) of every fence of ``page`` that is marked ``run``."""
    executed: list[tuple[str, str, str]] = []
    for kind, content in _FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "text output":
            executed[-1] = (*executed[-1][:2], content)
        else:
            executed.append((kind.split()[0], content, ""))
    return executed


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def citing_files() -> list[Path]:
    """Every file in which code or text may cite a section of the method."""
    inside = (path for name in CITING for path in (ROOT / name).rglob("*"))
    return sorted({*ROOT.glob("*.md"), *(path for path in inside if path.suffix in (".py", ".md", ".yaml"))})


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.rare] if page.name in RARE else [])
        for page in PAGES
        if fences(page)
    ],
)
def test_page_runs(page: Path, tmp_path: Path) -> None:
    python = Path(sys.executable if page.name in FRESH else warm.python())
    folders = (str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = os.environ | {"PATH": os.pathsep.join(folders), "PYTHON_EXEC": str(python)}
    for number, (language, code, output) in enumerate(fences(page), 1):
        script = tmp_path / f".fence{number}"
        script.write_text(code, encoding="utf-8")
        command = ["bash", "-euo", "pipefail", script] if language == "bash" else [python, script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{page.name}, fence {number}:\n{code}\n{done.stdout}\n{done.stderr[-4000:]}"
        assert done.stdout.endswith(output), f"{page.name}, fence {number} prints:\n{done.stdout[-2000:]}"


def test_pages_that_must_run_do() -> None:
    for name in ("README.md", *(f"docs/{page}.md" for page in ("quickstart", "method", "pyserini", "training"))):
        assert fences(ROOT / name), f"{name} has no fence marked `run` any more"


def test_link_targets_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def test_linked_sections_exist() -> None:
    slugs = {page.name: {slug(title) for title in _HEADING.findall(page.read_text(encoding="utf-8"))} for page in PAGES}
    links = [(page, *link) for page in PAGES for link in _SECTION_LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 10
    for page, target, anchor in links:
        name = Path(target).name or page.name
        assert anchor in slugs[name], f"{page.name} links to {name}#{anchor}, which is not a heading of that page"


def test_sections_of_the_method_that_are_cited_exist() -> None:
    titles = _HEADING.findall((ROOT / "docs" / "method.md").read_text(encoding="utf-8"))
    sections = {title.split(".")[0]: slug(title) for title in titles if re.match(r"\d+\. ", title)}
    assert list(sections) == [str(number) for number in range(1, len(sections) + 1)]
    cited: list[str] = []
    for path in citing_files():
        text = path.read_text(encoding="utf-8")
        assert not _UNNUMBERED.search(text), f"{path.relative_to(ROOT)} cites a section without its page"
        numbers = [number for sections_text in _CITED.findall(text) for number in re.findall(r"\d+", sections_text)]
        for number, anchor in _LINKED.findall(text):
            numbers.append(number)
            assert anchor == sections.get(number), f"{path.relative_to(ROOT)}: #{anchor} is not method §{number}"
        for number in numbers:
            assert number in sections, f"{path.relative_to(ROOT)} cites docs/method.md §{number}, which does not exist"
        cited += numbers
    assert len(cited) >= 20
    assert set(cited) >= {"1", "2", "3", "4", "5", "6", "7"}


def test_the_table_of_touch_points_equals_the_registry() -> None:
    from diffretriever_pyserini.plugin.registry import TOUCH_POINTS

    text = (ROOT / "docs" / "pyserini.md").read_text(encoding="utf-8")
    table = text.split("<!-- touch points -->")[1].split("<!-- /touch points -->")[0]
    rows = table.strip().splitlines()[2:]
    assert rows == [f"| `{point.name}` | {point.why} | {point.checked} |" for point in TOUCH_POINTS]


def test_the_table_of_what_is_used_equals_the_code() -> None:
    from diffretriever_pyserini.plugin.lists import USED

    text = (ROOT / "docs" / "pyserini.md").read_text(encoding="utf-8")
    rows = text.split("<!-- used -->")[1].split("<!-- /used -->")[0].strip().splitlines()[2:]
    assert rows == [f"| {version} | `{name}` | {why} |" for version, used in USED.items() for name, why in used.items()]
