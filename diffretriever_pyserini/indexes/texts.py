"""The texts of a store's passages, which are read again from its corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ..corpora.corpus import Corpus, Passage, RawRow, parse_row
from ..corpora.formats import digested
from ..errors import InputError
from ..store.part import Part
from ..store.store import Store


class StoreTexts:
    """The passages of ``store`` with their texts, part by part, in constant memory.

    Rows are skipped where parts are, so that a continued upload reads only what it lacks.

    Parameters
    ----------
    sources : of the corpus; none are the files that the store names.

    Raises
    ------
    InputError
        When the corpus is missing, or is not the one that was encoded.
    """

    def __init__(self, store: Store, sources: Sequence[str] = ()):
        self._store = store
        self._corpus = _corpus_of(store, sources)
        self._rows: Iterator[RawRow] = iter(())
        self._next = -1  # the row of the corpus that comes next

    def passages(self, part: Part, docids: Sequence[str]) -> Iterator[Passage]:
        """Yield the passages of ``part``, whose ids are ``docids``.

        Raises
        ------
        InputError
            Where a row of the corpus is not the passage that was encoded.
        """
        first, count = part.header["part"] * self._store.spec.rows_per_part, part.header["rows"]
        if first != self._next:
            self._rows = self._corpus.rows(first)
        self._next = first + count
        skipped = {_line(where) for where, _ in part.header["skipped"]}
        left, digest = iter(docids), hashlib.sha256()
        for row in digested(islice(self._rows, count), digest):
            if _line(row.where) in skipped:
                continue
            passage, docid = parse_row(row), next(left, None)
            if passage.docid != docid:
                raise self._changed(f"{row.where} holds passage {passage.docid!r}, not {docid!r}")
            yield passage
        if (docid := next(left, None)) is not None:
            raise self._changed(f"{self._corpus.files[-1]} ends before passage {docid!r}")
        if not part.made_from(digest.hexdigest()):
            raise self._changed(f"rows {first + 1:,} to {first + count:,} of the corpus are not those of {part.path}")

    def _changed(self, difference: str) -> InputError:
        return InputError(
            f"{difference}, so the corpus has changed since {self._store.folder} was made: encode it again."
        )


def _corpus_of(store: Store, sources: Sequence[str]) -> Corpus:
    spec = store.spec
    try:
        corpus = Corpus(sources or spec.files)
    except InputError as error:
        if sources:
            raise
        raise InputError(
            f"the corpus of {store.folder} is not where it was encoded: name its files or its folder with --corpus. "
            f"({error})"
        ) from error
    if corpus.identity() != spec.corpus:
        raise InputError(
            f"{', '.join(corpus.files)} is not the corpus of {store.folder} (names or sizes of the files differ): give "
            f"{', '.join(spec.files)}, or encode this one."
        )
    return corpus


def _line(where: str) -> tuple[str, str]:
    """File name and line of a row, as the folder may have another path now."""
    path, _, line = where.rpartition(", ")
    return Path(path).name, line
