"""DiffRetriever inside Pyserini: dense vectors and lexical weights read at the masks of a diffusion language model.

The public names on one screen (docs/api.md); each is imported when first used, so that importing the package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import names_of

if TYPE_CHECKING:
    from . import scoring
    from .corpora import Corpus
    from .encoding import EncodeOptions, encode_corpus
    from .errors import ConfigError, DiffRetrieverError, InputError, ModelNotFoundError, NumericalError
    from .evaluation import evaluate
    from .explaining import explain
    from .indexes import IndexOptions, build_index
    from .model import DiffRetriever, Representations, RetrieverConfig, resolve_config
    from .plugin import read_qrels, read_topics, register, unregister
    from .pyserini_api import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder, MaxSimSearcher
    from .searching import SearchOptions, open_index
    from .store import Store

__version__ = "0.1.0"

_HOMES = {
    "ConfigError": "errors",
    "Corpus": "corpora",
    "DiffRetriever": "model",
    "DiffRetrieverDocumentEncoder": "pyserini_api",
    "DiffRetrieverError": "errors",
    "DiffRetrieverQueryEncoder": "pyserini_api",
    "EncodeOptions": "encoding",
    "IndexOptions": "indexes",
    "InputError": "errors",
    "MaxSimSearcher": "pyserini_api",
    "ModelNotFoundError": "errors",
    "NumericalError": "errors",
    "Representations": "model",
    "RetrieverConfig": "model",
    "SearchOptions": "searching",
    "Store": "store",
    "build_index": "indexes",
    "encode_corpus": "encoding",
    "evaluate": "evaluation",
    "explain": "explaining",
    "open_index": "searching",
    "read_qrels": "plugin",
    "read_topics": "plugin",
    "register": "plugin",
    "resolve_config": "model",
    "scoring": "",
    "unregister": "plugin",
}
__all__ = [*_HOMES, "__version__"]
__getattr__, __dir__ = names_of(__name__, _HOMES)
