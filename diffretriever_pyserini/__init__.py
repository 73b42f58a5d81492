"""DiffRetriever inside Pyserini: dense vectors and lexical weights read at the masks of a diffusion language model.

The public API on one screen; everything is imported when it is first used, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import scoring
    from .errors import ConfigError, DiffRetrieverError, InputError, ModelNotFoundError, NumericalError
    from .model.config import RetrieverConfig, resolve_config
    from .model.representations import Representations
    from .model.retriever import DiffRetriever
    from .plugin import register, unregister
    from .pyserini_api.encoders import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder
    from .pyserini_api.maxsim import MaxSimSearcher

__version__ = "0.1.0"

_HOMES = {
    "DiffRetriever": "model.retriever",
    "Representations": "model.representations",
    "RetrieverConfig": "model.config",
    "resolve_config": "model.config",
    "scoring": "scoring",
    "DiffRetrieverDocumentEncoder": "pyserini_api.encoders",
    "DiffRetrieverQueryEncoder": "pyserini_api.encoders",
    "MaxSimSearcher": "pyserini_api.maxsim",
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
