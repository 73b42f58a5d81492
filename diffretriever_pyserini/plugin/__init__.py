"""Our classes inside Pyserini: :func:`register` applies every patch of the registry's table."""

from .registry import register, unregister

__all__ = ["register", "unregister"]
