"""What is shown of a passage: the part of its text that matches most, on one line, with its matching words marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from diffretriever_pyserini.searching.answers import Answer, AnswerHit, excerpt


def sharing(*terms: str) -> Callable[[str], frozenset[str]]:
    """Matches words that begin with one of ``terms``."""
    return lambda word: frozenset(term for term in terms if word.lower().startswith(term))


def marked(text: str, *terms: str) -> tuple[str, list[str]]:
    snippet, marks = excerpt(text, sharing(*terms))
    return snippet, [snippet[start:end] for start, end in marks]


def test_a_short_text_is_shown_whole_on_one_line() -> None:
    assert marked("The Tower's\n\theight:\x1b[31m 333 m (towers)", "tower", "height") == (
        "The Tower's height: [31m 333 m (towers)",
        ["Tower's", "height", "towers"],
    )
    assert marked("the \u202eTokyo\u202c \u2067tower\u2069.", "tower") == ("the Tokyo tower.", ["tower"])
    assert marked("", "tower") == ("", [])


def test_the_part_with_the_most_different_terms_is_shown() -> None:
    filler = "nothing of interest is said in this sentence. " * 20
    text = f"One tower, a tower and a tower. {filler}The tower in Tokyo is 333 metres high. {filler}"
    snippet, words = marked(text, "tower", "tokyo", "high")
    assert words == ["tower", "Tokyo", "high"]
    assert snippet.startswith("… ") and snippet.endswith(" …") and len(snippet) < 300
    assert snippet[2:-2] in text


@pytest.mark.parametrize("text", ["word " * 100, "字" * 500, "x" * 241, "a " + "字" * 500])
@pytest.mark.parametrize("term", ["nothing", "word", "字", "x"])
def test_a_long_text_is_cut_at_a_blank_where_there_is_one(text: str, term: str) -> None:
    snippet, words = marked(text, term)
    assert snippet.endswith(" …") and 200 <= len(snippet) <= 282
    assert text.startswith(snippet.removesuffix(" …"))
    assert all(word in text.split() for word in words)


def test_an_answer_prints_ranks_scores_titles_and_marked_words() -> None:
    hits = (
        AnswerHit(1, 0.75, "p2", "Tokyo Tower", "The tower is high.", ((4, 9),)),
        AnswerHit(2, 0.5, "p10", "", "Nothing."),
    )
    answer = Answer("q", "hybrid", hits)
    assert repr(answer).splitlines() == [
        "1.  0.7500  p2  Tokyo Tower",
        "    The *tower* is high.",
        "2.  0.5000  p10",
        "    Nothing.",
    ]
    assert asdict(answer)["hits"][0] == {
        "rank": 1, "score": 0.75, "docid": "p2", "title": "Tokyo Tower", "snippet": "The tower is high.",
        "marks": ((4, 9),),
    }  # fmt: skip
    whole = Answer("q", "lexical", (AnswerHit(1, 1234.0, "p2"),), "No texts.")
    assert repr(whole) == "1.  1,234  p2\nNo texts."
    assert repr(Answer("q", "lexical", ())) == "No passage matches."


def test_titles_are_aligned_to_docids_of_at_most_40_characters() -> None:
    hits = tuple(AnswerHit(rank, 0.5, docid, "Title") for rank, docid in enumerate(("p1", "x" * 60), start=1))
    assert repr(Answer("q", "dense", hits)).splitlines() == [
        f"1.  0.5000  p1{' ' * 38}  Title",
        f"2.  0.5000  {'x' * 60}  Title",
    ]
