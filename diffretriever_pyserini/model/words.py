"""Words of a text, exactly as NLTK's ``word_tokenize`` gives them, but faster because chunks are cached.

NLTK's rules depend on a chunk and at most the white space around it, except at the end of a sentence. So a chunk
between the same white space always gives the same words, and a chunk of plain letters and digits is one word. English
prose takes a third of NLTK's time or less; texts without ASCII words, or with chunks that never repeat, take about as
long as with NLTK.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import cache

from .nltk_parts import word_tokenizer

_CHUNKS = re.compile(r"(\S+)(\s*)")
_ODD_SPACE = re.compile(r"[^\S \t\n\r]")  # NLTK's rules and str.split disagree about some of these
# A word or a compound between brackets and punctuation marks, which NLTK always splits off.
_ORDINARY = re.compile(r"([(\[{<]*)([0-9a-z]+(?:[-_/=+|~^\\.][0-9a-z]+)*)([)\]}>,;:?!]*)")
# Letters only, but NLTK makes two words of each.
_CONTRACTED = frozenset(("cannot", "gimme", "gonna", "gotta", "lemme", "wanna"))
_CONTRACTION = re.compile(rf"\b(?:{'|'.join(sorted(_CONTRACTED))})\b")
_LONGEST = 40  # characters of a cached chunk, including the white space around it
_CACHE_SIZE = 1 << 18
_MARK = "\ue000"  # replaces a neighbour and separates chunks that are tokenised together


@cache
def _splitters() -> tuple[Callable[[str], list[str]], Callable[[str], list[str]]]:
    """Sentences by the trained English Punkt tables, words by NLTK's tokenizer; neither downloads anything."""
    import punkt

    return punkt.tokenizer_for("english").tokenize, word_tokenizer()


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
    while end and not _plain(chunks[end - 1][0]):  # the end of the sentence is tokenised as a whole
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
            chunk_words = _cache.get(key) or _ordinary(chunk, bool(key[2]))
            if chunk_words is None:
                unknown[i] = key
            words.append(chunk_words or [])
        before = space
    if unknown:
        for i, chunk_words in zip(unknown, _tokenized(list(unknown.values())), strict=True):
            words[i] = chunk_words
    return list(itertools.chain.from_iterable(words))


def _plain(chunk: str) -> bool:
    return chunk.isalnum() and chunk.isascii() and chunk not in _CONTRACTED


_Key = tuple[str, str, str]  # white space, chunk, white space; no white space at the start or end of the sentence
_cache: dict[_Key, list[str]] = {}


def _ordinary(chunk: str, space_follows: bool) -> list[str] | None:
    """Words of a chunk of the usual form; None for other chunks."""
    stop = [] if space_follows or not chunk.endswith(".") else ["."]
    parts = _ORDINARY.fullmatch(chunk, 0, len(chunk) - len(stop))
    if not parts or _CONTRACTION.search(chunk):
        return None
    opening, word, closing = parts.groups()
    return [*opening, word, *closing, *stop]


def _tokenized(keys: list[_Key]) -> list[list[str]]:
    """Words of each of ``keys``, in one call; only the first may lack white space before it, only the last after it."""
    _, tokenize = _splitters()
    text = " ".join(f"{before and _MARK}{before}{chunk}{after}{after and _MARK}" for before, chunk, after in keys)
    runs = [list(run) for mark, run in itertools.groupby(tokenize(text), _MARK.__eq__) if not mark]
    for key, run in zip(keys, runs, strict=True):
        if sum(map(len, key)) <= _LONGEST:
            if len(_cache) >= _CACHE_SIZE:
                _cache.clear()
            _cache[key] = run
    return runs
