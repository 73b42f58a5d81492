"""Our classes inside Pyserini: :func:`register` puts everything in the registry's table in its place."""

from .registry import register, unregister

__all__ = ["register", "unregister"]
