"""From a folder of documents without queries to passages, and to queries made from their headings and sentences.

A heading is a query for its section; a sentence is a query for the passage it was taken from (the inverse cloze task,
Lee et al. 2019). This is weak supervision, but in the collection's vocabulary, and enough to adapt a model to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...corpora.corpus import Passage
from ...errors import InputError
from ...files.jsonl import regular
from ...model.lexical import content_words
from . import rows

SUFFIXES = (".txt", ".md", ".rst")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_UNDERLINE = re.compile(r"^([=\-~^*+#])\1{2,}\s*$")
_LEAST_WORDS = 3  # content words of a usable query
_KEEP_SENTENCE = 0.1  # how often the query's sentence stays in its passage, so that exact matches still count


def read_documents(folder: Path, words: int = 100) -> Iterator[Passage]:
    """Passages of about ``words`` words from every .txt, .md and .rst file below ``folder``, in the order of names.

    A passage never crosses a heading; its title is that heading, empty before the first one. Ids are the file's path
    with the passage's number. Raises InputError for an empty folder or a file that is not UTF-8.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.is_dir())
    files = [regular(path) for path in paths]
    if not files:
        raise InputError(f"{folder}: no {', '.join(SUFFIXES)} files in this folder or below it.")
    for path in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not valid UTF-8 ({error.reason}); convert it or remove it.") from error
        name = re.sub(r"\s", "_", path.relative_to(folder).as_posix())
        number = 0
        for title, section in _sections(text):
            for piece in _pieces(section, words):
                number += 1
                yield Passage(f"{name}#{number}", title, piece)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(heading, text below it); the heading is empty for text before the first one."""
    title, body = "", list[str]()
    lines = text.splitlines()
    for i, line in enumerate(lines):
        below = lines[i + 1] if i + 1 < len(lines) else ""
        heading = _HEADING.match(line)
        underlined = bool(line.strip()) and not _UNDERLINE.match(line) and bool(_UNDERLINE.match(below))
        if heading or underlined:
            yield title, "\n".join(body)
            title, body = (heading[1] if heading else line.strip()), []
        elif not _UNDERLINE.match(line):
            body.append(line)
    yield title, "\n".join(body)


def _pieces(section: str, words: int) -> Iterator[str]:
    """Sentences of ``section`` in pieces of ``words`` words; a last piece below a third joins the one before."""
    pieces: list[list[str]] = []
    for paragraph in re.split(r"\n\s*\n", section):
        for sentence in sentences(" ".join(paragraph.split())):
            if not pieces or sum(len(one.split()) for one in pieces[-1]) >= words:
                pieces.append([])
            pieces[-1].append(sentence)
    if len(pieces) > 1 and sum(len(one.split()) for one in pieces[-1]) < words / 3:
        last = pieces.pop()
        pieces[-1] += last
    yield from (" ".join(piece) for piece in pieces if piece)


@cache
def _sentence_splitter() -> Any:
    import punkt

    return punkt.tokenizer_for("english")


def sentences(text: str) -> list[str]:
    """Sentences of ``text`` by the trained English Punkt."""
    return list(_sentence_splitter().tokenize(text)) if text.strip() else []


def generated_rows(passage: Passage, rng: np.random.Generator) -> Iterator[rows.Row]:
    """Training rows without negatives: one has the heading as its query, one a sentence of the passage."""
    if len(content_words(passage.title)) >= _LEAST_WORDS:
        yield _row(passage.title, replace(passage, title=""), "heading")
    parts = sentences(passage.text)
    usable = [i for i, one in enumerate(parts) if len(content_words(one)) >= _LEAST_WORDS]
    if len(parts) >= 2 and usable:
        chosen = usable[int(rng.integers(len(usable)))]
        answer = parts if rng.random() < _KEEP_SENTENCE else parts[:chosen] + parts[chosen + 1 :]
        yield _row(parts[chosen], replace(passage, text=" ".join(answer)), "sentence")


def _row(query: str, answer: Passage, kind: str) -> rows.Row:
    return rows.Row(query, (rows.scored(answer),), (), f"{answer.docid}/{kind}")
