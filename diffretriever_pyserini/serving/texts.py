"""The texts of a store's passages, which the store does not hold, from its corpus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice

from ..corpora.corpus import Corpus, Passage, RawRow, parse_row
from ..errors import InputError
from ..store.part import Part
from ..store.store import Store
from .engine import DOCID


class Texts:
    """Titles and texts, part by part, so that a continued upload skips what it has.

    Raises
    ------
    InputError
        When ``corpus`` is not the one that was encoded.
    """

    def __init__(self, corpus: Corpus, store: Store):
        self._corpus, self._rows_per_part = corpus, store.spec.rows_per_part
        if corpus.identity() != store.spec.corpus:
            raise InputError(
                f"{', '.join(corpus.files)} is not the corpus that was encoded (file names or sizes differ): give "
                f"{', '.join(store.spec.files)}."
            )
        self._rows: Iterator[RawRow] = iter(())
        self._next = -1  # the row of the corpus that comes next

    def payloads(self, part: Part) -> list[dict[str, str]]:
        """The payload of each passage of ``part``: docid, text, and a title if there is one.

        Raises
        ------
        InputError
            When the corpus has changed so that a passage is not in its rows.
        """
        first, count = int(part.header["part"]) * self._rows_per_part, int(part.header["rows"])
        if first != self._next:
            self._rows = self._corpus.rows(first)
        self._next = first + count
        passages: dict[str, Passage] = {}
        for row in islice(self._rows, count):
            with contextlib.suppress(InputError):  # a row that was skipped
                passage = parse_row(row)
                passages.setdefault(passage.docid, passage)
        missing = [docid for docid in part.docids if docid not in passages]
        if missing:
            raise InputError(
                f"{', '.join(self._corpus.files)}: the passage {missing[0]!r} is not in the rows that {part.path} was "
                "encoded from, so the corpus has changed; give the one that was encoded."
            )
        return [_payload(passages[docid]) for docid in part.docids]


def _payload(passage: Passage) -> dict[str, str]:
    title = {"title": passage.title} if passage.title else {}
    return {DOCID: passage.docid, **title, "text": passage.text}
