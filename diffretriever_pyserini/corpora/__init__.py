"""Readers of corpora, topics and judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .corpus import Corpus, write_corpus
    from .formats import Passage
    from .qrels import write_qrels
    from .topics import write_topics

_HOMES = {
    "Corpus": "corpus",
    "Passage": "formats",
    "write_corpus": "corpus",
    "write_qrels": "qrels",
    "write_topics": "topics",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
