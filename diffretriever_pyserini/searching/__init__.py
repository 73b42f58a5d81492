"""Searching an index: dense, lexical or both, from one forward pass per query, by Pyserini's own searchers."""

from diffretriever_pyserini.searching.folder import MODES
from diffretriever_pyserini.searching.index import SearchIndex, SearchOptions, open_index

__all__ = ["MODES", "SearchIndex", "SearchOptions", "open_index"]
