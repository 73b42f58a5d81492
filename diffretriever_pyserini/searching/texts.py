"""BM25 over a Lucene index of texts, of this package or Pyserini's, and the texts themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..corpora.formats import Passage, RawRow, parse_row
from ..errors import BUILD_AGAIN, InputError
from ..runtime import java
from ..scoring.ranking import through_ties
from ..text import clean_text
from .lucene import Scores, lucene_lists, through_the_tie_at

if TYPE_CHECKING:
    from ..model.representations import QueryRepresentation

K1, B = 0.9, 0.4  # Pyserini's defaults


class TextSearcher:
    """A Lucene index of texts, searched with the queries' texts by BM25 (k1 = 0.9, b = 0.4).

    ``lucene`` is the open ``LuceneSearcher`` of Pyserini.

    Raises
    ------
    InputError
        When Lucene cannot open the folder.
    """

    exact = False

    def __init__(self, folder: Path):
        java.check_process()
        java.prepare()
        from pyserini.analysis import Analyzer
        from pyserini.search.lucene import LuceneSearcher

        # isort: split
        from jnius import JavaException  # after Pyserini, which sets the class path of the JVM

        self._folder = folder
        self.without = f"Titles and texts are not shown, as {folder} has none of them: build it with --storeRaw."
        try:
            with java.calls:
                self.lucene = LuceneSearcher(str(folder.absolute()))
                self.lucene.set_bm25(K1, B)
                # Anserini rounds scores and lowers tied ones; an empty cascade leaves them as they are. (Writing a Java
                # field from Python can crash the JVM later, so the list is emptied instead.)
                self.lucene.object.cascade.rerankers.clear()
                self._analyzer = Analyzer(self.lucene.object.get_analyzer())
        except JavaException as error:
            raise InputError(f"{folder}: Lucene cannot open this index ({java.said(error)}); {BUILD_AGAIN}.") from error
        self.documents: int = self.lucene.num_docs

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """By BM25; only documents that share a term."""
        java.check_process()
        texts = [_for_java(query.text) for query in queries]

        def search(asked: Sequence[int], wanted: int) -> list[Scores]:
            lists = lucene_lists(self.lucene, self._folder, [texts[number] for number in asked], wanted, threads)
            return [through_the_tie_at(min(depth, wanted), hits, float) for hits in lists]

        return through_ties(search, len(texts), depth, self.documents)

    def passages(self, docids: Iterable[str]) -> dict[str, Passage]:
        """Those of the passages ``docids`` whose texts the index has; another index of Pyserini's may have none."""
        java.check_process()
        with java.calls:
            documents = {docid: self.lucene.doc(docid) for docid in docids}
            stored = {docid: document.raw() for docid, document in documents.items() if document is not None}
        return {docid: _passage(docid, raw) for docid, raw in stored.items() if raw is not None}

    def terms(self, text: str) -> list[str]:
        """Lucene's terms of a text: without stopwords, and stemmed."""
        java.check_process()
        with java.calls:
            return self._analyzer.analyze(_for_java(text))

    def vectors(self, docid: str) -> None:
        """Lucene holds no vectors."""

    def close(self) -> None:
        """Close Lucene's files."""
        with java.calls:
            self.lucene.close()


def _for_java(text: str) -> str:
    """``text`` after a blank: pyjnius takes some characters at the start of a string for a byte order mark."""
    return f" {clean_text(text)}"


def _passage(docid: str, raw: str) -> Passage:
    """The passage of a stored document: JSON in one of the layouts of a corpus, or plain text."""
    try:
        return parse_row(RawRow("jsonl", docid, raw.encode(errors="replace")))
    except InputError:
        return Passage(docid, "", raw)
