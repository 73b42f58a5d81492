"""Touch points of ``pyserini.search``: our query encoders by name, checks of the index, our fusion."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.folders import restore
from ..indexes.faiss import read_faiss_folder
from ..indexes.multivector.manifest import holds_vectors
from ..model.encoder_names import is_ours
from ..runtime import java
from ..scoring.fusion import RankedList, add_raw, fuse_lists, lexical_floor, pyserini_weights
from ..scoring.ranking import ranked, whole_scores
from ..searching.folder import check_part
from ..searching.searchers import check_dense, check_lexical
from ..store.index_record import read_index_record
from .command import pyserini_command

PyseriniFunction = Callable[..., Any]


def impact_encoder(original: PyseriniFunction) -> PyseriniFunction:
    """Our lexical query encoder for our names; Pyserini reads files of cached queries."""

    def from_name(query_encoder: str | None) -> Any:
        if query_encoder is None or _is_cached_queries(query_encoder) or not is_ours(query_encoder):
            encoder = original(query_encoder)
            if encoder is None and pyserini_command() is not None:
                raise InputError(
                    f"--encoder {query_encoder}: Pyserini knows no query encoder of this name, and ours begin with "
                    "'diffretriever' (`diffretriever models` lists them)."
                )
            return encoder
        from ..pyserini_api.encoders import DiffRetrieverQueryEncoder

        return DiffRetrieverQueryEncoder(query_encoder, device=None).lexical

    return from_name


def _is_cached_queries(name: str) -> bool:
    path = Path(name)
    restore(path)
    return path.is_file() and path.suffix not in (".yaml", ".yml")


def impact_searcher(original: PyseriniFunction) -> PyseriniFunction:
    """Open a Lucene impact index relative to this process's directory, and refuse one of another encoder."""

    def init(self: Any, index_dir: str, query_encoder: Any, *args: Any, **kwargs: Any) -> None:
        if _ours(query_encoder) or (isinstance(query_encoder, str) and is_ours(query_encoder)):
            java.check_process()
        restore(index_dir)
        check_part(index_dir, "lexical")
        index_dir = str(Path(index_dir).absolute())  # the JVM resolves relative paths where it started
        from jnius import JavaException

        try:
            with java.calls:
                original(self, index_dir, query_encoder, *args, **kwargs)
        except JavaException as error:
            if "getTerms" not in str(error):
                raise
            raise InputError(f"{index_dir}: Pyserini cannot open this index, as it has no terms.") from error
        if _ours(self.query_encoder):
            check_lexical(Path(index_dir), self.query_encoder.model.provenance, self.num_docs)
        record = read_index_record(index_dir)
        if record is not None and record.documents == self.num_docs:
            self.num_docs = record.count  # passages without terms are part of the collection, though not in the index

    return init


def impact_encode(original: PyseriniFunction) -> PyseriniFunction:
    """Encode by the lexical signal where an impact searcher was given our dense query encoder."""

    def encode(self: Any, query: str) -> Any:
        encoder = self.query_encoder
        if _ours(encoder):
            java.check_process()
        return encoder.lexical.encode(query) if _dense(encoder) else original(self, query)

    return encode


def impact_batch_search(original: PyseriniFunction) -> PyseriniFunction:
    """Encode the queries of a batch together; Pyserini then encodes each from the cache, one thread at a time."""

    def batch_search(self: Any, queries: list[str], *args: Any, **kwargs: Any) -> Any:
        if _ours(self.query_encoder):
            java.check_process()
            self.query_encoder.prepare(queries)
        with java.calls:
            return original(self, queries, *args, **kwargs)

    return batch_search


def impact_search(original: PyseriniFunction) -> PyseriniFunction:
    """Search in one thread at a time."""

    def search(self: Any, q: str, *args: Any, **kwargs: Any) -> Any:
        if _ours(self.query_encoder):
            java.check_process()
            self.query_encoder.prepare([q])
        with java.calls:
            return original(self, q, *args, **kwargs)

    return search


def faiss_encoder(original: PyseriniFunction) -> PyseriniFunction:
    """Our query encoder for our names."""

    def from_name(encoder: str) -> Any:
        if not is_ours(encoder):
            return original(encoder)
        from ..pyserini_api.encoders import DiffRetrieverQueryEncoder

        return DiffRetrieverQueryEncoder(encoder, device=None)

    return from_name


def faiss_searcher(original: PyseriniFunction) -> PyseriniFunction:
    """Open a FAISS index, or a folder with several vectors per passage for MaxSim; refuse one of another encoder."""

    def init(self: Any, index_dir: str, query_encoder: Any, *args: Any, **kwargs: Any) -> None:
        restore(index_dir)
        if holds_vectors(index_dir):
            from ..pyserini_api.maxsim import MaxSimSearcher

            self.__class__ = MaxSimSearcher  # a subclass of FaissSearcher
            MaxSimSearcher.__init__(self, index_dir, query_encoder, *args, **kwargs)
            return
        check_part(index_dir, "dense")
        try:
            original(self, index_dir, query_encoder, *args, **kwargs)
        except (AssertionError, RuntimeError):  # from FAISS, or an assertion without a message
            if all(Path(index_dir, name).is_file() for name in ("index", "docid")):
                read_faiss_folder(Path(index_dir))
            raise
        if _ours(self.query_encoder):
            check_index(str(index_dir), self.query_encoder, self.dimension, self.index.ntotal)

    return init


def check_index(folder: str, encoder: Any, dimension: int, count: int) -> None:
    """Raise InputError where ``folder``'s index [count, dimension] was not made by the model of ``encoder``."""
    if not _dense(encoder):
        raise InputError(
            f"--encoder {encoder.name} gives term weights, and {folder} is a FAISS index: drop -lexical from the name."
        )
    check_dense(Path(folder), encoder.provenance, encoder.dimension, (count, dimension))


def hybrid_search(original: PyseriniFunction) -> PyseriniFunction:
    """Search both signals and fuse by docs/method.md §5 where a signal is ours."""

    def search(
        self: Any,
        query: str,
        k0: int = 10,
        k: int = 10,
        alpha: float = 0.1,
        normalization: bool = False,
        weight_on_dense: bool = False,
    ) -> Any:
        if not _has_our_encoder(self):
            return original(self, query, k0, k, alpha, normalization, weight_on_dense)
        dense, sparse = self.dense_searcher.search(query, k0), self.sparse_searcher.search(query, k0)
        return _fuse(self, dense, sparse, k0, k, (alpha, normalization, weight_on_dense))

    return search


def hybrid_batch_search(original: PyseriniFunction) -> PyseriniFunction:
    """As :func:`hybrid_search`, for a batch."""

    def batch_search(
        self: Any,
        queries: list[str],
        q_ids: list[str],
        k0: int = 10,
        k: int = 10,
        threads: int = 1,
        alpha: float = 0.1,
        normalization: bool = False,
        weight_on_dense: bool = False,
    ) -> Any:
        if not _has_our_encoder(self):
            return original(self, queries, q_ids, k0, k, threads, alpha, normalization, weight_on_dense)
        dense = self.dense_searcher.batch_search(queries, q_ids, k0, threads)
        sparse = self.sparse_searcher.batch_search(queries, q_ids, k0, threads)
        settings = (alpha, normalization, weight_on_dense)
        return {key: _fuse(self, dense[key], sparse[key], k0, k, settings) for key in dense}

    return batch_search


def _fuse(
    searcher: Any, dense: Iterable[Any], sparse: Iterable[Any], k0: int, k: int, settings: tuple[float, bool, bool]
) -> list[Any]:
    from pyserini.search.faiss import DenseSearchResult

    alpha, normalization, weight_on_dense = settings
    dense_scores, lexical_scores = ({hit.docid: float(hit.score) for hit in hits} for hits in (dense, sparse))
    searchers = (searcher.dense_searcher, searcher.sparse_searcher)
    # An impact index leaves out passages without terms, so the larger count is that of the collection.
    counts = [each.num_docs for each in searchers if isinstance(getattr(each, "num_docs", None), int)]
    floor = lexical_floor(len(lexical_scores), k0, max(counts, default=None))
    if _ours(getattr(searchers[1], "query_encoder", None)):
        lexical_scores = whole_scores(lexical_scores)
    weights = pyserini_weights(alpha, weight_on_dense)
    lists = (
        RankedList("dense", ranked(dense_scores), weights[0]),
        RankedList("lexical", ranked(lexical_scores), weights[1], floor),
    )
    fused = fuse_lists(lists) if normalization else add_raw(lists)
    return [DenseSearchResult(docid, score) for docid, score in fused.hits[:k]]


def _ours(encoder: Any) -> bool:
    """Whether ``encoder`` is one of our query encoders (none is before their module is imported)."""
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    return encoders is not None and isinstance(
        encoder, encoders.DiffRetrieverQueryEncoder | encoders.LexicalQueryEncoder
    )


def _dense(encoder: Any) -> bool:
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    ours = encoders is not None and isinstance(encoder, encoders.DiffRetrieverQueryEncoder)
    return ours and not encoder.name.lexical


def _has_our_encoder(searcher: Any) -> bool:
    searchers = (searcher.dense_searcher, searcher.sparse_searcher)
    return any(_ours(getattr(each, "query_encoder", None)) for each in searchers)
