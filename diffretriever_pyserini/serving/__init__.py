"""A collection of Qdrant that holds all three representations: uploading a store, searching, deleting passages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .changes import delete_passages, export_to_qdrant
    from .options import ExportOptions
    from .searching import open_collection

_HOMES = {
    "ExportOptions": "options",
    "delete_passages": "changes",
    "export_to_qdrant": "changes",
    "open_collection": "searching",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
