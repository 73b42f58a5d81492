"""Compressed MaxSim: FAISS proposes candidates by their pooled vectors, then their records are scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BUILD_AGAIN, InputError
from ...files.folders import restore
from ...model.provenance import Provenance
from ...runtime.faiss import said
from ...runtime.threads import Workers
from ...scoring.ranking import best_rows
from ..options import MultiOptions
from .candidates import Proposals, propose, scored_proposals
from .codec import read_codec
from .exact import RowHits, maxsim_block
from .manifest import CANDIDATES, CODEC, read_manifest
from .records import Records
from .scorer import QueryScorer

_SHARED_BYTES = 2 << 20  # of codes to score; below, one thread is done before others have woken up


class CompressedIndex:
    """A folder of ``diffretriever index --multi``, opened for searching. Safe to use from several threads.

    Attributes
    ----------
    first_stage : the FAISS index that proposes candidates.

    Raises
    ------
    InputError
        When the folder is no such index, or a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, options: MultiOptions | None = None):
        self.folder = Path(folder).absolute()  # files are opened when first read, perhaps from another directory
        restore(self.folder)
        self.options = options or MultiOptions()
        self.manifest = manifest = read_manifest(self.folder)
        self.codec = read_codec(self.folder / CODEC, manifest.codec)
        shape = (manifest.k_passage, manifest.dimension) if manifest.refine else None
        self._files = Records(self.folder, manifest.passages, manifest.stride, shape)
        self.first_stage = self._read_first_stage()
        self._threads = Workers()

    @property
    def provenance(self) -> Provenance:
        """The encoder that made the vectors."""
        return self.manifest.provenance

    @property
    def passages(self) -> int:
        """The number of passages."""
        return self.manifest.passages

    def search(self, query: np.ndarray, depth: int, threads: int | None = None) -> RowHits:
        """Return the best ``depth`` passages for ``query``, float32 [K_q, H].

        At most ``threads`` threads (None: all processors) share a query of much work. For a few milliseconds of work,
        waking several threads takes longer. The result is the same.
        """
        codes = min(self.options.candidate_count(depth), self.passages) * self.manifest.stride
        if codes < _SHARED_BYTES or threads == 1 or self._threads.count == 1:
            return self._threads.run(self._search, query, depth)
        rows = self._threads.run(self._proposed, query, depth)
        return self.rank(query, rows, depth, self._threads, threads)

    def _search(self, query: np.ndarray, depth: int) -> RowHits:
        return self.rank(query, self._proposed(query, depth), depth)

    def _proposed(self, query: np.ndarray, depth: int) -> np.ndarray:
        """Return the numbers of the candidates."""
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():  # all passages score 0
            return np.arange(self.passages)
        return propose(self.first_stage, query, self.options.candidate_count(depth))

    def proposals(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[Proposals]:
        """Return each query's candidates for ``depth`` hits with the scores of the first stage."""

        def proposals(query: np.ndarray) -> Proposals:
            query = np.ascontiguousarray(query, np.float32)
            if not query.any():  # all passages score 0
                return np.arange(self.passages), np.zeros(self.passages, np.float32)
            return scored_proposals(self.first_stage, query, self.options.candidate_count(depth))

        return self._threads.map(proposals, queries, threads)

    def rank_many(
        self, queries: Sequence[np.ndarray], rows: Sequence[np.ndarray], depth: int, threads: int | None = None
    ) -> list[RowHits]:
        """Return :meth:`rank` of several queries, each among its ``rows``, one per thread."""

        def ranked(pair: tuple[np.ndarray, np.ndarray]) -> RowHits:
            return self.rank(pair[0], pair[1], depth)

        return self._threads.map(ranked, zip(queries, rows, strict=True), threads)

    def rank(
        self,
        query: np.ndarray,
        rows: np.ndarray,
        depth: int,
        workers: Workers | None = None,
        threads: int | None = None,
    ) -> RowHits:
        """Return the best ``depth`` of the passages ``rows``; at most ``threads`` of ``workers`` share the work."""
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():
            return best_rows(rows, np.zeros(len(rows), np.float32), depth, self.docids)
        scores = QueryScorer(self.codec, query, workers, threads).scores(self.records(rows))
        if len(rows) and self.manifest.refine and self.options.refine:
            return self._refined(query, rows, scores, depth)
        return best_rows(rows, scores, depth, self.docids)

    def search_many(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[RowHits]:
        """Return :meth:`search` of several queries, one per thread; the results do not depend on ``threads``."""
        if threads is None or min(threads, len(queries)) <= 1:
            return [self.search(query, depth, threads) for query in queries]
        with Workers(min(threads, len(queries))) as workers:
            return workers.map(lambda query: self._search(query, depth), queries)

    def _refined(self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray, depth: int) -> RowHits:
        """Return the hits with the best rows scored by their vectors, above all others."""
        import torch

        rows, scores = best_rows(rows, scores, len(rows), self.docids)
        chosen = rows[: self.options.refine]
        exact = maxsim_block(torch.from_numpy(query), torch.from_numpy(self._files.vectors(chosen)), 1)[0].numpy()
        # Rows that are not refined stay below, as their scores have other errors.
        limit = np.nextafter(exact.min(initial=np.inf), -np.inf, dtype=np.float32)
        below = np.minimum(scores[self.options.refine :], limit)
        return best_rows(rows, np.concatenate([exact, below]), depth, self.docids)

    def records(self, rows: np.ndarray) -> np.ndarray:
        """Return the records, uint8 [n, stride], of the passages ``rows``."""
        return self._files.records[rows]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 [n, K, H] of the passages ``rows``: the stored vectors, else the decoded records."""
        return self._files.vectors(rows) if self.manifest.refine else self.codec.decode(self.records(rows))

    def docids(self, rows: np.ndarray) -> list[str]:
        """Return the ids of the passages ``rows``."""
        return self._files.docids(rows)

    def row_of(self, docid: str) -> int | None:
        """Return the number of the passage ``docid``, or None."""
        return self._rows.get(docid)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {docid: row for row, docid in enumerate(self.docids(np.arange(self.passages)))}

    def _read_first_stage(self) -> Any:
        import faiss

        path = self.folder / CANDIDATES
        try:
            index = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"{path}: FAISS cannot read it; {BUILD_AGAIN}. ({said(error)})") from error
        if index.ntotal != self.passages or index.d != self.manifest.dimension:
            raise InputError(f"{path}: holds {index.ntotal:,} passages, {self.passages:,} expected; {BUILD_AGAIN}.")
        return index
