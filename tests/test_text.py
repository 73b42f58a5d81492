"""Cleaning of every text."""

from diffretriever_pyserini.text import clean_text, join_title


def test_join_title() -> None:
    assert join_title("A title", "and text") == "A title and text"
    assert join_title(None, " text ") == "text"
    assert join_title("", "") == ""
    assert join_title("only a title", "") == "only a title"


def test_clean_text() -> None:
    assert clean_text("plain") == "plain"
    assert clean_text("naïve ☃ \0 \ufeff") == "naïve ☃ \0 \ufeff"
    assert clean_text("a\ud800b\udc00") == "a\ufffdb\ufffd"
    assert clean_text("\ud83d\ude00") == "\U0001f600"  # two adjacent halves are one character
    assert clean_text("\ud800\ud800") == "\ufffd\ufffd"
