"""The field's words: retired names are in no identifier, odd words in no message, comment or page."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("diffretriever_pyserini", "tests", "benchmarks", "scripts", "examples")
CODE = sorted(
    path
    for path in [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    if path != Path(__file__)
)
TEXTS = ("*.md", "docs/*.md", "benchmarks/*.md", "scripts/**/*.md", "examples/**/*.md", "prebuilt_configs/**/*.md")
OTHERS = (
    "Makefile",
    "scripts/*.sh",
    "prebuilt_configs/**/*.yaml",
    "examples/**/*.yaml",
    "diffretriever_pyserini/**/*.j2",
)
PAGES = sorted({path for pattern in (*TEXTS, *OTHERS) for path in ROOT.glob(pattern)})
# position, row, index or device; Pyserini; what was found by its name; given or recorded; space; prefetch.
RETIRED = frozenset(
    (
        "place",
        "places",
        "host",
        "hosts",
        "found",
        "told",
        "mend",
        "room",
        "rooms",
        "lurk",
        "meeting",
        "standing",
        "ahead",
        "house",
        "law",
        "stranger",
    )
)
ODD = re.compile(r"\b(mend(?:s|ed|ing)?|lurk\w*|rooms?|houses?|laws?|strangers?|told|cannot be meant)\b", re.I)
_ORDINARY = re.compile(r"NotFound|(is|are)_found|in_place")  # file not found, changed in place
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def tokens(path: Path) -> Iterator[tokenize.TokenInfo]:
    """The tokens of a Python file."""
    return tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_code(path: Path) -> None:
    wrong = []
    for token in tokens(path):
        if token.type == tokenize.NAME:
            retired = {word.lower() for word in _WORDS.findall(_ORDINARY.sub("", token.string))} & RETIRED
        elif token.type in (tokenize.STRING, tokenize.COMMENT, tokenize.FSTRING_MIDDLE):
            retired = set(ODD.findall(token.string))
        else:
            continue
        wrong += [f"line {token.start[0]}: {word} in {token.string.strip():.80}" for word in retired]
    assert not wrong, "\n".join([str(path.relative_to(ROOT)), *wrong])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    wrong = [f"line {number}: {line.strip():.100}" for number, line in enumerate(lines, 1) if ODD.search(line)]
    assert not wrong, "\n".join(wrong)


def test_the_lists_find_what_they_are_for() -> None:
    assert {word.lower() for word in _WORDS.findall("HostMismatch_foundPlace")} >= {"host", "found", "place"}
    assert ODD.search("mend the corpus") and not ODD.search("recommended, amended, bathroom")
