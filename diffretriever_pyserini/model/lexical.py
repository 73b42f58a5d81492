"""Which words of a text count, and their names in Lucene (docs/method.md §4).

Content tokens: the lower-cased text is split into words, English stopwords and single punctuation marks are dropped,
each word is tokenised alone, and the union of the ids is taken (``stems``, ours: inflected forms share an id).
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from functools import cache
from importlib import resources
from typing import Any

from ..errors import ConfigError
from ..text import clean_text
from .nltk_parts import porter_stemmer
from .words import split_words

PUNCTUATION = frozenset(string.punctuation)
ESCAPE = "\u241b"  # SYMBOL FOR ESCAPE: opens an escape sequence in a Lucene term
LUCENE_CLAUSES = 1024  # terms that Lucene takes in one query
_MAX_TERM = 255  # Anserini's whitespace tokenizer splits longer terms
_BYTE_ORDER = "\ufeff\ufffe"  # pyjnius reads them as byte order marks at the start of a term
_WORD_START = "\u2581\u0120 "  # SentencePiece and byte-level BPE mark the start of a word with them
# Java's white space and all control characters: Anserini treats a passage of nothing else as empty.
_ESCAPED = frozenset(
    [ESCAPE, "\u1680", "\u2028", "\u2029", "\u205f", "\u3000"]
    + [chr(c) for c in (*range(0x21), *range(0x2000, 0x2007), *range(0x2008, 0x200B))]
)


@cache
def stopwords() -> frozenset[str]:
    """The 198 English stopwords of NLTK's data, shipped as ``data/stopwords.txt``."""
    text = resources.files(__package__).joinpath("data/stopwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def content_words(text: str) -> list[str]:
    """Words of ``text`` without stopwords and single punctuation marks, in order, repeats kept."""
    return [word for word in split_words(text) if word not in stopwords() and word not in PUNCTUATION]


def strongest(impacts: dict[str, int], limit: int) -> dict[str, int]:
    """The ``limit`` terms with the highest impact; equal impacts in alphabetical order."""
    if len(impacts) <= limit:
        return dict(impacts)
    return dict(sorted(impacts.items(), key=lambda item: (-item[1], item[0]))[:limit])


def stem_rows(tokenizer: Any) -> dict[str, int]:
    """One row of the head per Porter stem: the first (in BERT's vocabulary, most frequent) word with that stem."""
    stem = porter_stemmer()
    rows: dict[str, int] = {}
    for token, row in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if _can_stem(token) and token.islower():
            rows.setdefault(stem(token), row)
    return rows


def _can_stem(word: str) -> bool:
    return len(word) > 2 and word.isascii() and word.isalpha()


def unknown_ids(tokenizer: Any) -> frozenset[int]:
    """The id of the unknown word, if the vocabulary has one: two unknown words are not the same term."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    return frozenset() if unknown is None else frozenset([int(unknown)])


class ContentTokens:
    """Ids of the content tokens of texts, with a cache of tokenised words; the unknown word is never among them.

    With ``stems``, a word whose Porter stem has a row (see :func:`stem_rows`) is that row alone; other words are their
    word pieces, as without ``stems``. This is not in the paper.
    """

    def __init__(
        self,
        tokenizer: Any,
        excluded: Iterable[int] = (),
        max_chars: int = 100_000,
        max_words: int = 1 << 20,
        stems: bool = False,
    ):
        self._tokenizer = tokenizer
        self._stem_rows = stem_rows(tokenizer) if stems else {}
        self._unknown = unknown_ids(tokenizer)
        self._excluded = frozenset(excluded)
        self._max_chars = max_chars
        self._max_words = max_words
        self._ids: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> list[int]:
        """Ascending ids of the content tokens of ``text``; only its first ``max_chars`` characters count."""
        return sorted({i for ids in self._ids_of(set(self._words(text))).values() for i in ids} - self._excluded)

    def by_word(self, text: str) -> dict[str, list[int]]:
        """Each content word of ``text``, in order, with its ids; their union is what :meth:`__call__` returns."""
        words = dict.fromkeys(self._words(text))
        ids = self._ids_of(words.keys())
        return {word: [i for i in dict.fromkeys(ids[word]) if i not in self._excluded] for word in words}

    def counted(self, text: str) -> tuple[list[int], list[int], int]:
        """Ids as :meth:`__call__` returns them, how often each occurs, and the number of content words."""
        words = Counter(self._words(text))
        counts: Counter[int] = Counter()
        for word, pieces in self._ids_of(words.keys()).items():
            for i in pieces:
                counts[i] += words[word]
        ids = sorted(counts.keys() - self._excluded)
        return ids, [counts[i] for i in ids], words.total()

    def _words(self, text: str) -> list[str]:
        return content_words(clean_text(text[: self._max_chars]))

    def _ids_of(self, words: Set[str]) -> dict[str, tuple[int, ...]]:
        cache = self._ids  # replaced and never cleared, because other threads may be reading it
        known = {word: cache[word] for word in words if word in cache}
        new = sorted(words - known.keys())
        if new:
            encoded = self._tokenizer(new, add_special_tokens=False, return_attention_mask=False, verbose=False)
            new_ids = {word: self._known(ids) for word, ids in zip(new, encoded["input_ids"], strict=True)}
            new_ids |= self._by_stem(new)
            known |= new_ids
            if len(cache) < self._max_words:
                cache.update(new_ids)
            else:
                self._ids = new_ids
        return known

    def _known(self, ids: Sequence[int]) -> tuple[int, ...]:
        """``ids`` of a word without the unknown id; empty if only the mark of a word's start remains."""
        if self._unknown.isdisjoint(ids):
            return tuple(ids)
        known = [i for i in ids if i not in self._unknown]
        pieces = self._tokenizer.convert_ids_to_tokens(known)
        return tuple(known) if any(piece.strip(_WORD_START) for piece in pieces) else ()

    def _by_stem(self, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
        if not self._stem_rows:
            return {}
        stem = porter_stemmer()
        rows = ((word, self._stem_rows.get(stem(word))) for word in words if _can_stem(word))
        return {word: (row,) for word, row in rows if row is not None}


class TermNames:
    """A reversible name in Lucene for every row of the output head.

    Names are the strings of the vocabulary. Characters at which Java's whitespace tokenizer splits, control characters,
    a leading byte order mark, lone surrogates and the escape character itself become ``ESC hex ;``. Terms over 255
    characters, rows without a string and strings of an earlier row are named by number, ``ESC # id ;``.
    """

    def __init__(self, tokenizer: Any, rows: int):
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        strings = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
        for row in range(rows):
            token = strings[row] if row < len(strings) else None
            name = escape_term(token) if token else None
            if name is None or len(name.encode("utf-16-le")) // 2 > _MAX_TERM or name in self._rows:
                name = f"{ESCAPE}#{row};"
            self._names.append(name)
            self._rows[name] = row

    def name(self, row: int) -> str:
        """Term of head row ``row``."""
        return self._names[row]

    def row(self, term: str) -> int:
        """Head row of ``term``; raises ConfigError for a term that is not in this vocabulary."""
        if term not in self._rows:
            raise ConfigError(f"term {term!r} is not in this vocabulary; use the model that built the index.")
        return self._rows[term]


def escape_term(token: str) -> str:
    """``token`` as a Lucene term that survives whitespace tokenisation and UTF-8 (see :class:`TermNames`)."""

    def must_escape(position: int, char: str) -> bool:
        return char in _ESCAPED or "\ud800" <= char <= "\udfff" or (position == 0 and char in _BYTE_ORDER)

    if not any(must_escape(i, char) for i, char in enumerate(token)):
        return token
    return "".join(f"{ESCAPE}{ord(c):x};" if must_escape(i, c) else c for i, c in enumerate(token))
