"""Pieces joined to whole words, and these marked in a text."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from diffretriever_pyserini.explaining.records import Term
from diffretriever_pyserini.explaining.words import Word, marked, shortened, visible, whole_words


def term(name: str, query: Iterable[str], passage: Iterable[str], impacts: tuple[int, int] = (2, 3)) -> Term:
    return Term(name, name, *impacts, tuple(query), tuple(passage))


def labels(*terms: Term) -> list[tuple[str, str]]:
    return [(word.label, word.products) for word in whole_words(terms)]


def test_the_pieces_of_a_word_are_one() -> None:
    pieces = term("stat", ["statin"], ["statin"], (9, 8)), term("##in", ["statin"], ["statin", "insulin"])
    assert labels(*pieces) == [("statin", "stat 9 × 8 + ##in 2 × 3")]
    [word] = whole_words(pieces)
    assert word.share == 78 and word.passage == ("statin",)  # insulin has only one of the pieces


def test_a_piece_of_another_word_names_it() -> None:
    assert labels(term("stat", ["statins"], ["statin"])) == [("statins → statin", "stat 2 × 3")]


def test_a_stem_names_all_forms() -> None:
    forms = term("computer", ["computing"], ["computers", "computed"])
    assert labels(forms) == [("computing → computers, computed", "computer 2 × 3")]
    many = term("computer", ["computing"], [f"computer{i}" for i in range(9)])
    assert labels(many)[0][0] == "computing → computer0, computer1, computer2, computer3, …"


def test_words_that_share_a_piece_are_one_row() -> None:
    terms = (
        term("as", ["aspirin"], ["aspirin"]),
        term("tower", ["tower"], ["tower"], (1, 2)),
        term("stat", ["statin"], ["statin"]),
        term("##in", ["aspirin", "statin"], ["aspirin", "statin"], (50, 1)),
    )
    assert labels(*terms) == [
        ("aspirin, statin", "as 2 × 3 + stat 2 × 3 + ##in 50 × 1"),
        ("tower", "1 × 2"),
    ]
    # Of two words of the query, one has all the pieces that matched.
    assert (
        labels(term("in", ["insulin"], ["insulin"]), term("##in", ["insulin", "aspirin"], ["insulin"]))[0][0]
        == "insulin"
    )


def test_terms_without_a_word_are_named_themselves() -> None:
    assert labels(term(" tower", [], [])) == [("tower", "2 × 3")]
    assert labels(term("paris", ["paris"], ())) == [("paris", "2 × 3")]  # of a passage whose text is not known
    assert labels(term("capital", [], ["capital"])) == [("capital", "2 × 3")]


def test_words_of_one_side() -> None:
    [query, rest] = whole_words([term("stat", ["statins"], [], (5, 0)), term("x", ["x"], [], (4, 0))])
    assert (query.label, query.impacts("query"), rest.label) == ("statins", "stat 5", "x")
    [passage] = whole_words([term("stat", [], ["statin"], (0, 5)), term("##in", [], ["statin"], (0, 4))])
    assert (passage.label, passage.impacts("passage")) == ("statin", "stat 5 + ##in 4")


names = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True)


@given(st.lists(st.tuples(names, names, st.integers(1, 9), st.integers(1, 9)), max_size=8))
def test_every_term_is_in_one_word(drawn: list[tuple[list[str], list[str], int, int]]) -> None:
    terms = [term(str(i), query, passage, (q, p)) for i, (query, passage, q, p) in enumerate(drawn)]
    words: list[Word] = whole_words(terms)
    assert sorted(one.term for word in words for one in word.terms) == [one.term for one in terms]
    assert sum(word.share for word in words) == sum(one.share for one in terms)
    assert [word.share for word in words] == sorted((word.share for word in words), reverse=True)
    for first in words:
        for second in words:
            assert first is second or not {*first.query} & {*second.query}


def test_marks_are_on_whole_words() -> None:
    def of(text: str, *words: str) -> str:
        return "".join(f"[{piece}]" if is_word else piece for piece, is_word in marked(text, words, 1000))

    assert of("Tower, towers and TOWER.", "tower") == "[Tower], towers and [TOWER]."
    assert of("state-of-the-art art", "state-of-the-art", "art") == "[state-of-the-art] [art]"
    assert of("C++ for $5 in c", "c++", "$5", "c") == "[C++] for [$5] in [c]"
    assert of("برج طوكيو 日本", "طوكيو", "日本") == "برج [طوكيو] [日本]"
    assert of("a\x1bb tower\n", "tower") == "a\\u001bb [tower] "
    assert of("plain") == "plain" and of("") == "" and of("[red](a|b)*", "(a|b)*") == "[red][(a|b)*]"


def test_a_long_text_is_cut_around_its_first_word() -> None:
    text = "x " * 500 + "tower " + "y " * 500
    pieces = marked(text, ["tower"], 100)
    assert pieces[0] == ("… ", False) and ("tower", True) in pieces
    assert pieces[-1][0].endswith(" … (2,006 characters in all)")
    assert sum(len(piece) for piece, _ in pieces) < 150
    assert marked(text, ["absent"], 4)[0][0] == "x x … (2,006 characters in all)"


def test_texts_made_safe() -> None:
    assert visible("a\tb\r\nc\u2028d") == "a b c d"
    assert visible("\x1b[0m\u202e\ud800\x00") == "\\u001b[0m\\u202e\\ud800\\u0000"
    assert shortened("a" * 9, 9) == "a" * 9 and shortened("a" * 10, 4) == "aaaa … (10 characters in all)"
