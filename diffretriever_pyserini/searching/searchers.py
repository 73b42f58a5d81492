"""The searchers, given what is encoded already: a vector to FAISS, vectors to MaxSim, term weights to Lucene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DiffRetrieverError, InputError
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..runtime import java
from ..scoring.ranking import whole_scores

if TYPE_CHECKING:
    from ..indexes.multivector.index import MultiOptions
    from .encoder import SearchEncoder

Scores = dict[str, dict[str, float]]
"""Query id → docid → score."""


class DenseSide:
    """A FAISS folder of Pyserini's layout, refused where it was not made by the model of ``encoder``.

    ``parameters`` are FAISS's own for searching (``nprobe``, ``efSearch``).

    Raises
    ------
    InputError
        For a damaged index, one of another encoder, one that does not score by inner product, or a parameter that it
        does not have.
    """

    def __init__(self, folder: Path, encoder: SearchEncoder, parameters: Mapping[str, int] | None = None):
        java.prepare()
        from pyserini.search.faiss import FaissSearcher

        from ..plugin.touch_search import check_index

        try:
            self._searcher = FaissSearcher(str(folder), encoder)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"{folder}: this FAISS index cannot be opened ({error}); build it again.") from error
        self.documents: int = self._searcher.num_docs
        check_index(str(folder), encoder, self._searcher.dimension, self.documents)
        self._check_metric(folder)
        for name, value in (parameters or {}).items():
            self._set(folder, name, value)

    def search(self, vectors: np.ndarray, qids: Sequence[str], depth: int, threads: int) -> Scores:
        """The best ``depth`` documents of each query by inner product with ``vectors`` [N, H]."""
        from ..runtime.threads import faiss_threads

        wanted = max(1, min(depth, self.documents))
        with faiss_threads(threads):  # the index itself: the host's searcher would make an object of every hit
            scores, rows = self._searcher.index.search(np.ascontiguousarray(vectors, np.float32), wanted)
        docids = self._searcher.docids
        return {
            qid: {docids[row]: score for row, score in zip(*one, strict=True) if row >= 0}
            for qid, *one in zip(qids, rows.tolist(), scores.tolist(), strict=True)
        }

    def vector(self, docid: str) -> np.ndarray | None:
        """float32 [H] of a passage as the index holds it, decoded if need be; None where it is not there."""
        import faiss

        if docid not in self._searcher.docids:
            return None
        index, row = self._searcher.index, self._searcher.docids.index(docid)
        try:
            return index.reconstruct(row)
        except RuntimeError:  # inverted lists do not know where a row lies until they are asked to
            faiss.extract_index_ivf(index).make_direct_map()
            return index.reconstruct(row)

    def _check_metric(self, folder: Path) -> None:
        import faiss

        if self._searcher.index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise InputError(f"{folder}: this FAISS index measures distances; dense scores are inner products.")

    def _set(self, folder: Path, name: str, value: int) -> None:
        import faiss

        try:
            faiss.ParameterSpace().set_index_parameter(self._searcher.index, name, value)
        except RuntimeError as error:
            raise InputError(f"{folder}: this kind of FAISS index has no parameter {name}.") from error


class MultiSide:
    """MaxSim over compressed vectors, or exactly over a store. Parameters as for :class:`DenseSide`.

    Raises
    ------
    InputError
        For a damaged index, or one of another encoder.
    """

    def __init__(self, folder: Path, encoder: SearchEncoder, options: MultiOptions | None = None):
        from ..pyserini_api.maxsim import open_vectors

        self.vectors = open_vectors(folder, encoder, options)
        self.documents: int = self.vectors.passages
        self.exact = not hasattr(self.vectors, "manifest")

    def search(self, queries: Sequence[np.ndarray], qids: Sequence[str], depth: int, threads: int) -> Scores:
        """The best ``depth`` documents of each query by MaxSim with its vectors [K_q, H]."""
        found = self.vectors.search_many(queries, max(1, min(depth, self.documents)), threads)
        return {
            qid: dict(zip(self.vectors.docids(rows), scores.tolist(), strict=True))
            for qid, (rows, scores) in zip(qids, found, strict=True)
        }


class LexicalSide:
    """A Lucene impact index, searched with integer term weights.

    Raises
    ------
    InputError
        When Lucene cannot open the folder, or it says that another model than that of ``encoder`` made it.
    """

    def __init__(self, folder: Path, encoder: SearchEncoder):
        java.check_process()
        java.prepare()
        from jnius import JavaException

        from ..plugin.touch_search import check_impact_index

        try:
            self._searcher = _impact_searcher(str(folder))
        except JavaException as error:
            raise InputError(f"{folder}: Lucene cannot open this index ({error}); build it again.") from error
        documents = self._searcher.object.get_total_num_docs()
        check_impact_index(str(folder), encoder, documents, "everything" if encoder.own_query_side else "terms")
        self._folder = folder
        self.documents: int = self._searcher.num_docs

    def search(self, impacts: Sequence[Mapping[str, int]], qids: Sequence[str], depth: int, threads: int) -> Scores:
        """The best ``depth`` documents of each query by the dot product with ``impacts``; none where that is 0.

        Scores are whole numbers.
        """
        java.check_process()
        queries = [strongest(dict(terms), LUCENE_CLAUSES) for terms in impacts]
        found = self._searcher.batch_search(queries, list(qids), max(1, min(depth, self.documents)), threads)
        lost = [qid for qid in qids if qid not in found]
        if lost:
            raise DiffRetrieverError(
                f"{self._folder}: Lucene gave no answer to query '{lost[0]}'; its own message is above."
            )
        return {qid: whole_scores({hit.docid: hit.score for hit in found[qid]}) for qid in qids}

    def close(self) -> None:
        """Close Lucene's files."""
        self._searcher.close()


class _EveryTerm(dict[str, float]):
    """The inverse document frequencies of a searcher that is to drop no term of a query: all are in it."""

    def __contains__(self, term: object) -> bool:
        return True

    def __missing__(self, term: str) -> float:
        return 0.0


def _impact_searcher(folder: str) -> Any:
    """Pyserini's impact searcher for encoded queries, which neither drops a term nor walks all terms to open."""
    from pyserini.encode import QueryEncoder
    from pyserini.search.lucene import LuceneImpactSearcher

    class Encoded(QueryEncoder):
        """Queries come as term weights already."""

        def encode(self, text: Any, **options: Any) -> Any:
            return text

    class Searcher(LuceneImpactSearcher):
        """With ``min_idf=-1`` only terms without a posting would be dropped, and these score nothing anyway."""

        @staticmethod
        def _compute_idf(index_path: str) -> dict[str, float]:
            return _EveryTerm()

    return Searcher(folder, Encoded(), min_idf=-1)
