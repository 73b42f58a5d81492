"""Searching an index: dense, multi, lexical or several of them fused, from one forward pass per query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .answers import Answer
    from .folder import MODES, separate_folders
    from .index import SearchIndex, open_index
    from .options import SearchOptions

_HOMES = {
    "Answer": "answers",
    "MODES": "folder",
    "SearchIndex": "index",
    "SearchOptions": "options",
    "open_index": "index",
    "separate_folders": "folder",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
