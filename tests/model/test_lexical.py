"""Words, weights and Lucene names, against numbers computed by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.lexical import (
    ESCAPE,
    ContentTokens,
    TermNames,
    content_words,
    escape_term,
    split_words,
    stopwords,
)

from .. import warm
from .conftest import wordpiece

# Everything for which java.lang.Character.isWhitespace is true.
JAVA_WHITESPACE = [
    *(chr(c) for c in (*range(0x09, 0x0E), *range(0x1C, 0x21), *range(0x2000, 0x2007), *range(0x2008, 0x200B))),
    *"\u1680\u2028\u2029\u205f\u3000",
]
AWKWARD = [
    *JAVA_WHITESPACE,
    "\ufeff",
    "\ud800",
    "\udfff",
    ESCAPE,
    "\0",
    "\xa0",
    "\u200b",
    "\x85",
    "#",
    ";",
    "Ġ",
    "😀",
    "2",
    "a",
]
TOKENS = st.one_of(st.text(max_size=8), st.lists(st.sampled_from(AWKWARD), max_size=8).map("".join))


@pytest.mark.parametrize("text", ["", " \n\t", "the and of", "!", ". , ; ?", "The OF? !"])
def test_texts_without_content(text: str) -> None:
    assert content_words(text) == []
    assert ContentTokens(wordpiece())(text) == []


def test_content_words() -> None:
    assert content_words("The Retrieval of PASSAGES, in 2 words.") == ["retrieval", "passages", "2", "words"]
    assert content_words("word, word") == ["word", "word"]
    assert split_words("Don't stop. Dr. Who's here...") == ["do", "n't", "stop", ".", "dr.", "who", "'s", "here", "..."]
    assert content_words("hello...") == ["hello", "..."], "only single punctuation marks are dropped"
    assert len(stopwords()) == 198


def test_content_tokens_are_ascending_ids_without_the_mask() -> None:
    tokenizer = wordpiece()
    tokens = ContentTokens(tokenizer, excluded=[tokenizer.mask_token_id])
    expected = sorted(tokenizer.convert_tokens_to_ids(["retrieval", "index", "##ing"]))
    assert tokens("indexing the retrieval index") == expected
    assert tokens("indexing the retrieval index") == expected, "from the cache"
    assert tokenizer.mask_token_id not in tokens("[MASK] [mask] mask")


def test_each_word_has_its_ids() -> None:
    tokenizer = wordpiece("index", "##ing")
    tokens = ContentTokens(tokenizer, excluded=[tokenizer.convert_tokens_to_ids("dense")])
    by_word = tokens.by_word("Indexing the 🦄: dense retrieval, index INDEX banana")
    assert list(by_word) == ["indexing", "🦄", "dense", "retrieval", "index", "banana"]
    pieces = {word: tokenizer.convert_ids_to_tokens(ids) for word, ids in by_word.items()}
    assert pieces["indexing"] == ["index", "##ing"] and pieces["🦄"] == pieces["dense"] == []
    assert pieces["banana"] == ["b", "##a", "##n"]  # each once
    for text in ("indexing the words of retrieval, 🦄 dense", "", "banana words"):
        assert tokens(text) == sorted({i for ids in tokens.by_word(text).values() for i in ids})


def test_the_unknown_word_is_no_term() -> None:
    """Two words that a vocabulary does not know are not the same word."""
    tokenizer = wordpiece()
    for tokens in (ContentTokens(tokenizer), ContentTokens(tokenizer, stems=True)):
        for text in ("🦄", "𓀀", "🦄 the 𓀀 ☃", "[UNK]"):
            assert tokenizer.unk_token_id not in tokens(text)
        assert tokens("🦄") == tokens("𓀀") == tokens("🦄") == []
        assert tokens("dense 🦄 index") == tokens("dense index") != []


def test_known_pieces_of_an_unknown_word_count() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁dense", -1.0), ("de", -3.0), ("nse", -3.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens = ContentTokens(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"))
    assert tokens("🦄") == tokens("日本") == []  # nor the mark of a word's start
    assert tokens("dense 🦄") == [2]
    assert tokens("de🦄nse") == [1, 3, 4]


def test_a_vocabulary_without_an_unknown_word_drops_nothing() -> None:
    class Bytes:
        unk_token_id = None

        def __call__(self, words: list[str], **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [list(word.encode()) for word in words]}

    assert ContentTokens(Bytes())("é") == sorted("é".encode())


def test_the_cache_is_replaced_when_full_and_reading_stops_at_max_chars() -> None:
    tokenizer = wordpiece()
    few = ContentTokens(tokenizer, max_words=2)
    fresh = ContentTokens(tokenizer)
    for text in ("dense index query", "passage retrieval", "dense retrieval", "index x y z"):
        assert few(text) == fresh(text)
    short = ContentTokens(tokenizer, max_chars=11)
    assert short("dense index query") == fresh("dense index")


def test_words_of_one_stem_are_one_term() -> None:
    tokenizer = wordpiece("algorithm", "algorithms", "comput", "##ing", "computer", "running", "c3po")
    tokens = ContentTokens(tokenizer, stems=True)

    def terms(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokens(text))

    assert terms("Algorithms") == terms("algorithm") == terms("algorithmic algorithms") == ["algorithm"]
    assert terms("computing") == terms("computes") == ["comput"], "the first row with the stem, also for unknown words"
    assert terms("running runs") == ["running"]
    assert terms("c3po") == ["c3po"], "other words are their word pieces"
    assert ContentTokens(tokenizer)("algorithms") != tokens("algorithms"), "only with stems"


def test_content_tokens_between_threads() -> None:
    tokenizer = wordpiece()
    shared, fresh = ContentTokens(tokenizer, max_words=3), ContentTokens(tokenizer)
    texts = [f"dense{i} index{i % 7} query" for i in range(60)]
    expected = [fresh(text) for text in texts]
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(text for text, ids in zip(texts, expected, strict=True) if shared(text) != ids)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(TOKENS)
@settings(max_examples=300)
def test_escaping_is_reversible_and_leaves_no_java_white_space(token: str) -> None:
    term = escape_term(token)
    assert re.sub(f"{ESCAPE}([0-9a-f]+);", lambda match: chr(int(match[1], 16)), term) == token
    assert not any(char in term for char in JAVA_WHITESPACE)
    assert not term.startswith("\ufeff")
    term.encode("utf-8")  # lone surrogates would raise


@given(st.lists(TOKENS, unique=True, max_size=20))
def test_escaped_tokens_stay_different(tokens: list[str]) -> None:
    assert len({escape_term(token) for token in tokens}) == len(tokens)


def test_ordinary_tokens_stay_as_they_are() -> None:
    for token in ("Ġthe", "##ing", "Ċ", "▁the", "日本", "😀", "\xa0", "\u200b", "\x85", "a\ufeff"):
        assert escape_term(token) == token
    assert escape_term("a b") == f"a{ESCAPE}20;b"
    assert escape_term("\ufeffa") == f"{ESCAPE}feff;a"
    assert escape_term("\0") == f"{ESCAPE}0;"  # Anserini would treat a passage of nothing else as empty


class Vocabulary:
    """The part of a tokenizer that TermNames uses: strings by id, some missing."""

    def __init__(self, *tokens: str | None):
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self._tokens[i] for i in ids]


def test_every_row_has_a_unique_name() -> None:
    tokens = ["a", "a", "", None, "b" * 255, "c" * 256, "😀" * 128, "d\u3000" * 80, f"{ESCAPE}#0;", ESCAPE]
    names = TermNames(Vocabulary(*tokens), 13)
    by_row = [names.name(row) for row in range(13)]
    assert by_row[:6] == ["a", f"{ESCAPE}#1;", f"{ESCAPE}#2;", f"{ESCAPE}#3;", "b" * 255, f"{ESCAPE}#5;"]
    assert by_row[6] == f"{ESCAPE}#6;"  # 256 UTF-16 units
    assert by_row[7] == f"{ESCAPE}#7;"  # too long once escaped
    assert by_row[10:] == [f"{ESCAPE}#{row};" for row in (10, 11, 12)]  # rows beyond the tokenizer
    assert len(set(by_row)) == 13
    assert [names.row(name) for name in by_row] == list(range(13))
    with pytest.raises(ConfigError, match=r"'zebra' is not in this vocabulary; use the model that built the index"):
        names.row("zebra")


def test_rows_may_be_fewer_than_tokens() -> None:
    names = TermNames(Vocabulary("a", "b", "c"), 2)
    assert [names.name(0), names.name(1)] == ["a", "b"]
    with pytest.raises(ConfigError):
        names.row("c")


@given(st.lists(st.one_of(TOKENS, st.none(), st.text(min_size=250, max_size=300)), max_size=12))
@settings(max_examples=100)
def test_names_are_unique_whatever_the_vocabulary(tokens: list[str | None]) -> None:
    names = TermNames(Vocabulary(*tokens), len(tokens) + 2)
    rows = range(len(tokens) + 2)
    assert [names.row(names.name(row)) for row in rows] == list(rows)
    assert all(len(names.name(row).encode("utf-16-le")) <= 510 for row in rows)


READ_BACK = """
import json, sys
folder, size = sys.argv[1], int(sys.argv[2])
from diffretriever_pyserini.runtime import java
choice = java.choose_java()
java.point_environment_at(choice.runtime)
if not choice.runtime.vector:
    java.drop_vector_option()
import runpy
sys.argv[1:] = ("--collection JsonVectorCollection --generator DefaultLuceneDocumentGenerator --input {0}/in "
                "--index {0}/index --threads 1 --impact --pretokenized --storeDocvectors").format(folder).split()
runpy.run_module("pyserini.index.lucene", run_name="__main__")
from pyserini.index.lucene import LuceneIndexReader
reader = LuceneIndexReader(folder + "/index")
documents = {f"d{i}": reader.get_document_vector(f"d{i}") for i in range(size)}
counts = [[t.term, t.df, t.cf] for t in reader.terms()]
json.dump([documents, counts], open(folder + "/read.json", "w"))
"""


@pytest.mark.java
def test_names_survive_lucene(tmp_path: Path) -> None:
    """Anserini indexes the names and gives every one back with its impact."""
    tokens = [chr(c) for c in (*range(0x00, 0x21), 0x7F, 0x85, 0xA0, 0xAD, 0x600, 0x180E, 0xFFFD, 0xFFFE, 0xFFFF)]
    tokens += [
        *JAVA_WHITESPACE,
        *(f"a{c}b" for c in AWKWARD),
        "Ġthe",
        "Ċ",
        "##ing",
        "😀",
        "👩‍👩‍👧",
        "\ufeffa",
        "a\ufeff",
    ]
    tokens += [
        ESCAPE,
        f"{ESCAPE}20;",
        f"{ESCAPE}#3;",
        '"',
        "\\",
        "{",
        "}",
        ":",
        "*",
        "AND",
        "the",
        "b" * 255,
        "c" * 300,
    ]
    tokens += ["😀" * 128, "e\u0301", "é", "ﬁ", "İ", "\U0010ffff", "", None]
    names = TermNames(Vocabulary(*tokens), len(tokens) + 2)
    terms = [names.name(row) for row in range(len(tokens) + 2)]
    documents = {"d0": {term: row + 1 for row, term in enumerate(terms)}, "d1": {terms[0]: 100_000, terms[1]: 1}}
    (tmp_path / "in").mkdir()
    lines = [json.dumps({"id": key, "contents": "", "vector": vector}) for key, vector in documents.items()]
    (tmp_path / "in" / "docs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = subprocess.run(
        [warm.python(), "-c", READ_BACK, str(tmp_path), "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    read, counts = json.loads((tmp_path / "read.json").read_text(encoding="utf-8"))
    assert read == documents
    assert {term: cf for term, _, cf in counts} == {
        term: documents["d0"][term] + documents["d1"].get(term, 0) for term in terms
    }
    assert sorted(map(names.row, read["d0"])) == list(range(len(terms)))
