"""Searching an index: dense, multi, lexical or several of them fused, from one forward pass per query."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .folder import MODES, separate_folders
    from .index import SearchIndex, open_index
    from .options import SearchOptions

__all__ = ["MODES", "SearchIndex", "SearchOptions", "open_index", "separate_folders"]
_MODULES = {"index": ("SearchIndex", "open_index"), "options": ("SearchOptions",)}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the command line's options need only the light modules."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "folder")
    return getattr(import_module(f".{module}", __name__), name)
