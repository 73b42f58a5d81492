"""Compressed MaxSim: FAISS proposes passages by their pooled vectors, and their records are scored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files.atomic import restore
from ...model.provenance import Provenance
from ...runtime.faiss import said
from ...runtime.threads import Workers
from ...scoring.ranking import best_rows
from ..options import MultiOptions
from .candidates import propose
from .codec import read_codec
from .exact import Found, maxsim_block
from .manifest import CANDIDATES, CODEC, read_manifest
from .records import Records
from .scorer import QueryScorer

_SHARED_BYTES = 2 << 20  # of codes to look up; below, one thread has the answer before others are awake


class CompressedIndex:
    """A folder that ``diffretriever index --multi`` made, open for searching. Safe to use from several threads.

    Attributes
    ----------
    first : FAISS's index, the first stage.

    Raises
    ------
    InputError
        When the folder is no such index, or a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, options: MultiOptions | None = None):
        self.folder = Path(folder).absolute()  # files are opened when first read, maybe in another directory
        restore(self.folder)
        self.options = options or MultiOptions()
        self.manifest = manifest = read_manifest(self.folder)
        self.codec = read_codec(self.folder / CODEC, manifest.codec)
        shape = (manifest.k_passage, manifest.dimension) if manifest.refine else None
        self._files = Records(self.folder, manifest.passages, manifest.stride, shape)
        self.first = self._read_first()
        self._threads = Workers()

    @property
    def provenance(self) -> Provenance:
        """The encoder that made the vectors."""
        return self.manifest.provenance

    @property
    def passages(self) -> int:
        """Passages; their numbers are below this."""
        return self.manifest.passages

    def search(self, query: np.ndarray, depth: int, threads: int | None = None) -> Found:
        """The best ``depth`` passages for ``query``, float32 [K_q, H].

        Several threads share the work where it is much, at most ``threads`` (None: all processors); for a few
        milliseconds of it, waking more than one takes longer. The result is the same.
        """
        codes = min(self.options.wanted(depth), self.passages) * self.manifest.stride
        if codes < _SHARED_BYTES or threads == 1 or self._threads.count == 1:
            return self._threads.run(self._search, query, depth)
        rows = self._threads.run(self._proposed, query, depth)
        return self.rank(query, rows, depth, self._threads, threads)

    def _search(self, query: np.ndarray, depth: int) -> Found:
        return self.rank(query, self._proposed(query, depth), depth)

    def _proposed(self, query: np.ndarray, depth: int) -> np.ndarray:
        """Numbers of the passages that will be scored."""
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():  # all passages are equally far
            return np.arange(self.passages)
        return propose(self.first, query, self.options.wanted(depth))

    def rank(
        self,
        query: np.ndarray,
        rows: np.ndarray,
        depth: int,
        workers: Workers | None = None,
        threads: int | None = None,
    ) -> Found:
        """The best ``depth`` of the passages ``rows``; ``workers`` share the work, at most ``threads`` of them."""
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():
            return best_rows(rows, np.zeros(len(rows), np.float32), depth, self.docids)
        scores = QueryScorer(self.codec, query, workers, threads).scores(self.records(rows))
        if len(rows) and self.manifest.refine and self.options.refine:
            return self._refined(query, rows, scores, depth)
        return best_rows(rows, scores, depth, self.docids)

    def search_many(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[Found]:
        """:meth:`search` for several queries, a thread each of ``threads``; the same results, whatever their number."""
        if threads is None or min(threads, len(queries)) <= 1:
            return [self.search(query, depth, threads) for query in queries]
        with Workers(min(threads, len(queries))) as workers:
            return workers.map(lambda query: self._search(query, depth), queries)

    def _refined(self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray, depth: int) -> Found:
        """The best rows scored by their vectors, before all others."""
        import torch

        rows, scores = best_rows(rows, scores, len(rows), self.docids)
        chosen = rows[: self.options.refine]
        exact = maxsim_block(torch.from_numpy(query), torch.from_numpy(self._files.vectors(chosen)), 1)[0].numpy()
        # What was not refined stays below: two scales of error must not be mixed.
        limit = np.nextafter(exact.min(initial=np.inf), -np.inf, dtype=np.float32)
        below = np.minimum(scores[self.options.refine :], limit)
        return best_rows(rows, np.concatenate([exact, below]), depth, self.docids)

    def records(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] of passages by number."""
        return self._files.records[rows]

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] of passages by number: the kept ones, else what their records say."""
        return self._files.vectors(rows) if self.manifest.refine else self.codec.decode(self.records(rows))

    def docids(self, rows: np.ndarray) -> list[str]:
        """Ids of passages by number."""
        return self._files.docids(rows)

    def row_of(self, docid: str) -> int | None:
        """Number of the passage ``docid``, or None where it is not there."""
        return self._rows.get(docid)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {docid: row for row, docid in enumerate(self.docids(np.arange(self.passages)))}

    def _read_first(self) -> Any:
        import faiss

        path = self.folder / CANDIDATES
        try:
            first = faiss.read_index(str(path))
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"{path}: FAISS cannot read it; build the index again. ({said(error)})") from error
        if first.ntotal != self.passages or first.d != self.manifest.dimension:
            raise InputError(
                f"{path}: holds {first.ntotal:,} passages, {self.passages:,} expected; build the index again."
            )
        return first
