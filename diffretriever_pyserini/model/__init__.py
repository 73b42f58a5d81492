"""From texts to K vectors and K vocabulary distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .config import RetrieverConfig
    from .representations import QueryRepresentation, Representations
    from .resolve import resolve_config
    from .retriever import DiffRetriever

_HOMES = {
    "DiffRetriever": "retriever",
    "QueryRepresentation": "representations",
    "Representations": "representations",
    "RetrieverConfig": "config",
    "resolve_config": "resolve",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
