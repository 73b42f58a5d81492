"""Impacts of single passages out of a Lucene index: one jump into the posting list of each term."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..runtime import java

_FIELD = "contents"


class Postings:
    """A Lucene impact index, read term by term; close it when done."""

    def __init__(self, folder: Path):
        java.check_process()
        java.prepare()
        from pyserini.index.lucene import LuceneIndexReader
        from pyserini.pyclass import autoclass

        self._index: Any = LuceneIndexReader(str(folder))
        self._terms = autoclass("org.apache.lucene.index.MultiTerms")
        self._bytes = autoclass("org.apache.lucene.util.BytesRef")

    def impacts(self, docid: str, terms: Iterable[str]) -> dict[str, int] | None:
        """Impacts of those ``terms`` that the passage has; None where the index does not hold the passage."""
        java.check_process()
        number = self._index.convert_collection_docid_to_internal_docid(docid)
        if number < 0:
            return None
        found = {}
        for term in terms:
            postings = self._terms.getTermPostingsEnum(self._index.reader, _FIELD, self._bytes(term.encode()))
            if postings is not None and postings.advance(number) == number:
                found[term] = int(postings.freq())
        return found

    def close(self) -> None:
        """Close Lucene's files."""
        self._index.reader.close()
