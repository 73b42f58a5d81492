"""An explanation as text for a terminal of any width, and as a self-contained page."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.cells import cell_len

from diffretriever_pyserini.evaluation.report import text_console
from diffretriever_pyserini.explaining import page as page_module
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
from diffretriever_pyserini.explaining.text import FUSION_HEADER, amount_read, to_text, total, verdict
from diffretriever_pyserini.scoring.fusion import Contribution

EVIL = "</title></style><script>alert('1')</script><img src=\"http://x.example/y\" onerror=a&amp;b>"
EVIL += "\x00\x1b[31m\u202e\ud800"
VOID = {"meta", "br", "img", "link", "input", "hr"}


def explanation(text: str, docid: str, k_passage: int = 16) -> Explanation:
    """An explanation with every field set, and ``text`` in every field that shows foreign text."""
    one = Proposal(text, text, 0.42, 1.5, True, False)
    end = Proposal("[SEP]", "[SEP]", 0.0001, 2.5, False, True)
    positions = (MaskPosition((one, end), (one,), True), MaskPosition((end, one), (), False))
    cells = tuple(tuple(0.01 * (i + j) - 0.05 for j in range(k_passage)) for i in range(3))
    empty = tuple(j == 1 for j in range(k_passage))
    last = k_passage - 1
    pairs = Interaction(
        cells=cells,
        best=(last, last, None),
        gains=(0.1, 0.11, 0.0),
        empty_query=(False, False, True),
        empty_passage=empty,
        alike_query=((0,), (1,), (2,)),
        alike_passage=tuple((j,) for j in range(k_passage)),
        score=0.21,
        pooled=0.07,
    )
    terms = Term(text, text, 12, 34), Term(text, text, 56, 0), Term(text, text, 0, 78)
    overlap = Overlap(*((term,) for term in terms), 2, 2)
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
        frequencies=(f"Term frequency multiplies {text} 1.25.",),
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
    assert "prefers-color-scheme: dark" in page and reader.text.count("Rank 17 of 61") == 4
    if text == EVIL:
        assert "alert('1')</script>" in reader.text and "\\u202e\\ud800" in reader.text


def test_tables_are_accessible() -> None:
    reader = Reader()
    reader.feed(to_html([explanation("plain", "d1")]))
    html = next(attributes for tag, attributes in reader.tags if tag == "html")
    assert html["lang"] == "en"
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in reader.tags if tag == "th")
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
    assert unwrapped.count("Rank 17 of 61") == 4 and unwrapped.count("0.0700 = 0.5000 × 0.1400 (multi) + ") == 4
    assert re.search("q1:? (adds )?0.1000", unwrapped) and re.search("q3:? (adds )?empty", unwrapped)
    assert unwrapped.count("*0.100") == 4
    assert "lexical: not in the list: its score is 0, so it adds 0" in unwrapped
    assert "…" not in unwrapped.replace(" … (", "")  # no figure is cut
    for figures in (("12 × 34", "408"), ("3 of 60", "0.2135", "0.1000 to 0.9000", "0.1400", "0.5000", "0.0700")):
        assert len(re.findall(".{1,20}?".join(map(re.escape, figures)), unwrapped)) == 4, figures


def test_nothing_is_wrapped_or_cut_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    docid, word = "doc-" + "9" * 300, "w" * 300
    lines = to_text([explanation(word, docid, 64)]).splitlines()
    assert f"Passage  {docid} (128 tokens read, the maximum)" in lines
    assert any(line.split() == [word, "12", "×", "34", "408"] for line in lines)
    assert any(line.split()[0] == "q1" and len(line.split()) == 66 for line in lines if line.strip())
    assert sum(line.split() == ["adds", *(f"p{j}" for j in range(1, 65))] for line in lines) == 1


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


def test_the_verdict_comes_first_and_proposals_last() -> None:
    order = ("Rank 17 of 61", "Which terms matched", "Which vectors matched", "What the model proposes", "(special)")
    explanations = [explanation("plain", "d1")]
    reader = Reader()
    reader.feed(to_html(explanations))
    for rendered in (to_text(explanations), reader.text):
        positions = [rendered.index(part) for part in order]
        assert positions == sorted(positions)
        assert rendered.index("0.0700 = 0.5000 × 0.1400 (multi)") < positions[1]


def test_a_model_that_proposes_nothing_has_no_section_for_it() -> None:
    one = explanation("plain", "d1")
    assert one.passage is not None
    views = {"query": one.query, "passage": one.passage}
    silent = dataclasses.replace(one, **{name: dataclasses.replace(view, positions=()) for name, view in views.items()})
    for rendered in (to_text([silent]), to_html([silent])):
        assert "proposes" not in rendered and "[SEP]" not in rendered and "128 tokens read" in rendered


def of_words() -> Explanation:
    """A passage in which a word of two pieces matched, and another form of a word."""
    terms = (
        Term("computer", "computer", 20, 10, ("computing",), ("computers",)),
        Term("stat", "stat", 15, 10, ("statin",), ("statin",)),
        Term("##in", "##in", 3, 2, ("statin",), ("statin", "insulin")),
    )
    one = explanation("plain", "d1")
    assert one.passage is not None
    text = "Statins? A statin, insulin <b>and</b> computers."
    return dataclasses.replace(
        one, terms=Overlap(terms, (), (), 3, 9), passage=dataclasses.replace(one.passage, text=text)
    )


def test_matched_words_are_whole_and_marked_in_the_text() -> None:
    text, page = to_text([of_words()]), to_html([of_words()])
    assert "Statins? A *statin*, insulin <b>and</b> *computers*." in text
    marked = "Statins? A <mark>statin</mark>, insulin &lt;b&gt;and&lt;/b&gt; <mark>computers</mark>."
    assert marked in page
    rows = [line.split("  ") for line in text.splitlines() if " × " in line and "query" not in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows if "(multi)" not in row[-1]] == [
        ["computing → computers", "computer 20 × 10", "200"],
        ["statin", "stat 15 × 10 + ##in 3 × 2", "156"],
    ]
    reader = Reader()
    reader.feed(page)
    assert "statinstat 15 × 10 + ##in 3 × 2156" in reader.text.replace("\xa0", " ")


def test_a_long_text_is_on_the_page_whole() -> None:
    one = of_words()
    assert one.passage is not None
    long = dataclasses.replace(one, passage=dataclasses.replace(one.passage, text="word " * 1000 + "statin"))
    page = to_html([long])
    assert page.count("<mark>statin</mark>") == 2  # in the part with the first matched word, and in the whole text
    assert "<summary>The whole text</summary>" in page and "The whole text" not in to_html([one])
    assert re.search(r"Which terms matched\n +… .*\*statin\* \(5,006 characters in all\)", to_text([long]))


def test_scores_that_the_search_does_not_use_are_named() -> None:
    one = explanation("plain", "d1")
    multi, lexical = one.result.contributions
    sentence = "his search ({}) does not use these scores"
    for lists, expected in (((multi,), [1, 0]), ((lexical,), [0, 1]), ((multi, lexical), [0, 0])):
        text = to_text([dataclasses.replace(one, result=dataclasses.replace(one.result, contributions=lists))])
        terms, vectors = text.split("3. Which vectors matched")
        names = ", ".join(one.signal for one in lists)
        assert [part.count(sentence.format(names)) for part in (terms, vectors)] == expected


def test_all_passages_have_one_scale_of_colours() -> None:
    strong, weak = explanation("plain", "d1", 1), explanation("plain", "d2", 1)
    assert weak.vectors is not None
    weak = dataclasses.replace(
        weak, vectors=dataclasses.replace(weak.vectors, cells=((-0.05,), (-0.05,), (-0.05,))), indexed_vectors=None
    )
    assert "--v:1.00" in to_html([strong])
    assert "--v:1.00" not in to_html([strong, weak]).split("Passage <bdi>d2")[1]


CSS = (Path(page_module.__file__).parent / "page.css").read_text(encoding="utf-8")


def test_the_page_fits_any_screen() -> None:
    """No box scrolls or cuts its text, and none is wider than a telephone."""
    assert not re.search(r"overflow(-[xy])?\s*:|max-height|text-overflow|[^-]height\s*:\s*\d+(px|rem)", CSS)
    widths = re.findall(r"(?<!max-)(?:min-)?width\s*:\s*([\d.]+)(rem|px|em)", CSS)
    assert widths and all(float(number) * (1 if unit == "px" else 16) <= 120 for number, unit in widths)
    assert "overflow-wrap: anywhere" in CSS
    page = to_html([explanation("plain", "d1")])
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    # Tables of more than three columns are lists on a narrow screen, with the header beside each cell.
    narrow = CSS[CSS.index("@media (max-width: 48rem)") :]
    assert ".lists td { display: flex" in narrow and "content: attr(data-label)" in narrow
    reader = Reader()
    reader.feed(page)
    labels = [attributes["data-label"] for tag, attributes in reader.tags if tag == "td" and "data-label" in attributes]
    assert labels == [*FUSION_HEADER[1:]] * 2


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours ``#rrggbb``."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("block", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read(block: int) -> None:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", root)) for root in re.findall(r":root \{(.*?)\}", CSS, re.S)
    )
    colours = (light, dark)[block]
    assert light.keys() == dark.keys() and CSS.index(":root", 10) > CSS.index("prefers-color-scheme: dark")
    pairs = [("ink", "paper"), ("soft", "paper"), ("soft", "panel"), ("mark-ink", "mark"), ("note-ink", "note")]
    for text, ground in pairs:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["0.0700 = 0.5000 × 0.1400 (multi) + 0.5000 × 0.0000 (lexical)"]),
        ({"fusion": "rrf", "rrf_k": 60, "score": 0.0079365}, ["0.007937 = 0.5000 / (60 + 3) (multi)"]),
        ({"fusion": None}, []),
        ({"rank": None, "score": None}, []),
    ],
    ids=["minmax", "rrf", "single", "absent"],
)
def test_the_total(changes: dict[str, object], expected: list[str]) -> None:
    assert total(dataclasses.replace(explanation("plain", "d1").result, **changes)) == expected


@pytest.mark.parametrize(
    ("tokens", "full", "expected"),
    [
        (0, False, "no tokens read: the text is empty"),
        (1, False, "1 token read"),
        (1200, True, "1,200 tokens read, the maximum"),
    ],
)
def test_how_much_was_read(tokens: int, full: bool, expected: str) -> None:
    assert amount_read(TextView("a text", tokens, full, ())) == expected
