"""DiffRetriever inside Pyserini: dense vectors and lexical weights read at the masks of a diffusion language model.

The public API on one screen; everything is imported when it is first used, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import scoring
    from .config import RetrieverConfig, resolve_config
    from .errors import ConfigError, DiffRetrieverError, InputError, ModelNotFoundError, NumericalError
    from .plugin import register, unregister
    from .plugin.encoders import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder
    from .plugin.maxsim import MaxSimSearcher
    from .representations import Representations
    from .retriever import DiffRetriever

__version__ = "0.1.0"

_HOMES = {
    "DiffRetriever": "retriever",
    "Representations": "representations",
    "RetrieverConfig": "config",
    "resolve_config": "config",
    "scoring": "scoring",
    "DiffRetrieverDocumentEncoder": "plugin.encoders",
    "DiffRetrieverQueryEncoder": "plugin.encoders",
    "MaxSimSearcher": "plugin.maxsim",
    "register": "plugin",
    "unregister": "plugin",
    "ConfigError": "errors",
    "DiffRetrieverError": "errors",
    "InputError": "errors",
    "ModelNotFoundError": "errors",
    "NumericalError": "errors",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_HOMES[name]}", __name__)
    return module if name == "scoring" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
