"""A test collection from every Python installation: the language reference and the library's docstrings.

Passages are pieces of the `pydoc_data` topics and of docstrings, which are parsed from the sources without imports.
Queries are known-item queries: the summary line of a docstring, or the first sentence of a topic, is removed from its
passage and becomes the query. That passage is the only relevant one. The same interpreter gives the same collection.
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
    """A documented object or topic section: its name, its summary ("" if it has none) and the remaining paragraphs."""

    name: str
    title: str
    summary: str
    paragraphs: list[str]


def interpreter_documentation(passages: int = 1000, queries: int = 300) -> Collection:
    """Build the collection; `passages` and `queries` are maximum numbers, sampled with a fixed seed.

    Raises
    ------
    InputError
        When a limit is below one, or the interpreter has neither its documentation nor library sources.
    """
    if passages < 1 or queries < 1:
        raise InputError(f"the demo corpus needs at least one passage and one query, not {passages} and {queries}.")
    units = [*_topic_units(), *_library_units()]
    collection, first_pieces = _cut_into_passages(units)
    candidates = _known_items(units, collection, first_pieces)
    if not candidates:
        raise InputError("this Python has neither pydoc topics nor library sources; give a collection by --dataset.")
    draw = random.Random(_SEED)
    relevant = draw.sample(sorted(candidates), min(queries, passages, len(candidates)))
    others = sorted(collection.keys() - set(relevant))
    sampled = set(relevant) | set(draw.sample(others, min(passages - len(relevant), len(others))))
    ids = {docid: f"q{number:03d}" for number, docid in enumerate(sorted(relevant), start=1)}
    return Collection(
        [passage for docid, passage in collection.items() if docid in sampled],
        {qid: candidates[docid] for docid, qid in ids.items()},
        {qid: {docid: 1} for docid, qid in ids.items()},
    )


def _cut_into_passages(units: list[_Unit]) -> tuple[dict[str, Passage], dict[str, str]]:
    """Return docid → passage, and unit name → docid of its first passage; repeated texts are left out."""
    passages, first_pieces, texts = dict[str, Passage](), dict[str, str](), set[str]()
    for unit in units:
        for number, text in enumerate(_pieces(unit.paragraphs)):
            if text in texts:
                continue
            texts.add(text)
            docid = f"{unit.name}#{number}"
            passages[docid] = Passage(docid, unit.title, text)
            if number == 0:
                first_pieces[unit.name] = docid
    return passages, first_pieces


def _known_items(units: list[_Unit], passages: dict[str, Passage], first_pieces: dict[str, str]) -> dict[str, str]:
    """Return docid → query for summaries that are unique and not repeated inside their passage."""
    times = Counter(unit.summary.casefold() for unit in units)
    return {
        first_pieces[unit.name]: unit.summary
        for unit in units
        if unit.summary
        and unit.name in first_pieces
        and times[unit.summary.casefold()] == 1
        and unit.summary.casefold() not in passages[first_pieces[unit.name]].text.casefold()
    }


def _pieces(paragraphs: list[str]) -> Iterator[str]:
    """Join paragraphs to pieces of about PASSAGE_WORDS words; pieces that are too short are left out."""
    words: list[str] = []
    for paragraph in paragraphs:
        new_words = paragraph.split()
        if len(words) >= _MIN_PASSAGE_WORDS and len(words) + len(new_words) > PASSAGE_WORDS:
            yield " ".join(words)
            words = []
        words += new_words
        while len(words) > 2 * PASSAGE_WORDS:
            yield " ".join(words[:PASSAGE_WORDS])
            words = words[PASSAGE_WORDS:]
    if len(words) >= _MIN_PASSAGE_WORDS:
        yield " ".join(words)


def _as_query(line: str) -> str:
    """Return a summary line as a query, or "" when it is not a sentence of suitable length."""
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
        return  # some distributions leave the topics out; the docstrings are enough
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
            continue  # templates and deliberately broken files
        yield from _documented(tree, name)


def _documented(tree: ast.Module, module: str) -> Iterator[_Unit]:
    """Yield a unit for each public docstring of a module; of several definitions of a name the first counts."""
    seen: set[str] = set()
    queue: list[tuple[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, str]] = [(tree, module)]
    while queue:
        node, name = queue.pop(0)
        text = ast.get_docstring(node)
        if text and name not in seen:
            seen.add(name)
            yield _docstring_unit(name, text)
        if isinstance(node, ast.Module | ast.ClassDef):
            inner = [item for item in node.body if isinstance(item, ast.ClassDef | _FUNCTION)]
            queue += [(item, f"{name}.{item.name}") for item in inner if not item.name.startswith("_")]


def _docstring_unit(name: str, text: str) -> _Unit:
    first, *others = re.split(r"\n\s*\n", text.strip())
    # Only a summary in a paragraph of its own (PEP 257) can be removed without breaking a sentence.
    summary = _as_query(first) if others and "\n" not in first.strip() else ""
    return _Unit(f"library:{name}", name, summary, others if summary else [first, *others])
