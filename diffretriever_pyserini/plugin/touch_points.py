"""The table of everything that we change inside Pyserini; `registry` applies and undoes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TouchPoint:
    """One thing inside Pyserini that we change.

    Attributes
    ----------
    module : module of Pyserini; the change is applied as soon as it is imported.
    attribute : name inside it, with dots for a method; empty for a change to the process when it is imported.
    why : the reason, as in docs/pyserini.md.
    attach : ``module:function`` in this folder that makes the replacement.
    parameters : leading parameter names that Pyserini's function must have; None for a dictionary.
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
    TouchPoint(
        "pyserini.server.utils",
        "INDEX_TYPE",
        "the servers know our index types, which search the whole folder of `diffretriever index`",
        "touch_server:index_types",
        None,
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend._ensure_index",
        "a configured index of ours is opened without a KeyError where prebuilt indexes are served, too; an error says "
        "why it cannot be opened",
        "touch_server:ensure_index",
        ("self", "index_name", "allow_local", "ef_search", "encoder"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend._build_searcher",
        "our index types are opened; our indexes without texts are refused as indexes for BM25",
        "touch_server:build_searcher",
        ("self", "config", "index_type", "local_path"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend._doc_store_lucene_searcher",
        "our index types have the texts in the index itself",
        "touch_server:document_searcher",
        ("self", "start_index_name", "allow_local_index"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend._search_impl",
        "where an index of ours is configured, threads take turns, because pyjnius mixes up their objects; our errors "
        "are answers with their message",
        "touch_server:answer",
        ("self", "query", "index_name"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend._get_document_impl",
        "as above, for a document",
        "touch_server:answer",
        ("self", "docid", "index_name"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend.get_indexes",
        "where an index of ours is configured, the configured indexes are listed, too",
        "touch_server:list_indexes",
        ("self", "index_type"),
    ),
    TouchPoint(
        "pyserini.server.backend",
        "SharedSearchBackend.get_status",
        "where an index of ours is configured, a configured index is described without a KeyError",
        "touch_server:index_status",
        ("self", "index_name"),
    ),
    TouchPoint(
        "pyserini.server.mcp.extension",
        "McpSearchExtension.fuse_search_results",
        "where an index of ours is configured, a list of one hit, or of equal scores, is fused without a division by "
        "zero (docs/method.md §5)",
        "touch_server:fuse_results",
        ("self", "results1", "results2", "hits"),
    ),
)
