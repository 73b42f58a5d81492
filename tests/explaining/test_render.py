"""An explanation as text for a terminal of any width, and as a self-contained page."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from rich.cells import cell_len

from diffretriever_pyserini.evaluation.report import text_console
from diffretriever_pyserini.explaining.page import to_html
from diffretriever_pyserini.explaining.records import (
    Explanation,
    Interaction,
    MaskPosition,
    Overlap,
    Proposal,
    RankedEntry,
    Term,
    TextView,
)
from diffretriever_pyserini.explaining.text import shortened, to_text, verdict, visible
from diffretriever_pyserini.scoring.fusion import Contribution

EVIL = "</title></style><script>alert('1')</script><img src=\"http://x.example/y\" onerror=a&amp;b>"
EVIL += "\x00\x1b[31m\u202e\ud800"
VOID = {"meta", "br", "img", "link", "input", "hr"}


def explanation(text: str, docid: str, k_passage: int = 16) -> Explanation:
    """An explanation with every field set, and ``text`` in every field that shows foreign text."""
    one = Proposal(text, text, text, 0.42, 1.5, True, False)
    end = Proposal("[SEP]", "[SEP]", None, 0.0001, 2.5, False, True)
    positions = (MaskPosition((one, end), (one,), True), MaskPosition((end, one), (), False))
    cells = tuple(tuple(0.01 * (i + j) - 0.05 for j in range(k_passage)) for i in range(3))
    empty = tuple(j == 1 for j in range(k_passage))
    last = k_passage - 1
    pairs = Interaction(cells, (last, last, None), (0.1, 0.11, 0.0), (False, False, True), empty, 0.21, 0.07)
    term = Term(text, text, 12, 34)
    overlap = Overlap((term,), (term,), (term,), 2, 2)
    contributions = (
        Contribution("multi", 60, 3, 0.2134567, 0.1, 0.9, 0.14, 0.5, 0.07),
        Contribution("lexical", 12, None, None, 0.0, 4000.0, 0.0, 0.5, 0.0),
    )
    result = RankedEntry("hybrid", "minmax", 1000, 61, 17, 0.07, None, contributions)
    return Explanation(
        index=text,
        encoder=text,
        docid=docid,
        query=TextView(text, 4, False, positions),
        passage=TextView(text * 50, 128, True, positions),
        vectors=pairs,
        indexed_vectors=pairs,
        similarity=0.99,
        dense=0.0712,
        terms=overlap,
        indexed_terms=overlap,
        lucene_document=True,
        result=result,
        notes=(text,),
    )


class Reader(HTMLParser):
    """Checks that tags are balanced; keeps tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", [EVIL, "برج طوكيو", "東京タワー " * 3000, "", "plain"], ids=range(5))
def test_the_page_is_whole_and_holds_nothing_foreign(text: str) -> None:
    page = to_html([explanation(text, EVIL), explanation("other", "d2", 1)])
    page.encode()  # no lone surrogate is left
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") or name in ("src", "srcset", "action") for name in attributes)
        assert re.fullmatch(r"#p\d+", attributes.get("href") or "#p1")
    assert not re.search(r"url\(|@import|http-equiv", page)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page)
    assert "prefers-color-scheme: dark" in page and reader.text.count("Rank 17 of 61") == 6
    if text == EVIL:
        assert "alert('1')</script>" in reader.text and "\\u202e\\ud800" in reader.text


def test_tables_are_accessible() -> None:
    reader = Reader()
    reader.feed(to_html([explanation("plain", "d1")]))
    html = next(attributes for tag, attributes in reader.tags if tag == "html")
    assert html["lang"] == "en"
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in reader.tags if tag == "th")
    scrolling = [attributes for _, attributes in reader.tags if attributes.get("class") == "scroll"]
    assert len(scrolling) == 4  # two matrices, terms, fusion
    assert all(one["role"] == "region" and one["tabindex"] == "0" and one["aria-label"] for one in scrolling)
    assert "empty" in reader.text and "not in the list: its score is 0" in reader.text
    assert "(special)" in reader.text and "After the end of the answer" in reader.text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_gets_lines_that_fit(width: int) -> None:
    explanations = [explanation(text, text) for text in ("a plain word", EVIL, "東京タワー" * 30, "e\u0301" * 300)]
    text = to_text(explanations, text_console(io.StringIO(), width))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    for line in text.splitlines():
        assert cell_len(line) <= width, line
    unwrapped = " ".join(text.split())
    assert unwrapped.count("Rank 17 of 61") == 8 and unwrapped.count("sum 0.2100") == 4
    assert "q3 is empty" in unwrapped and "q1 → p16 0.1000" in unwrapped and "*0.100" in unwrapped
    assert "lexical: not in the list: its score is 0, so it adds 0" in unwrapped
    assert "…" not in unwrapped.replace(" … (", "")  # no figure is cut
    for figures in (("12", "34", "408"), ("3 of 60", "0.2135", "0.1000 to 0.9000", "0.1400", "0.5000", "0.0700")):
        assert len(re.findall(".{1,20}?".join(map(re.escape, figures)), unwrapped)) == 4, figures


def test_nothing_is_wrapped_or_cut_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    docid, word = "doc-" + "9" * 300, "w" * 300
    lines = to_text([explanation(word, docid, 64)]).splitlines()
    assert f"Passage  {docid}: {word}" in "\n".join(lines)
    assert any(line.split() == [word, "12", "34", "408"] for line in lines)
    assert any(line.split()[0] == "q1" and len(line.split()) == 65 for line in lines if line.strip())
    assert sum(line.split() == ["", *(f"p{j}" for j in range(1, 65))][1:] for line in lines) == 1


def test_only_terminals_get_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    explanations = [explanation("[red]plain :smile:", "d1")]
    plain = to_text(explanations, text_console(io.StringIO(), 80))
    coloured = to_text(explanations, text_console(Terminal(), 80))
    assert "\x1b" not in plain and "\x1b[1m" in coloured
    without = "\n".join(line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", coloured).splitlines())
    assert without == plain and "[red]plain :smile:" in plain


def test_without_a_text_what_is_known_is_shown() -> None:
    bare = dataclasses.replace(
        explanation("plain", "d1"), passage=None, vectors=None, indexed_vectors=None, terms=None, indexed_terms=None
    )
    for rendered in (to_text([bare]), to_html([bare])):
        assert "he terms are not known" in rendered
    assert "(text not known)" in to_text([bare])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Rank 17 of 61, fused score 0.0700 (multi and lexical, min-max)."),
        ({"hits": 10}, "A search returns the first 10, so it does not show it."),
        ({"fusion": "rrf", "rrf_k": 60}, "fused score 0.070000 (multi and lexical, reciprocal ranks with k = 60)."),
        ({"rank": None, "score": None}, "It is in no list: multi (60 listed), lexical (12 listed)."),
    ],
    ids=["listed", "cut", "rrf", "absent"],
)
def test_the_verdict(changes: dict[str, object], expected: str) -> None:
    result = explanation("plain", "d1").result
    assert expected in verdict(dataclasses.replace(result, **changes))


def test_texts_made_safe() -> None:
    assert visible("a\tb\r\nc\u2028d") == "a b c d"
    assert visible("\x1b[0m\u202e\ud800\x00") == "\\u001b[0m\\u202e\\ud800\\u0000"
    assert shortened("a" * 9, 9) == "a" * 9 and shortened("a" * 10, 4) == "aaaa … (10 characters in all)"
