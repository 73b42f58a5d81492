"""The table of everything that we change inside Pyserini, and the functions that apply and undo it.

An entry is applied while its module of Pyserini is imported, or right after. It first checks that Pyserini has what it
expects. If not, one warning names the entry, it is left out, and Pyserini and all other entries continue to work.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import _diffretriever_pyserini_startup as startup

from .attach import PyseriniMismatch, Undo, attach, made_by, nothing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TouchPoint:
    """One thing inside Pyserini that we change.

    Attributes
    ----------
    module : module of Pyserini; the change is applied as soon as it is imported.
    attribute : name inside it, with dots for a method; empty for a change to the process when it is imported.
    why : the reason, as in docs/pyserini.md.
    attach : ``module:function`` in this folder that makes the replacement.
    parameters : leading parameter names that Pyserini's function must have; None for an encoder map.
    loads : the function in ``attach`` executes the body of the module; it takes a function that does that, and the
        module.
    """

    module: str
    attribute: str
    why: str
    attach: str
    parameters: tuple[str, ...] | None = ()
    loads: bool = False

    @property
    def name(self) -> str:
        """Full name in Pyserini."""
        return f"{self.module}.{self.attribute}" if self.attribute else self.module

    @property
    def checked(self) -> str:
        """Description of what is checked before the change."""
        if self.loads:
            return "one mapping alone is downloaded, for its aliases alone; else the body is executed again, unchanged"
        if not self.attribute:
            return "nothing: it changes the process, not Pyserini"
        if self.parameters is None:
            return "it is a dictionary"
        return f"it is a function whose parameters begin with {', '.join(self.parameters)}"


TOUCH_POINTS: tuple[TouchPoint, ...] = (
    TouchPoint(
        "pyserini",
        "",
        "JAVA_HOME and PATH point to Java 21 or newer before a JVM is started",
        "touch_java:point_environment",
    ),
    TouchPoint(
        "pyserini",
        "",
        "our errors end `python -m pyserini...` with one sentence, and with a traceback only if "
        "DIFFRETRIEVER_TRACEBACK=1",
        "touch_errors:say_plainly",
    ),
    TouchPoint(
        "pyserini._jvm",
        "configure_classpath",
        "a Java without the vector module works, and a missing Java is a clear error",
        "touch_java:configure_classpath",
        ("anserini_root",),
    ),
    TouchPoint(
        "pyserini.prebuilt_index_info",
        "",
        "importing Pyserini 2.4.0 downloads nothing, and so works without a connection; two names of prebuilt indexes "
        "are looked up when they are used",
        "touch_prebuilt:load_without_download",
        loads=True,
    ),
    TouchPoint(
        "pyserini.encode",
        "document_encoder_class_map",
        "our names give our passage encoder; the key comes first, because paths may contain 'ance', 'dpr', 'clip', "
        "'dse'",
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
        "unfinished embeddings are written next to their folder, because Anserini indexes every file in it",
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
        "unfinished index and docid files have temporary names",
        "touch_encode:begin_faiss",
        ("self",),
    ),
    TouchPoint(
        "pyserini.encode.optional",
        "FaissRepresentationWriter.write",
        "a wrong --dimension, or term weights for FAISS, is a clear error",
        "touch_encode:write_faiss",
        ("self", "batch_info"),
    ),
    TouchPoint(
        "pyserini.encode.optional",
        "FaissRepresentationWriter.__exit__",
        "a failed run leaves no index that looks finished; a finished one records its encoder",
        "touch_encode:end_faiss",
        ("self", "exc_type"),
    ),
    TouchPoint(
        "pyserini.query_iterator",
        "DefaultQueryIterator.from_topics",
        "an empty query, an unknown layout, a misspelt name, and the loss of queries whose ids are equal numbers are "
        "clear errors",
        "touch_topics:read_topics",
        ("cls", "topics_path"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher._init_query_encoder_from_str",
        "our names give our lexical query encoder, a YAML file is not read as cached queries, and an unknown name is a "
        "clear error",
        "touch_search:impact_encoder",
        ("query_encoder",),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.__init__",
        "an index whose record names another model is refused; its size includes passages without terms; a relative "
        "path is resolved by this process, not where the JVM started",
        "touch_search:impact_searcher",
        ("self", "index_dir", "query_encoder"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.encode",
        "our dense query encoder is accepted and gives its lexical signal",
        "touch_search:impact_encode",
        ("self", "query"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.batch_search",
        "the queries of a batch are encoded together, not one at a time; threads take turns, because pyjnius mixes up "
        "their objects",
        "touch_search:impact_batch_search",
        ("self", "queries"),
    ),
    TouchPoint(
        "pyserini.search.lucene",
        "LuceneImpactSearcher.search",
        "threads take turns, because pyjnius mixes up their objects",
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
        "an index of another model or another K is refused; a folder with several vectors per passage is searched by "
        "MaxSim",
        "touch_search:faiss_searcher",
        ("self", "index_dir", "query_encoder"),
    ),
    TouchPoint(
        "pyserini.search.hybrid",
        "HybridSearcher.search",
        "a list of one hit is fused without a division by zero, and the minimum of a short lexical list is 0 "
        "(docs/method.md §5)",
        "touch_search:hybrid_search",
        ("self", "query", "k0", "k", "alpha", "normalization", "weight_on_dense"),
    ),
    TouchPoint(
        "pyserini.search.hybrid",
        "HybridSearcher.batch_search",
        "batches are fused as single queries are",
        "touch_search:hybrid_batch_search",
        ("self", "queries", "q_ids", "k0", "k", "threads", "alpha", "normalization", "weight_on_dense"),
    ),
)

_LOADING = {point.module: point for point in TOUCH_POINTS if point.loads}
_lock = threading.RLock()
_undo: dict[TouchPoint, Undo] = {}
_problems: dict[TouchPoint, str] = {}
_warned: set[TouchPoint] = set()
_route: str | None = None
_switched_off = False


def register(route: str = "explicit") -> None:
    """Apply all touch points, now or when their modules are imported. A second call changes nothing.

    The start-up hook calls this. Call it yourself where that does not run (``python -S``, ``pip install --target``).

    Parameters
    ----------
    route : what `diffretriever doctor` shows as the caller.

    Examples
    --------
    >>> from diffretriever_pyserini import register, unregister
    >>> register()
    >>> from pyserini.search.faiss import FaissSearcher
    """
    global _route, _switched_off
    with _lock:
        _switched_off = False
        _route = _route or route
        for module in dict.fromkeys(point.module for point in TOUCH_POINTS):
            if module in sys.modules:
                _attach_module(sys.modules[module])
            else:
                startup.finder.watch(module, _attach_module, _load_module if module in _LOADING else None)


def unregister() -> None:
    """Undo all changes to Pyserini in this process, and stay off until :func:`register` is called.

    Examples
    --------
    >>> from diffretriever_pyserini import register, unregister
    >>> unregister()
    >>> register()
    """
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
    """Register, unless that was done or switched off (environment variable, or :func:`unregister`)."""
    if _route is None and not _switched_off and not startup.opted_out():
        register(route="encoder")


def route() -> str | None:
    """How the plugin was registered: ``hook``, ``explicit``, ``encoder`` (one of our encoders was made), or None."""
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


def _load_module(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute the body of a module of Pyserini as its touch point does, or else as Pyserini does."""
    point = _LOADING[module.__name__]
    try:
        _undo[point] = made_by(point.attach)(execute, module)
    except PyseriniMismatch as error:
        _leave_out(point, error)
        execute(module)


def _attach_module(module: ModuleType) -> None:
    """Apply every touch point of a module of Pyserini that has just been imported."""
    with _lock:
        for point in TOUCH_POINTS:
            if point.module == module.__name__ and point not in _undo:
                if point.loads:
                    if point not in _problems:  # imported before us, so there is nothing left to do
                        _undo[point] = nothing
                    continue
                try:
                    _undo[point] = attach(module, point.attribute, point.parameters, point.attach)
                    _problems.pop(point, None)
                except Exception as error:
                    _leave_out(point, error)


def _leave_out(point: TouchPoint, error: Exception) -> None:
    _problems[point] = str(error) if isinstance(error, PyseriniMismatch) else f"{type(error).__name__}: {error}"
    if point not in _warned:
        _warned.add(point)
        logger.warning(
            "This Pyserini differs from what DiffRetriever expects at %s (%s). It was left unchanged, so %s does not "
            "hold. Pyserini 2.3 and 2.4 are known to work; `diffretriever doctor` shows all touch points.",
            point.name,
            _problems[point],
            f"'{point.why}'",
        )
