"""The one table of everything we touch inside Pyserini, and the switch that puts it on and takes it off.

Nothing is touched before its host module is imported. Each entry checks that what it finds is what it expects; where it
is not, one warning names it, that entry is left out, and Pyserini and all other entries work on.
"""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from types import ModuleType

import _diffretriever_pyserini_startup as startup

from .attach import HostMismatch, Undo, attach

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TouchPoint:
    """One thing inside Pyserini that we change.

    Attributes
    ----------
    module : host module; the change is made when it has just been imported.
    attribute : name inside it, with dots for a method; empty for the module's import itself.
    why : what goes wrong without it.
    attach : ``module:function`` in this folder that makes the replacement.
    parameters : leading parameter names that the host's function must have; None for an encoder map.
    """

    module: str
    attribute: str
    why: str
    attach: str
    parameters: tuple[str, ...] | None = ()

    @property
    def name(self) -> str:
        """Full name in the host."""
        return f"{self.module}.{self.attribute}" if self.attribute else self.module

    @property
    def checked(self) -> str:
        """What is checked before anything is changed, in words."""
        if not self.attribute:
            return "nothing: it is of the process, not inside Pyserini"
        if self.parameters is None:
            return "it is a dictionary"
        return f"it is a function whose parameters begin with {', '.join(self.parameters)}"


TOUCH_POINTS: tuple[TouchPoint, ...] = (
    TouchPoint(
        "pyserini",
        "",
        "JAVA_HOME and PATH point at a Java of version 21 or newer before anything starts a JVM",
        "touch_java:point_environment",
    ),
    TouchPoint(
        "pyserini",
        "",
        "an error of ours ends `python -m pyserini...` in a sentence, in a trace only with DIFFRETRIEVER_TRACEBACK=1",
        "touch_errors:say_plainly",
    ),
    TouchPoint(
        "pyserini._jvm",
        "configure_classpath",
        "the JVM option for the vector module ends the process on a runtime without it; no Java at all is said plainly",
        "touch_java:configure_classpath",
        ("anserini_root",),
    ),
    TouchPoint(
        "pyserini.encode",
        "document_encoder_class_map",
        "our names give our passage encoder; the key comes first, because 'ance', 'dpr', 'clip', 'dse' lurk in paths",
        "touch_encode:document_encoder",
        None,
    ),
    TouchPoint(
        "pyserini.encode",
        "query_encoder_class_map",
        "our names give our query encoder, as above",
        "touch_encode:query_encoder",
        None,
    ),
    TouchPoint(
        "pyserini.encode",
        "JsonlCollectionIterator._load",
        "a broken corpus is reported by file and line, and files are read in sorted order",
        "touch_encode:load_collection",
        ("self", "collection_path"),
    ),
    TouchPoint(
        "pyserini.encode",
        "JsonlRepresentationWriter.__enter__",
        "until they are complete, embeddings lie beside their folder: Anserini indexes whatever is inside",
        "touch_encode:begin_jsonl",
        ("self",),
    ),
    TouchPoint(
        "pyserini.encode",
        "JsonlRepresentationWriter.__exit__",
        "a failed run leaves no embeddings.jsonl that looks finished",
        "touch_encode:end_jsonl",
        ("self", "exc_type"),
    ),
    TouchPoint(
        "pyserini.encode.optional",
        "FaissRepresentationWriter.__enter__",
        "index and docids are written under other names until they are complete",
        "touch_encode:begin_faiss",
        ("self",),
    ),
    TouchPoint(
        "pyserini.encode.optional",
        "FaissRepresentationWriter.write",
        "a wrong --dimension, or term weights sent to FAISS, is a clear error",
        "touch_encode:write_faiss",
        ("self", "batch_info"),
    ),
    TouchPoint(
        "pyserini.encode.optional",
        "FaissRepresentationWriter.__exit__",
        "a failed run leaves no index that looks finished; a finished one says which encoder made it",
        "touch_encode:end_faiss",
        ("self", "exc_type"),
    ),
    TouchPoint(
        "pyserini.query_iterator",
        "DefaultQueryIterator.from_topics",
        "an empty query, an unknown layout or a misspelt name ends in a trace, and equal numbers as ids lose queries",
        "touch_topics:read_topics",
        ("cls", "topics_path"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher._init_query_encoder_from_str",
        "the host knows no encoder of our name, takes any file for cached queries, and ends in a trace at other names",
        "touch_search:impact_encoder",
        ("query_encoder",),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.__init__",
        "an index that says another model built it is refused; its size counts passages without terms; a relative path "
        "is of this process, not of the directory where the JVM started",
        "touch_search:impact_searcher",
        ("self", "index_dir", "query_encoder"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.encode",
        "our dense query encoder serves here by its lexical side",
        "touch_search:impact_encode",
        ("self", "query"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.batch_search",
        "the queries of a batch go through the model together, not one at a time; threads take turns, as pyjnius mixes "
        "up their objects",
        "touch_search:impact_batch_search",
        ("self", "queries"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.search",
        "threads take turns, as above",
        "touch_search:impact_search",
        ("self", "q"),
    ),
    TouchPoint(
        "pyserini.search.faiss",
        "FaissSearcher._init_encoder_from_str",
        "our names give our query encoder in FaissSearcher(index, name) too",
        "touch_search:faiss_encoder",
        ("encoder",),
    ),
    TouchPoint(
        "pyserini.search.faiss",
        "FaissSearcher.__init__",
        "an index that another model or another K built is refused; a folder with several vectors a passage is "
        "searched by MaxSim",
        "touch_search:faiss_searcher",
        ("self", "index_dir", "query_encoder"),
    ),
    TouchPoint(
        "pyserini.search.hybrid",
        "HybridSearcher.search",
        "the host's fusion divides by zero on one hit and misjudges short lexical lists (docs/method.md §5)",
        "touch_search:hybrid_search",
        ("self", "query", "k0", "k", "alpha", "normalization", "weight_on_dense"),
    ),
    TouchPoint(
        "pyserini.search.hybrid",
        "HybridSearcher.batch_search",
        "as above, for batches",
        "touch_search:hybrid_batch_search",
        ("self", "queries", "q_ids", "k0", "k", "threads", "alpha", "normalization", "weight_on_dense"),
    ),
)

_lock = threading.RLock()
_undo: dict[TouchPoint, Undo] = {}
_problems: dict[TouchPoint, str] = {}
_warned: set[TouchPoint] = set()
_route: str | None = None
_switched_off = False


def register(route: str = "explicit") -> None:
    """Attach everything to Pyserini: at once where its modules are imported, else when they will be. Idempotent.

    The start-up hook does this by itself; call it where that does not run (``python -S``, ``pip install --target``).
    """
    global _route, _switched_off
    with _lock:
        _switched_off = False
        _route = _route or route
        for module in dict.fromkeys(point.module for point in TOUCH_POINTS):
            if module in sys.modules:
                _attach_module(sys.modules[module])
            else:
                startup.finder.watch(module, _attach_module)


def unregister() -> None:
    """Give Pyserini back as it was, in this process, and stay off until :func:`register` is called."""
    global _route, _switched_off
    with _lock:
        _switched_off = True
        _route = None
        for module in {point.module for point in TOUCH_POINTS}:
            startup.finder.forget(module)
        for point in reversed(list(_undo)):
            _undo.pop(point)()
        _problems.clear()


def ensure_registered() -> None:
    """Register if nobody did, unless it was switched off (environment variable, or :func:`unregister`)."""
    if _route is None and not _switched_off and not startup.opted_out():
        register(route="encoder")


def route() -> str | None:
    """How we were registered: ``hook``, ``explicit``, ``encoder`` (one of our encoders was made), or None."""
    return _route


def state(point: TouchPoint) -> tuple[str, str]:
    """(``active`` | ``waiting`` | ``left out`` | ``off``, detail) of one touch point."""
    if point in _undo:
        return "active", ""
    if point in _problems:
        return "left out", _problems[point]
    if _route is None:
        return "off", ""
    return "waiting", f"{point.module} is not imported yet"


def _attach_module(module: ModuleType) -> None:
    """Attach every touch point of a host module that has just been imported."""
    with _lock:
        for point in TOUCH_POINTS:
            if point.module == module.__name__ and point not in _undo:
                try:
                    _undo[point] = attach(module, point.attribute, point.parameters, point.attach)
                    _problems.pop(point, None)
                except Exception as error:
                    _leave_out(point, error)


def _leave_out(point: TouchPoint, error: Exception) -> None:
    _problems[point] = str(error) if isinstance(error, HostMismatch) else f"{type(error).__name__}: {error}"
    if point not in _warned:
        _warned.add(point)
        logger.warning(
            "This Pyserini differs from what DiffRetriever expects at %s (%s): left as it is, so %s no longer holds. "
            "Pyserini 2.3 is known to work; `diffretriever doctor` shows the rest.",
            point.name,
            _problems[point],
            f"'{point.why}'",
        )
