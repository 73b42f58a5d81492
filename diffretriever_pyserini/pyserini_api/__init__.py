"""Our classes behind Pyserini's interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .encoders import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder
    from .maxsim import MaxSimSearcher

_HOMES = {
    "DiffRetrieverDocumentEncoder": "encoders",
    "DiffRetrieverQueryEncoder": "encoders",
    "MaxSimSearcher": "maxsim",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
