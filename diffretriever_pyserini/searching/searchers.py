"""One searcher per signal, for encoded queries; all have the interface of :class:`Searcher`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import BUILD_AGAIN, InputError
from ..indexes.faiss import read_faiss_folder
from ..indexes.multivector.candidates import Proposals
from ..indexes.multivector.exact import ExactIndex
from ..indexes.multivector.index import CompressedIndex
from ..indexes.multivector.manifest import is_multi
from ..indexes.options import MultiOptions
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..model.provenance import SEARCH_REMEDY, Needed, Provenance, require_same_encoder
from ..runtime import java
from ..scoring.ranking import through_ties, whole_score
from ..store.index_record import read_index_record
from ..store.store import Store
from .lucene import Scores, lucene_lists, through_the_tie_at
from .options import check_effort

if TYPE_CHECKING:
    from ..model.representations import QueryRepresentation
    from .encoder import EncoderIdentity


class Searcher(Protocol):
    """One signal of an open index."""

    documents: int
    """Number of documents in the collection."""
    exact: bool
    """Whether it is MaxSim over the vectors of a store."""

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """The best ``depth`` documents of each query, in the order of :mod:`..scoring.ranking`."""

    def vectors(self, docid: str) -> np.ndarray | None:
        """The vectors of a passage, float32 [n, H]; None where the signal has none."""

    def close(self) -> None:
        """Close all files."""


class DenseSearcher:
    """A FAISS folder of Pyserini's layout, refused where ``encoder`` did not make it.

    ``parameters`` are FAISS's own for searching (``nprobe``, ``efSearch``).

    Raises
    ------
    InputError
        For a damaged index, an index of another encoder or metric, or a parameter that the index does not have.
    """

    exact = False

    def __init__(self, folder: Path, encoder: EncoderIdentity, parameters: Mapping[str, int] | None = None):
        import faiss

        self._folder = folder
        self._index, self._docids = read_faiss_folder(folder)
        self._compares_all = isinstance(self._index, faiss.IndexFlatCodes) and self._index.ntotal > 0
        self.documents = len(self._docids)
        check_dense(folder, encoder.provenance, encoder.dimension, (self.documents, self._index.d))
        if self._index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise InputError(f"{folder}: this FAISS index scores by distance; build one with inner products.")
        for name, value in check_effort(parameters or {}).items():
            try:
                faiss.ParameterSpace().set_index_parameter(self._index, name, value)
            except RuntimeError as error:
                raise InputError(f"{folder}: this kind of FAISS index has no parameter {name}.") from error

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """By inner product with the pooled vectors."""
        from ..runtime.threads import faiss_threads

        vectors = np.ascontiguousarray(np.stack([query.vector for query in queries]), np.float32)

        def search(numbers: Sequence[int], length: int) -> list[Scores]:
            # All queries each time: the last bits of a score depend on the size of the batch.
            scores, rows = self._index.search(vectors, length)
            if not np.isfinite(scores[rows >= 0]).all() or (self._compares_all and (rows < 0).any()):
                raise InputError(f"{self._folder}: holds vectors that are not finite, so it is damaged; {BUILD_AGAIN}.")
            return [self._by_docid(rows[number].tolist(), scores[number].tolist()) for number in numbers]

        with faiss_threads(threads):
            return through_ties(search, len(vectors), depth, self.documents)

    def _by_docid(self, rows: list[int], scores: list[float]) -> Scores:
        by_docid = {self._docids[row]: score for row, score in zip(rows, scores, strict=True) if row >= 0}
        if len(by_docid) < sum(row >= 0 for row in rows):
            ids = [self._docids[row] for row in rows if row >= 0]
            repeated = next(docid for docid in ids if ids.count(docid) > 1)
            raise InputError(f"{self._folder / 'docid'}: {repeated!r} is the id of several vectors; {BUILD_AGAIN}.")
        return by_docid

    def vectors(self, docid: str) -> np.ndarray | None:
        """The pooled vector of a passage, float32 [1, H], decoded if need be."""
        import faiss

        if docid not in self._docids:
            return None
        row = self._docids.index(docid)
        try:
            return self._index.reconstruct(row)[None]
        except RuntimeError:  # an inverted file needs a map from row to list first
            faiss.extract_index_ivf(self._index).make_direct_map()
            return self._index.reconstruct(row)[None]

    def close(self) -> None:
        """Nothing to close."""


class MultiSearcher:
    """MaxSim over compressed vectors, or exactly over a store.

    Raises
    ------
    InputError
        For a damaged index, or one of another encoder.
    """

    def __init__(
        self, folder: Path, encoder: EncoderIdentity, vectors: CompressedIndex | ExactIndex, device: str = "cpu"
    ):
        self._index = vectors
        require_same_encoder(self._index.provenance, encoder.provenance, f"{folder} holds vectors", needed="vectors")
        if isinstance(self._index, ExactIndex):
            self._index.device = device
        self.documents = self._index.passages
        self.exact = isinstance(self._index, ExactIndex)

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """By MaxSim with the K_q vectors."""
        vectors = [query.vectors for query in queries]
        hits = self._index.search_many(vectors, max(1, min(depth, self.documents)), threads)
        return [self._by_docid(*one) for one in hits]

    def propose(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[list[Proposals]]:
        """The candidates of each query in each shard, of which this is one; see :mod:`.shards`."""
        assert isinstance(self._index, CompressedIndex)
        return [self._index.proposals([query.vectors for query in queries], depth, threads)]

    def search_among(
        self, queries: Sequence[QueryRepresentation], rows: Sequence[Sequence[np.ndarray]], depth: int, threads: int
    ) -> list[Scores]:
        """:meth:`search` among the candidates ``rows`` [shards][queries]."""
        assert isinstance(self._index, CompressedIndex)
        hits = self._index.rank_many([query.vectors for query in queries], rows[0], depth, threads)
        return [self._by_docid(*one) for one in hits]

    @property
    def candidates(self) -> MultiOptions | None:
        """How many candidates are proposed; None where every passage is scored."""
        return self._index.options if isinstance(self._index, CompressedIndex) else None

    def _by_docid(self, rows: np.ndarray, scores: np.ndarray) -> Scores:
        return dict(zip(self._index.docids(rows), scores.tolist(), strict=True))

    def vectors(self, docid: str) -> np.ndarray | None:
        """The K vectors of a passage, float32 [K, H], decoded if need be."""
        row = self._index.row_of(docid)
        return None if row is None else self._index.vectors(np.array([row]))[0]

    def close(self) -> None:
        """Nothing to close but memory maps, which Python closes."""


class LexicalSearcher:
    """A Lucene impact index, searched with integer term weights.

    Raises
    ------
    InputError
        When Lucene cannot open the folder, or its record names another encoder.
    """

    exact = False

    def __init__(self, folder: Path, encoder: EncoderIdentity):
        java.check_process()
        java.prepare()
        make = _impact_searcher()  # imports Pyserini, which sets jnius's class path before the JVM starts
        from jnius import JavaException

        try:
            with java.calls:
                self._searcher = make(str(folder.absolute()))  # the JVM resolves relative paths where it started
                documents = self._searcher.object.get_total_num_docs()
        except JavaException as error:
            raise InputError(f"{folder}: Lucene cannot open this index ({java.said(error)}); {BUILD_AGAIN}.") from error
        self._folder = folder
        try:
            check_lexical(folder, encoder.provenance, documents, "everything" if encoder.own_query_side else "terms")
        except InputError:
            self.close()
            raise
        record = read_index_record(folder)
        # Passages without terms are part of the collection, though not in the index.
        self.documents = record.count if record is not None and record.documents == documents else documents

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """By the dot product of term weights, whole numbers; only documents that share a term."""
        java.check_process()
        terms = [strongest(query.impacts, LUCENE_CLAUSES) for query in queries]

        def search(asked: Sequence[int], wanted: int) -> list[Scores]:
            lists = lucene_lists(self._searcher, self._folder, [terms[number] for number in asked], wanted, threads)
            return [through_the_tie_at(min(depth, wanted), hits, whole_score) for hits in lists]

        return through_ties(search, len(terms), depth, self.documents)

    def vectors(self, docid: str) -> None:
        """Lucene holds no vectors."""

    def close(self) -> None:
        """Close Lucene's files."""
        with java.calls:
            self._searcher.close()


def check_dense(folder: Path, encoder: Provenance, dimension: int, shape: tuple[int, int]) -> None:
    """Raise InputError where the FAISS index in ``folder`` was not made by ``encoder``, as far as that is recorded.

    ``dimension`` is that of the encoder, ``shape`` [count, dimension] that of the index.
    """
    record = read_index_record(folder)
    if record is not None and (record.count, record.dimension) == shape:  # else the index was replaced since
        require_same_encoder(record.provenance, encoder, f"{folder} holds vectors", needed="vectors")
    if dimension != shape[1]:
        raise InputError(
            f"{folder} holds vectors of {shape[1]} components, and those of {encoder.encoder} have {dimension}: "
            f"{SEARCH_REMEDY}."
        )


def check_lexical(folder: Path, encoder: Provenance, documents: int, needed: Needed = "everything") -> None:
    """Raise InputError where the record of the Lucene index in ``folder`` names another encoder than ``encoder``.

    ``needed`` is how much of the encoder must agree: query settings may be overridden on purpose. An index of
    Pyserini's own command has no record and is accepted. An encoder without terms is refused.
    """
    if why := encoder.terms_refused:
        raise InputError(f"{why}.")
    record = read_index_record(folder)
    if record is not None and record.documents in (None, documents):  # else the index was replaced since
        require_same_encoder(record.provenance, encoder, f"{folder} holds term weights", needed=needed)


def open_vectors(
    folder: str | Path, options: MultiOptions | None = None, parts: tuple[int, int] | None = None
) -> CompressedIndex | ExactIndex:
    """Open the multi-vector index or store in ``folder``; of a store, only ``parts`` (first, and after the last).

    Raises
    ------
    InputError
        Where it is neither, damaged or unfinished.
    """
    if is_multi(folder):
        return CompressedIndex(folder, options)
    return ExactIndex(folder if parts is None else Store(folder).portion(*parts))


class _EveryTerm(dict[str, float]):
    """Inverse document frequencies that contain every term, so that a searcher drops no term of a query."""

    def __contains__(self, term: object) -> bool:
        return True

    def __missing__(self, term: str) -> float:
        return 0.0


def _impact_searcher() -> Callable[[str], Any]:
    """A function that opens Pyserini's impact searcher for encoded queries; it drops no term and lists none to open."""
    from pyserini.encode import QueryEncoder
    from pyserini.search.lucene import LuceneImpactSearcher

    class Encoded(QueryEncoder):
        """The queries are term weights already."""

        def encode(self, text: Any, **options: Any) -> Any:
            return text

    class Searcher(LuceneImpactSearcher):
        """With ``min_idf=-1`` only terms without a posting would be dropped, and those have no score anyway."""

        @staticmethod
        def _compute_idf(index_path: str) -> dict[str, float]:
            return _EveryTerm()

    return lambda folder: Searcher(folder, Encoded(), min_idf=-1)
