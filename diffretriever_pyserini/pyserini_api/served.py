"""The whole folder of ``diffretriever index`` as one searcher, for Pyserini's servers."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime import java
from ..searching.index import open_index
from ..searching.options import BM25
from ..searching.texts import TextSearcher


class IndexSearcher:
    """Searches ``index_dir`` in one mode, as ``diffretriever search`` does.

    Parameters
    ----------
    index_dir : folder of ``diffretriever index``, also in shards, or a store.
    encoder, mode : as for :func:`~..searching.index.open_index`.
    ef_search : candidates that an HNSW index keeps.

    Raises
    ------
    InputError
        When there is no such index, it lacks a signal of the mode, or another encoder made it.
    """

    def __init__(
        self, index_dir: str | Path, mode: str | None = None, encoder: str | None = None, ef_search: int | None = None
    ):
        java.prepare()
        parameters = {} if ef_search is None else {"efSearch": ef_search}
        self._index = open_index(index_dir, encoder, mode=mode, parameters=parameters)
        self._mode = self._index.open(mode)

    def search(self, query: str, k: int = 10) -> list[Any]:
        """The best ``k`` passages, as Pyserini's ``DenseSearchResult``."""
        from pyserini.search.faiss import DenseSearchResult

        (hits,) = self._index.search({"query": query}, self._mode, k).values()
        return [DenseSearchResult(docid, score) for docid, score in hits]

    @cached_property
    def texts(self) -> Any:
        """The ``LuceneSearcher`` that has the passages' texts; InputError where the index has none."""
        folder = self._index.folder
        if not folder.folders(BM25):
            raise InputError(
                f"{folder.name} has no texts, which a server returns: add them with `diffretriever index --text`, or "
                "name an index of texts as its base_index."
            )
        searcher = self._index.searcher(BM25)
        assert isinstance(searcher, TextSearcher)
        return searcher.lucene

    def close(self) -> None:
        """Close Lucene's files."""
        self._index.close()
