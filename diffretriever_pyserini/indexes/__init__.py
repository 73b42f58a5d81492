"""Builds FAISS and Lucene indexes for Pyserini, and compressed vectors for MaxSim, from a store in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .build import build_index
    from .options import IndexOptions, MultiBuild, MultiOptions

_HOMES = {
    "IndexOptions": "options",
    "MultiBuild": "options",
    "MultiOptions": "options",
    "build_index": "build",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
