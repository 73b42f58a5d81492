"""Words of a text, exactly as NLTK's ``word_tokenize`` gives them, and faster: chunks are remembered.

NLTK's rules look at the white space around a chunk, if at all, and never beyond it, but for a sentence's end. So a
chunk gives the same words wherever it stands between the same white space, and one of plain letters and digits is a
word itself. English prose takes a third of NLTK's time or less; texts without any ASCII word, or of odd chunks that
never come back, about as long as with NLTK.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache

_CHUNKS = re.compile(r"(\S+)(\s*)")
_ODD_SPACE = re.compile(r"[^\S \t\n\r]")  # NLTK's rules and str.split disagree about some of these
# A word, perhaps joined of several, between brackets and marks that NLTK sets apart wherever they stand.
_EDGED = re.compile(r"([(\[{<]*)([0-9a-z]+(?:[-_/=+|~^\\.][0-9a-z]+)*)([)\]}>,;:?!]*)")
_CONTRACTED = frozenset(("cannot", "gimme", "gonna", "gotta", "lemme", "wanna"))  # plain, yet two words
_CONTRACTION = re.compile(rf"\b(?:{'|'.join(sorted(_CONTRACTED))})\b")
_LONGEST = 40  # characters of a chunk that is remembered, white space beside it counted
_MOST = 1 << 18
_MARK = "\ue000"  # stands where the neighbours were, and keeps chunks that are tokenised together apart


@cache
def _splitters() -> tuple[Callable[[str], list[str]], Callable[[str], list[str]]]:
    """Sentences by the trained English Punkt tables, words by NLTK's tokenizer; neither downloads anything."""
    import punkt
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return punkt.tokenizer_for("english").tokenize, NLTKWordTokenizer().tokenize


def split_words(text: str) -> list[str]:
    """Words of the lower-cased ``text``, as NLTK's ``word_tokenize`` gives them."""
    sentences, _ = _splitters()
    return [word for sentence in sentences(text.lower()) for word in _words(sentence)]


def _words(sentence: str) -> list[str]:
    if _ODD_SPACE.search(sentence) or sentence[:1].isspace() or _MARK in sentence:
        _, tokenize = _splitters()
        return tokenize(sentence)
    chunks: list[tuple[str, str]] = _CHUNKS.findall(sentence)
    end = len(chunks)
    while end and not _plain(chunks[end - 1][0]):  # what ends the sentence is looked at as a whole
        end -= 1
    if end < len(chunks):
        chunks[end:] = [("".join(chunk + space for chunk, space in chunks[end:]), "")]
    words: list[list[str]] = []
    unknown: dict[int, _Key] = {}
    before = ""
    for i, (chunk, space) in enumerate(chunks):
        if i < end and _plain(chunk):
            words.append([chunk])
        else:
            key = (before, chunk, space if i < end else "")
            found = _memory.get(key) or _edged(chunk, bool(key[2]))
            if found is None:
                unknown[i] = key
            words.append(found or [])
        before = space
    if unknown:
        for i, found in zip(unknown, _tokenized(list(unknown.values())), strict=True):
            words[i] = found
    return [word for some in words for word in some]


def _plain(chunk: str) -> bool:
    return chunk.isalnum() and chunk.isascii() and chunk not in _CONTRACTED


_Key = tuple[str, str, str]  # white space, chunk, white space; none is the sentence's start or end
_memory: dict[_Key, list[str]] = {}


def _edged(chunk: str, goes_on: bool) -> list[str] | None:
    """Words of a chunk of the usual form, and None for others."""
    stop = [] if goes_on or not chunk.endswith(".") else ["."]
    parts = _EDGED.fullmatch(chunk, 0, len(chunk) - len(stop))
    if not parts or _CONTRACTION.search(chunk):
        return None
    opening, word, closing = parts.groups()
    return [*opening, word, *closing, *stop]


def _tokenized(keys: list[_Key]) -> list[list[str]]:
    """Words of each of ``keys``, in one call; all but the first have something before them, all but the last after."""
    _, tokenize = _splitters()
    text = " ".join(f"{before and _MARK}{before}{chunk}{after}{after and _MARK}" for before, chunk, after in keys)
    runs = [list(run) for mark, run in itertools.groupby(tokenize(text), _MARK.__eq__) if not mark]
    for key, found in zip(keys, runs, strict=True):
        if sum(map(len, key)) <= _LONGEST:
            if len(_memory) >= _MOST:
                _memory.clear()
            _memory[key] = found
    return runs
