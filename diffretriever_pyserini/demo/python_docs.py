"""A test collection that every Python carries: its language reference and its standard library's docstrings.

Passages are pieces of the `pydoc_data` topics and of docstrings, found by parsing the sources (nothing is imported).
Queries are known-item: the summary line of a docstring, or the first sentence of a topic, is taken out of its passage
and becomes the query; that passage is the only relevant one. The same interpreter gives the same collection.
"""

import ast
import importlib
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..corpora.corpus import Passage
from ..corpora.qrels import Qrels
from ..errors import InputError

PASSAGE_WORDS = 100
_MIN_PASSAGE_WORDS = 12
_QUERY_WORDS = range(4, 26)
_SEED = 20260507
_SKIPPED_FOLDERS = {"test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "ensurepip", "pydoc_data"}
_SKIPPED_FOLDERS |= {"site-packages", "dist-packages"}
_SKIPPED_MODULES = {"this", "antigravity"}
_UNDERLINE = re.compile(r"([*=~^\-\"'+#])\1{2,}")
_SENTENCE = re.compile(r"(.+?[.:])(?:\s|$)", re.DOTALL)
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_CODE_MARKS = ("(", "->", ">>>", "::", "=", "[", "{", "`", "\\")


@dataclass(frozen=True)
class Collection:
    """Passages, queries (id → text) and judgements (query id → docid → grade), all in memory."""

    passages: list[Passage]
    queries: dict[str, str]
    qrels: Qrels


@dataclass(frozen=True)
class _Unit:
    """One documented thing: its name, its summary ("" when it offers none) and what follows."""

    name: str
    title: str
    summary: str
    paragraphs: list[str]


def interpreter_documentation(passages: int = 1000, queries: int = 300) -> Collection:
    """Build the collection; `passages` and `queries` are upper limits, drawn with a fixed seed.

    Raises
    ------
    InputError
        When a limit is below one or the interpreter comes without its documentation and library sources.
    """
    if passages < 1 or queries < 1:
        raise InputError(f"the demo corpus needs at least one passage and one query, not {passages} and {queries}.")
    units = [*_topic_units(), *_library_units()]
    found, owner = _cut_into_passages(units)
    candidates = _known_items(units, found, owner)
    if not candidates:
        raise InputError("this Python has neither pydoc topics nor library sources; give a collection by --dataset.")
    draw = random.Random(_SEED)
    chosen = draw.sample(sorted(candidates), min(queries, passages, len(candidates)))
    rest = sorted(found.keys() - set(chosen))
    kept = set(chosen) | set(draw.sample(rest, min(passages - len(chosen), len(rest))))
    ids = {docid: f"q{number:03d}" for number, docid in enumerate(sorted(chosen), start=1)}
    return Collection(
        [passage for docid, passage in found.items() if docid in kept],
        {qid: candidates[docid] for docid, qid in ids.items()},
        {qid: {docid: 1} for docid, qid in ids.items()},
    )


def _cut_into_passages(units: list[_Unit]) -> tuple[dict[str, Passage], dict[str, str]]:
    """Return docid → passage, and unit name → docid of its first passage; a text seen before is left out."""
    found, owner, texts = dict[str, Passage](), dict[str, str](), set[str]()
    for unit in units:
        for number, text in enumerate(_pieces(unit.paragraphs)):
            if text in texts:
                continue
            texts.add(text)
            docid = f"{unit.name}#{number}"
            found[docid] = Passage(docid, unit.title, text)
            if number == 0:
                owner[unit.name] = docid
    return found, owner


def _known_items(units: list[_Unit], found: dict[str, Passage], owner: dict[str, str]) -> dict[str, str]:
    """Return docid → query for summaries that point at one passage only and are not repeated inside it."""
    times = Counter(unit.summary.casefold() for unit in units)
    return {
        owner[unit.name]: unit.summary
        for unit in units
        if unit.summary
        and unit.name in owner
        and times[unit.summary.casefold()] == 1
        and unit.summary.casefold() not in found[owner[unit.name]].text.casefold()
    }


def _pieces(paragraphs: list[str]) -> Iterator[str]:
    """Join paragraphs to pieces of about PASSAGE_WORDS words; what is too short to stand alone is left out."""
    words: list[str] = []
    for paragraph in paragraphs:
        more = paragraph.split()
        if len(words) >= _MIN_PASSAGE_WORDS and len(words) + len(more) > PASSAGE_WORDS:
            yield " ".join(words)
            words = []
        words += more
        while len(words) > 2 * PASSAGE_WORDS:
            yield " ".join(words[:PASSAGE_WORDS])
            words = words[PASSAGE_WORDS:]
    if len(words) >= _MIN_PASSAGE_WORDS:
        yield " ".join(words)


def _as_query(line: str) -> str:
    """Return a summary line as a query, or "" when it is no sentence of a useful length."""
    line = " ".join(line.split()).rstrip(".: ")
    words = line.split()
    if len(words) not in _QUERY_WORDS or any(mark in line for mark in _CODE_MARKS):
        return ""
    return line if sum(word.strip("\"',;").isalpha() for word in words) >= 3 else ""


def _topic_units() -> Iterator[_Unit]:
    """Yield a unit for each section of each language-reference topic; a topic's first sentence is its summary."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        return  # some distributions leave the topics out; the docstrings remain
    for label in sorted(topics):
        sections = _sections(str(topics[label]))
        for number, (heading, paragraphs) in enumerate(sections):
            title = heading if number == 0 else f"{sections[0][0]}: {heading}"
            summary = ""
            if number == 0 and paragraphs and (match := _SENTENCE.match(paragraphs[0])):
                summary = _as_query(match[1])
                if summary:
                    paragraphs = [paragraphs[0][match.end() :], *paragraphs[1:]]
            yield _Unit(f"reference:{label}.{number}", title, summary, paragraphs)


def _sections(text: str) -> list[tuple[str, list[str]]]:
    """Split a topic at its underlined headings into (heading, paragraphs)."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.strip().splitlines()
        if len(lines) == 2 and _UNDERLINE.fullmatch(lines[1].strip()):
            sections.append((lines[0].strip(), []))
        else:
            sections[-1][1].append(block.strip())
    return [section for section in sections if section[0] or section[1]]


def _library_units() -> Iterator[_Unit]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).with_suffix("").parts
        folders, module = parts[:-1], parts[-1]
        hidden = any(part.startswith("_") for part in folders) or (module.startswith("_") and module != "__init__")
        if hidden or _SKIPPED_FOLDERS & set(folders) or module in _SKIPPED_MODULES or "." in "".join(parts):
            continue
        name = ".".join(folders if module == "__init__" else parts)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and deliberately broken files are not documentation
        yield from _documented(tree, name)


def _documented(tree: ast.Module, module: str) -> Iterator[_Unit]:
    """Yield a unit for each public docstring of a module; the first one wins where a name is defined again."""
    seen: set[str] = set()
    waiting: list[tuple[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, str]] = [(tree, module)]
    while waiting:
        node, name = waiting.pop(0)
        text = ast.get_docstring(node)
        if text and name not in seen:
            seen.add(name)
            yield _docstring_unit(name, text)
        if isinstance(node, ast.Module | ast.ClassDef):
            inner = [item for item in node.body if isinstance(item, ast.ClassDef | _FUNCTION)]
            waiting += [(item, f"{name}.{item.name}") for item in inner if not item.name.startswith("_")]


def _docstring_unit(name: str, text: str) -> _Unit:
    first, *others = re.split(r"\n\s*\n", text.strip())
    # Only a summary that stands alone (PEP 257) can be taken out without tearing a sentence apart.
    summary = _as_query(first) if others and "\n" not in first.strip() else ""
    return _Unit(f"library:{name}", name, summary, others if summary else [first, *others])
