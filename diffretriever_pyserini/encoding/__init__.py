"""Encodes corpora and queries into files on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .job import encode_corpus
    from .options import EncodeOptions

_HOMES = {
    "EncodeOptions": "options",
    "encode_corpus": "job",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
