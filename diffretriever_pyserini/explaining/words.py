"""Texts and terms for readers: made safe and short, pieces joined to whole words, and words marked in a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .records import Term

# Controls that move a terminal's cursor or change the direction of text, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_NAMED = 4  # words of a passage that are listed for one word of the query
_BEFORE = 60  # characters that are shown before the first marked word, where the beginning of a text has none


def visible(text: str) -> str:
    """``text`` on one line, with characters that garble a terminal or page escaped (``\\u202e``)."""
    line = _BLANKS.sub(" ", text)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def shortened(text: str, limit: int) -> str:
    """:func:`visible`, cut to ``limit`` characters with a note of the total."""
    return "".join(piece for piece, _ in marked(text, (), limit))


def marked(text: str, words: Iterable[str], limit: int) -> list[tuple[str, bool]]:
    """``text`` in pieces, each :func:`visible`, with whether it is one of ``words``; cut to ``limit`` characters.

    A longer text is cut at its end, or on both sides of the first of ``words`` that is not at the beginning.
    """
    pattern = _any_of(words)
    begin, first = 0, pattern.search(text)
    if first and first.end() > limit:
        begin = max(0, first.start() - _BEFORE)
    end = min(len(text), begin + limit)
    pieces, position = [("… " if begin else "", False)], begin
    for match in pattern.finditer(text, begin, end):
        pieces += [(visible(text[position : match.start()]), False), (visible(match[0]), True)]
        position = match.end()
    if begin or end < len(text):
        rest = f"{text[position:end].rstrip()}{' …' if end < len(text) else ''} ({len(text):,} characters in all)"
    else:
        rest = text[position:]
    pieces.append((visible(rest), False))
    return [(piece, is_word) for piece, is_word in pieces if piece]


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of ``words`` as a whole, in any case; nothing where there are none."""
    longest_first = sorted(words, key=len, reverse=True)
    edge = re.compile(r"^(?=\w)|(?<=\w)$")
    return re.compile("|".join(edge.sub(r"\\b", re.escape(word)) for word in longest_first) or "(?!)", re.I)


@dataclass(frozen=True, slots=True)
class Word:
    """Terms that are pieces or the stem of one word, or of several words that share a piece."""

    query: tuple[str, ...]
    passage: tuple[str, ...]
    terms: tuple[Term, ...]

    @property
    def share(self) -> int:
        """What the word adds to the lexical score."""
        return sum(term.share for term in self.terms)

    @property
    def label(self) -> str:
        """The word in the query, and after an arrow those in the passage if they are others."""
        first = self.query or (() if any(term.query for term in self.terms) else self.passage)
        first = first or tuple(map(_piece, self.terms))
        others = self.passage if set(self.passage) != set(first) else ()
        return " → ".join(", ".join(map(visible, _few(words))) for words in (first, others) if words)

    @property
    def products(self) -> str:
        """The impacts of each term in query and passage, with the names of terms that are not the word itself."""
        return self._named(lambda term: f"{term.query:,} × {term.passage:,}")

    def impacts(self, side: str) -> str:
        """The same for one side, ``query`` or ``passage``."""
        return self._named(lambda term: f"{getattr(term, side):,}")

    def _named(self, figures: Callable[[Term], str]) -> str:
        named = ((visible(_piece(term)), figures(term)) for term in self.terms)
        return " + ".join(figure if name == self.label else f"{name} {figure}" for name, figure in named)


def _piece(term: Term) -> str:
    return term.shown.strip() or term.shown


def _few(words: Sequence[str]) -> list[str]:
    return [*words[:_NAMED], "…"] if len(words) > _NAMED else list(words)


def whole_words(terms: Sequence[Term]) -> list[Word]:
    """``terms`` by the words that they come from, those that add most first.

    Terms are joined where one word of the query has them (of the passage, for terms that the query lacks).
    """
    fullest = set(_fullest(terms, _own_words))
    groups: list[tuple[set[str], list[Term]]] = []
    for term in terms:
        words = fullest & set(_own_words(term))
        joined = [group for group in groups if group[0] & words]
        groups = [group for group in groups if not group[0] & words]
        pieces = [piece for _, of_group in joined for piece in of_group]
        groups.append((words.union(*(names for names, _ in joined)), [*pieces, term]))
    made = [
        Word(_fullest(one, lambda term: term.query_words), _fullest(one, lambda term: term.passage_words), tuple(one))
        for _, one in groups
    ]
    return sorted(made, key=lambda word: (-word.share, -max(term.query + term.passage for term in word.terms)))


def _own_words(term: Term) -> tuple[str, ...]:
    return term.query_words or term.passage_words


def _fullest(terms: Sequence[Term], words_of: Callable[[Term], tuple[str, ...]]) -> tuple[str, ...]:
    """The words of ``terms``, without those of which another has the same terms and more."""
    has: dict[str, set[int]] = {}
    for number, term in enumerate(terms):
        for word in words_of(term):
            has.setdefault(word, set()).add(number)
    different = set(map(frozenset, has.values()))
    return tuple(word for word, own in has.items() if not any(own < other for other in different))
