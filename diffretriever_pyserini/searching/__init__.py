"""Searching an index: dense, multi, lexical or several of them fused, from one forward pass per query."""

from .folder import MODES, separate_folders
from .index import SearchIndex, SearchOptions, open_index

__all__ = ["MODES", "SearchIndex", "SearchOptions", "open_index", "separate_folders"]
