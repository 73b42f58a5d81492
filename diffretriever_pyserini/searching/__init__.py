"""Searching an index: dense, lexical or both, from one forward pass per query, by Pyserini's own searchers."""

from .folder import MODES
from .index import SearchIndex, SearchOptions, open_index

__all__ = ["MODES", "SearchIndex", "SearchOptions", "open_index"]
