"""MaxSim behind the interface of Pyserini's FaissSearcher: over compressed vectors, or exactly over a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..indexes.multivector.exact import ExactIndex
from ..indexes.multivector.index import CompressedIndex
from ..indexes.options import MultiOptions
from ..model.provenance import SEARCH_REMEDY, require_same_encoder
from ..runtime import java
from ..searching.searchers import open_vectors
from .encoders import DiffRetrieverQueryEncoder, LexicalQueryEncoder

java.prepare()  # before Pyserini is imported, which starts the JVM
from pyserini.search.faiss import DenseSearchResult, FaissSearcher  # noqa: E402


def vectors_for(encoder: Any, folder: str | Path, options: MultiOptions | None = None) -> CompressedIndex | ExactIndex:
    """Open the multi-vector index or the store in ``folder`` for the queries of ``encoder``.

    A store is searched on the device of the encoder's model.

    Raises
    ------
    InputError
        When there is none, it is damaged or unfinished, its vectors were made by another model or with another K, or
        the encoder has no vectors for MaxSim.
    """
    if isinstance(encoder, DiffRetrieverQueryEncoder | LexicalQueryEncoder) and encoder.name.lexical:
        raise InputError(f"--encoder {encoder.name} gives term weights, and {folder} holds vectors: drop -lexical.")
    if not isinstance(encoder, DiffRetrieverQueryEncoder):
        raise InputError(
            f"{folder} holds several vectors per passage, and {type(encoder).__name__} gives one per query: search "
            "with the encoder that made it."
        )
    vectors = open_vectors(folder, options)
    provenance, remedy = vectors.provenance, SEARCH_REMEDY
    if provenance.k_passage != encoder.model.config.k_passage:
        remedy = f"name a YAML file with k_passage: {provenance.k_passage}, or use `diffretriever search`"
    require_same_encoder(provenance, encoder.provenance, f"{folder} holds vectors", remedy, "vectors")
    if isinstance(vectors, ExactIndex):
        vectors.device = encoder.model.device
    return vectors


class MaxSimSearcher(FaissSearcher):
    """Search by MaxSim (docs/method.md §5), usable as a ``FaissSearcher``, also in a ``HybridSearcher``.

    Parameters
    ----------
    index_dir : folder of ``diffretriever index --multi`` (``INDEX/multi``), or a store, which is searched exactly.
    query_encoder : one of our query encoders, or its name.
    prebuilt_index_name, normalize_distances, faiss_device : parameters of FaissSearcher that do not apply here; a
        value other than the default is an error.
    options : how many candidates the compressed index considers.

    Raises
    ------
    InputError
        When there is no index, it is damaged or unfinished, its vectors were made by another model or with another K,
        or the encoder has no vectors for MaxSim.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, MaxSimSearcher, encode_corpus
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> searcher = MaxSimSearcher("store", "diffretriever")
    >>> [hit.docid for hit in searcher.search("where is Paris", k=1)]
    ['p2']
    """

    def __init__(
        self,
        index_dir: str | Path,
        query_encoder: DiffRetrieverQueryEncoder | str,
        prebuilt_index_name: str | None = None,
        normalize_distances: bool = False,
        faiss_device: str = "cpu",
        *,
        options: MultiOptions | None = None,
    ):
        if prebuilt_index_name or normalize_distances or faiss_device != "cpu":
            raise InputError(
                f"{index_dir} is searched by MaxSim, which has no prebuilt indexes, no normalised distances and no "
                "FAISS device: leave these options out. A store is searched on the query encoder's device."
            )
        if isinstance(query_encoder, str):
            query_encoder = DiffRetrieverQueryEncoder(query_encoder, device=None)
        self.query_encoder = query_encoder
        self.vectors = vectors_for(query_encoder, index_dir, options)
        self.dimension = query_encoder.dimension
        self.num_docs = self.vectors.passages

    def __repr__(self) -> str:
        return f"MaxSimSearcher({self.num_docs} passages, dimension={self.dimension}, {self.query_encoder!r})"

    def search(  # type: ignore[override]
        self,
        query: str | np.ndarray,
        k: int = 10,
        threads: int = 1,
        remove_dups: bool = False,
        return_vector: bool = False,
    ) -> list[DenseSearchResult]:
        """The best ``k`` passages for a text, or for its vectors, float32 [K_q, H]; docids are always unique."""
        return self.batch_search([query], ["query"], k, threads, return_vector)["query"]

    def batch_search(  # type: ignore[override]
        self,
        queries: Sequence[str | np.ndarray] | np.ndarray,
        q_ids: list[str],
        k: int = 10,
        threads: int = 1,
        return_vector: bool = False,
    ) -> dict[str, list[DenseSearchResult]]:
        """The best ``k`` passages of each query, by query id.

        Raises
        ------
        InputError
            For numbers out of range, vectors of another dimension, and ``return_vector``: passages have several.
        """
        if return_vector:
            raise InputError("a multi-vector index has several vectors per passage; use .vectors.vectors(rows).")
        if k < 1 or threads < 1:
            raise InputError(f"k={k} and threads={threads} must be at least 1.")
        if len(queries) != len(q_ids):
            raise InputError(f"{len(queries)} queries but {len(q_ids)} ids: give one id per query.")
        results = self.vectors.search_many(self._encoded(queries), min(k, max(1, self.num_docs)), threads)
        return {
            qid: [
                DenseSearchResult(docid, score)
                for docid, score in zip(self.vectors.docids(rows), scores.tolist(), strict=True)
            ]
            for qid, (rows, scores) in zip(q_ids, results, strict=True)
        }

    def set_hnsw_ef_search(self, ef_search: int) -> None:
        """Always an InputError: there is no HNSW graph here."""
        raise InputError(
            f"ef_search={ef_search} is for HNSW indexes, and a multi-vector index has no graph: leave it out."
        )

    def _encoded(self, queries: Sequence[str | np.ndarray] | np.ndarray) -> list[np.ndarray]:
        texts = [query for query in queries if isinstance(query, str)]
        by_text = dict(zip(texts, self.query_encoder.encode_vectors(texts), strict=True))
        encoded = [by_text[query] if isinstance(query, str) else np.atleast_2d(query) for query in queries]
        for vectors in encoded:
            if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
                raise InputError(
                    f"a query has the shape {vectors.shape}: expected a text, or K_q vectors of {self.dimension}."
                )
        return [np.ascontiguousarray(vectors, np.float32) for vectors in encoded]
