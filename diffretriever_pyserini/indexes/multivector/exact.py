"""Exact MaxSim over a store's own vectors: the yardstick, and enough for small collections."""

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
_PRODUCT_BYTES = 64 << 20  # of similarities at once, whatever K and H are
_QUERIES = 128  # scored together, so that the vectors are read and widened once for all of them

Found = tuple[np.ndarray, np.ndarray]
"""Passage numbers int64 [n] and scores float32 [n], in the one order of :mod:`...scoring.ranking`."""


class ExactIndex:
    """Every passage of a store is scored. Safe to use from several threads.

    Parameters
    ----------
    store : a finished store that kept all K vectors, or its folder.
    device : where products are computed.

    Raises
    ------
    InputError
        For a store that is not finished, or that kept pooled vectors only.
    """

    def __init__(self, store: Store | str | Path, device: str = "cpu"):
        self.store = store if isinstance(store, Store) else Store(store)
        if self.store.spec.vectors != "all":
            raise InputError(f"{self.store.folder} kept one pooled vector a passage, so there is nothing for MaxSim.")
        self.device = device

    @property
    def passages(self) -> int:
        """Passages; their numbers are below this."""
        return len(self.store)

    @property
    def provenance(self) -> Provenance:
        """The encoder that made the vectors."""
        return self.store.spec.provenance

    def search(self, query: np.ndarray, depth: int, threads: int | None = None) -> Found:
        """The best ``depth`` passages for ``query``, float32 [K_q, H]."""
        return self.search_many([query], depth, threads)[0]

    def search_many(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[Found]:
        """:meth:`search` for several queries; each block of 128 reads the vectors once."""
        found: list[Found] = []
        with torch_threads(threads):
            for at in range(0, len(queries), _QUERIES):
                found += self._block(_stacked(queries[at : at + _QUERIES]), depth)
        return found

    def _block(self, queries: np.ndarray, depth: int) -> list[Found]:
        import torch

        best = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        with torch.inference_mode():
            flat = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2]))).to(self.device)
            for begin, vectors in self._chunks():
                held = vectors.to(self.device).float()  # there: a GPU is sent half the bytes
                scores = maxsim_block(flat, held, len(queries)).cpu().numpy()
                for i, row in enumerate(scores):
                    best[i] = keep_best(best[i], row, begin, depth, self.docids)
        return best

    def _chunks(self) -> Iterator[tuple[int, Any]]:
        """(first passage, its own [n, K, H] as stored) over the whole store; torch converts it, with all threads."""
        import torch

        for part, begin in zip(self.store.parts, self.store.bounds, strict=False):
            for start, stop in part.pieces(_CHUNK_BYTES):
                held = part.array("vectors")[start:stop]
                if part.spec.dtype == "int8":
                    held = part.vectors(start, stop)
                yield begin + start, torch.from_numpy(np.array(held))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] of passages by number."""
        return np.stack([part.vectors(row, row + 1)[0] for part, row in map(self._place, rows.tolist())])

    def docids(self, rows: np.ndarray) -> list[str]:
        """Ids of passages by number."""
        return [self._docids[row] for row in rows.tolist()]

    def row_of(self, docid: str) -> int | None:
        """Number of the passage ``docid``, or None."""
        try:
            return self._docids.index(docid)
        except ValueError:
            return None

    @cached_property
    def _docids(self) -> list[str]:
        return list(self.store.docids())

    def _place(self, row: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self.store.bounds, row, side="right")) - 1
        return self.store.parts[number], row - self.store.bounds[number]


def _stacked(queries: Sequence[np.ndarray]) -> np.ndarray:
    """float32 [n, largest K_q, H]; shorter queries end in zero vectors, which never score."""
    longest = max(1, *map(len, queries))
    stacked = np.zeros((len(queries), longest, queries[0].shape[1]), np.float32)
    for row, query in zip(stacked, queries, strict=True):
        row[: len(query)] = query
    return stacked


def maxsim_block(queries: Any, passages: Any, count: int) -> Any:
    """Sum of max(0, best place): torch [count * K_q, H] and [n, K, H] -> [count, n] (docs/method.md §5)."""
    import torch

    each = passages.element_size() * len(queries) * passages.shape[1]
    size = max(1, _PRODUCT_BYTES // max(1, each))
    found = []
    for some in passages.split(size):
        products = queries @ some.reshape(-1, some.shape[2]).T
        best = products.view(count, -1, len(some), some.shape[1]).amax(dim=3)
        found.append(best.clamp_(min=0).sum(dim=1))
    return torch.cat(found, dim=1)


def keep_best(
    known: Found, scores: np.ndarray, begin: int, depth: int, docids: Callable[[np.ndarray], list[str]]
) -> Found:
    """``known`` and the passages ``begin``, ``begin`` + 1 ... with ``scores``, cut to the best ``depth``."""
    rows, values = known
    scores = as_written(scores)
    fresh = np.flatnonzero(scores >= values[-1]) if len(values) >= depth else np.arange(len(scores))
    if not len(fresh):
        return known
    rows = np.concatenate([rows, fresh + begin])
    return best_rows(rows, np.concatenate([values, scores[fresh]]), depth, docids)
