"""Cached chunks give NLTK's words for any text."""

from __future__ import annotations

import itertools
from pathlib import Path

import punkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.destructive import NLTKWordTokenizer

from diffretriever_pyserini.corpora.corpus import Corpus, parse_row
from diffretriever_pyserini.model import words
from diffretriever_pyserini.model.words import split_words

_PIECES = (
    "a word Of 7 0 3,5 3:4 a,b a:b u.s. e.g. Dr. can't cannot wanna gimme 'tis 'twas d'ye more'n don't n't 's s' x' "
    "'em i'm they'll we've you're he'd it's rock'n'roll ''ve 're gim me na '' \" `` ` ' ( ) [ ] { } < > . .. ... , : ; "
    "- -- \u2014 \u2013 \u2012 $ % & # @ ! ? * / _ \u201c \u201d \u2018 \u2019 \xab \xbb \u201e \xe9 \xdf \u65e5 "
    "\xa0x \u200b \u0130 \u01f0 \x1c \x85"
)
PIECES = _PIECES.split(" ")
SPACES = [" ", "  ", "\n", "\t", "\n\n", " \n", "\r\n", "\u2003"]
chunks = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
texts = st.lists(st.tuples(chunks, st.sampled_from(SPACES)), max_size=9).map(lambda pairs: "".join(map("".join, pairs)))


def nltk_words(text: str) -> list[str]:
    sentences, tokenize = punkt.tokenizer_for("english").tokenize, NLTKWordTokenizer().tokenize
    return [word for sentence in sentences(text.lower()) for word in tokenize(sentence)]


@settings(max_examples=1500, deadline=None)
@given(texts, st.booleans())
def test_any_chunks(text: str, stripped: bool) -> None:
    text = text.strip() if stripped else text
    assert split_words(text) == nltk_words(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    assert split_words(text) == nltk_words(text)


def test_real_texts(shared_dir: Path) -> None:
    for row in itertools.islice(Corpus([shared_dir / "data" / "nfcorpus"]).rows(), 300):
        text = parse_row(row).text
        assert split_words(text) == nltk_words(text)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_cache", {})
    monkeypatch.setattr(words, "_CACHE_SIZE", 10)
    for i in range(50):
        text = f"'quoted{i}' and 'so{i}' on"
        assert split_words(text) == nltk_words(text)
        assert len(words._cache) <= 10
    spaces = " " * 500
    for text in (f"{'x' * 500}' is long", f"'tis{spaces}'twas{spaces}on"):
        assert split_words(text) == nltk_words(text)
    assert all(sum(map(len, key)) <= words._LONGEST for key in words._cache)


def test_a_text_with_the_separator_itself() -> None:
    for text in ("'tis \ue000 'twas", "\ue000", "it's 'so\ue000' now"):
        assert split_words(text) == nltk_words(text)
