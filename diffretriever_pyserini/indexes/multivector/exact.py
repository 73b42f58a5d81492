"""Exact MaxSim over the vectors of a store: the reference for other indexes, and enough for small collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...model.provenance import Provenance
from ...runtime.threads import torch_threads
from ...scoring.ranking import as_written, best_rows
from ...store.part import Part
from ...store.store import Store

_CHUNK_BYTES = 64 << 20  # of passage vectors in float32
_PRODUCT_BYTES = 64 << 20  # of similarities at once
_QUERIES = 128  # scored together, so that the vectors are read and converted once for all of them

RowHits = tuple[np.ndarray, np.ndarray]
"""Passage numbers int64 [n] and scores float32 [n], in the order of :mod:`...scoring.ranking`."""


class ExactIndex:
    """An index that scores every passage of a store. Safe to use from several threads.

    Parameters
    ----------
    store : a finished store with all K vectors, or its folder.
    device : the device that computes the products.

    Raises
    ------
    InputError
        For a store that is not finished, or has pooled vectors only.
    """

    def __init__(self, store: Store | str | Path, device: str = "cpu"):
        self.store = store if isinstance(store, Store) else Store(store)
        if self.store.spec.vectors != "all":
            raise InputError(
                f"{self.store.folder} has one pooled vector per passage, but MaxSim needs all: encode again."
            )
        self.device = device

    @property
    def passages(self) -> int:
        """The number of passages."""
        return len(self.store)

    @property
    def provenance(self) -> Provenance:
        """The encoder that made the vectors."""
        return self.store.spec.provenance

    def search(self, query: np.ndarray, depth: int, threads: int | None = None) -> RowHits:
        """Return the best ``depth`` passages for ``query``, float32 [K_q, H]."""
        return self.search_many([query], depth, threads)[0]

    def search_many(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[RowHits]:
        """Return :meth:`search` of several queries; each block of 128 queries reads the vectors once."""
        hits: list[RowHits] = []
        with torch_threads(threads):
            for start in range(0, len(queries), _QUERIES):
                hits += self._block(_stacked(queries[start : start + _QUERIES]), depth)
        return hits

    def _block(self, queries: np.ndarray, depth: int) -> list[RowHits]:
        import torch

        best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        with torch.inference_mode():
            flat = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2]))).to(self.device)
            for begin, vectors in self._chunks():
                vectors = vectors.to(self.device).float()  # converted on the device: half the bytes to copy
                scores = maxsim_block(flat, vectors, len(queries)).cpu().numpy()
                for i, row in enumerate(scores):
                    best[i] = keep_best(best[i], row, begin, depth, self.docids)
        return best

    def _chunks(self) -> Iterator[tuple[int, Any]]:
        """Yield (number of the first passage, vectors [n, K, H] as stored) over the whole store."""
        import torch

        for part, begin in zip(self.store.parts, self.store.bounds, strict=False):
            for start, stop in part.pieces(_CHUNK_BYTES):
                vectors = part.array("vectors")[start:stop]  # torch converts them faster, with all threads
                if part.spec.dtype == "int8":
                    vectors = part.vectors(start, stop)
                yield begin + start, torch.from_numpy(np.array(vectors))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 [n, K, H] of the passages ``rows``."""
        return np.stack([part.vectors(row, row + 1)[0] for part, row in map(self._part_and_row, rows.tolist())])

    def docids(self, rows: np.ndarray) -> list[str]:
        """Return the ids of the passages ``rows``."""
        return [self._docids[row] for row in rows.tolist()]

    def row_of(self, docid: str) -> int | None:
        """Return the number of the passage ``docid``, or None."""
        try:
            return self._docids.index(docid)
        except ValueError:
            return None

    @cached_property
    def _docids(self) -> list[str]:
        return list(self.store.docids())

    def _part_and_row(self, row: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self.store.bounds, row, side="right")) - 1
        return self.store.parts[number], row - self.store.bounds[number]


def _stacked(queries: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 [n, largest K_q, H]; shorter queries end in zero vectors, which never score."""
    longest = max(1, *map(len, queries))
    stacked = np.zeros((len(queries), longest, queries[0].shape[1]), np.float32)
    for row, query in zip(stacked, queries, strict=True):
        row[: len(query)] = query
    return stacked


def maxsim_block(queries: Any, passages: Any, count: int) -> Any:
    """Return MaxSim, torch [count, n], of queries [count * K_q, H] and passages [n, K, H] (docs/method.md §5)."""
    import torch

    passage_bytes = passages.element_size() * len(queries) * passages.shape[1]
    size = max(1, _PRODUCT_BYTES // max(1, passage_bytes))
    scores = []
    for block in passages.split(size):
        products = queries @ block.reshape(-1, block.shape[2]).T
        best = products.view(count, -1, len(block), block.shape[1]).amax(dim=3)
        scores.append(best.clamp_(min=0).sum(dim=1))
    return torch.cat(scores, dim=1)


def keep_best(
    known: RowHits, scores: np.ndarray, begin: int, depth: int, docids: Callable[[np.ndarray], list[str]]
) -> RowHits:
    """Return the best ``depth`` of ``known`` and of the passages ``begin``, ``begin`` + 1 ... with ``scores``."""
    rows, values = known
    scores = as_written(scores)
    new = np.flatnonzero(scores >= values[-1]) if len(values) >= depth else np.arange(len(scores))
    if not len(new):
        return known
    rows = np.concatenate([rows, new + begin])
    return best_rows(rows, np.concatenate([values, scores[new]]), depth, docids)
