"""Cleaning of every text before a model, an index or a comparison reads it."""

import re

_SURROGATES = re.compile("[\ud800-\udfff]+")


def clean_text(text: str) -> str:
    """``text`` with lone surrogates, which no tokenizer accepts, replaced by U+FFFD; the rest is unchanged."""
    if text.isascii():
        return text
    return _SURROGATES.sub(lambda run: run[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), text)


def join_title(title: str | None, text: str | None) -> str:
    """Title and text of a passage joined by one space and stripped; None counts as empty (docs/method.md §2)."""
    return f"{title or ''} {text or ''}".strip()
