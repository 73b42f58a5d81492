"""One question and its best passages, with titles and the part of each text that matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError
from .options import SearchOptions

if TYPE_CHECKING:
    from ..corpora.formats import Passage
    from .index import SearchIndex

_LENGTH, _SLACK = 240, 40  # characters of a snippet, and how far to look for a blank at both its ends
_WIDTH = 40  # of a column of docids; a longer one moves its own title only
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")  # control characters, which a terminal would obey, count too
_DIRECTION = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # would turn round what follows on the terminal
_ID = "question"


class Texts(Protocol):
    """Where the texts of passages come from."""

    @property
    def without(self) -> str:
        """What an answer says where none of its passages has a text."""

    def passages(self, docids: Iterable[str]) -> dict[str, Passage]:
        """Those of the passages ``docids`` that have a text."""

    def terms(self, text: str) -> list[str]:
        """What two texts share if they match."""


Marks = tuple[tuple[int, int], ...]
"""(start, end) of each marked word."""


@dataclass(frozen=True)
class AnswerHit:
    """A passage in the result of a question.

    Attributes
    ----------
    rank, score, docid : as in a run; the rank counts from 1.
    title, snippet : of its text; None where the index has no texts.
    marks : the words of the snippet that match the question.
    """

    rank: int
    score: float
    docid: str
    title: str | None = None
    snippet: str | None = None
    marks: Marks = ()


@dataclass(frozen=True, repr=False)
class Answer:
    """The best passages for a question, printed as text with ``*marked*`` words.

    Attributes
    ----------
    query, mode : what was searched.
    hits : best first.
    note : why there are no titles and texts, and what to do; None where there are.
    """

    query: str
    mode: str
    hits: tuple[AnswerHit, ...]
    note: str | None = None

    def lines(self) -> Iterator[tuple[int, str, Marks]]:
        """Yield the lines of the answer: indent, text and marked words."""
        width = min(_WIDTH, max((len(hit.docid) for hit in self.hits if hit.title), default=0))
        digits = len(str(len(self.hits)))
        for hit in self.hits:
            score = f"{hit.score:,.0f}" if self.mode == "lexical" else f"{hit.score:.4f}"
            yield 0, f"{hit.rank:>{digits}}.  {score}  {hit.docid:<{width}}  {hit.title or ''}".rstrip(), ()
            if hit.snippet:
                yield digits + 3, hit.snippet, hit.marks
        if not self.hits:
            yield 0, "No passage matches.", ()

    def __repr__(self) -> str:
        lines = [" " * indent + _starred(text, marks) for indent, text, marks in self.lines()]
        return "\n".join(lines if self.note is None else (*lines, self.note))


def answer(index: SearchIndex, query: str, mode: str | None, options: SearchOptions) -> Answer:
    """Search for one ``query`` (see :meth:`SearchIndex.search`).

    Raises
    ------
    InputError
        For an empty query, and as the search.
    """
    if not query.strip():
        raise InputError("the query is empty; give it a text.")
    if options.remove_query:
        raise InputError("a single query has no id, so remove_query has no effect: leave it out.")
    mode = index.mode(mode)
    (results,) = index.batches({_ID: query}, mode, options)
    hits = tuple(AnswerHit(rank, score, docid) for rank, (docid, score) in enumerate(results[_ID], start=1))
    texts = index.texts()
    if texts is None:
        return Answer(query, mode, hits, index.folder.without_texts)
    passages = texts.passages(hit.docid for hit in hits)
    note = texts.without if hits and not passages else None
    terms = cache(lambda word: frozenset(texts.terms(word)))
    wanted = terms(query)
    shown = []
    for hit in hits:
        title = snippet = None
        marks: Marks = ()
        if (passage := passages.get(hit.docid)) is not None:
            title = _one_line(passage.title)
            snippet, marks = excerpt(passage.text, lambda word: wanted & terms(word.lower()))
        shown.append(AnswerHit(hit.rank, hit.score, hit.docid, title, snippet, marks))
    return Answer(query, mode, tuple(shown), note)


def excerpt(text: str, matched: Callable[[str], frozenset[str]]) -> tuple[str, Marks]:
    """The part of ``text`` with the most different matching terms, on one line, and its matching words.

    ``matched`` returns the terms that a word shares with the query.
    """
    text = _one_line(text)
    words = [(word.start(), word.end(), terms) for word in _WORD.finditer(text) if (terms := matched(word[0]))]
    if len(text) <= _LENGTH:
        return text, tuple((start, end) for start, end, _ in words)

    def covered(first: int) -> int:
        last = words[first][0] + _LENGTH
        return len(frozenset().union(*(terms for _, end, terms in words[first : first + _LENGTH] if end <= last)))

    first = words[max(range(len(words)), key=covered)][0] if words else 0
    begin, end = 0, min(len(text), first + _LENGTH)
    if first > _SLACK:
        begin = text.find(" ", first - _SLACK, first) + 1 or first
    if end < len(text):
        blank = text.rfind(" ", end - _SLACK, end + 1)
        end = blank if blank >= 0 else end
    before, after = "… " if begin else "", " …" if end < len(text) else ""
    shift = len(before) - begin
    marks = tuple((start + shift, stop + shift) for start, stop, _ in words if begin <= start and stop <= end)
    return f"{before}{text[begin:end]}{after}", marks


def _one_line(text: str) -> str:
    return _BLANKS.sub(" ", _DIRECTION.sub("", text)).strip()


def _starred(text: str, marks: Sequence[tuple[int, int]]) -> str:
    """``text`` with the ``marks`` between stars."""
    pieces, done = [], 0
    for start, end in marks:
        pieces += [text[done:start], f"*{text[start:end]}*"]
        done = end
    return "".join((*pieces, text[done:]))
