"""What touches Pyserini: :func:`register` applies every patch of the registry's table; `names` reads its topics."""

from .names import read_qrels, read_topics
from .registry import register, unregister

__all__ = ["read_qrels", "read_topics", "register", "unregister"]
