"""MaxSim of one query with records, without decoding them: a few matrix products with the codes themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...runtime.threads import Workers
from .codec import RecordCodec

# Bytes of records, and rows of the basis, at a time; fixed, so that no sum depends on the number of threads.
_CHUNK_BYTES, _BASIS_ROWS = 512 << 10, 512
_ROWS = 16  # of a product, where coefficients share it: more are mostly zeros, fewer are many small products


class QueryScorer:
    """The inner products of one query [K_q, H] with everything that a record can say.

    With ``v_k = m_k + sum_j U_kj P' c_j`` the score of position k is ``q m_k + sum_j U_kj (P q) c_j``. A component of
    ``c_j`` is a sum of its code's parts, each ``(part + lowest) * step``, so with the steps taken into the query,
    ``(P q) c_j`` is a product of a matrix and parts as they lie in the records. The first coefficient has most of them
    and a product of its own; others share one, with zeros where a component is another coefficient's.
    With ``workers`` several threads (at most ``threads``) share the work; the scores are the same.
    """

    def __init__(
        self, codec: RecordCodec, query: np.ndarray, workers: Workers | None = None, threads: int | None = None
    ):
        import torch

        self._codec, self._workers, self._threads = codec, workers, threads
        query = query[query.any(axis=1)]  # a zero vector meets nothing
        self._k_query = len(query)
        # By torch, as numpy would wake threads of its own.
        basis = torch.from_numpy(codec.basis).split(_BASIS_ROWS)
        asked = torch.from_numpy(np.ascontiguousarray(query.T))
        inner = torch.cat([torch.empty(0, self._k_query), *self._each(lambda some: some @ asked, basis)]).T.numpy()
        self._directions = torch.from_numpy(codec.directions)  # [K, J]
        lowest = np.zeros((codec.directions.shape[1], self._k_query), np.float32)
        self._products = list(self._matrices(inner, lowest)) if self._k_query else []
        self._lowest = torch.from_numpy(codec.means @ query.T + codec.directions @ lowest)[:, :, None]  # [K, K_q, 1]
        self._passages = max(1, _CHUNK_BYTES // codec.stride)

    def _matrices(self, inner: np.ndarray, lowest: np.ndarray) -> Iterator[tuple[int, slice, slice, Any]]:
        """What to multiply: (plane, some of its parts, rows of the result, matrix [rows, parts]).

        ``inner`` [K_q, d] is ``P q``. To ``lowest`` [J, K_q] is added what a record of zeros says.
        """
        import torch

        k_query, count = self._k_query, len(lowest)
        bounds = [0, *range(1, count, max(1, _ROWS // k_query)), count]
        for number, plane in enumerate(self._codec.planes):
            weights = inner[:, plane.components] * plane.steps  # [K_q, parts]
            at = np.searchsorted(plane.coefficients, bounds).tolist()
            for first, last, low, high in zip(bounds, bounds[1:], at, at[1:], strict=False):
                if low == high:
                    continue
                matrix = np.zeros((last - first, k_query, high - low), np.float32)
                matrix[plane.coefficients[low:high] - first, :, np.arange(high - low)] = weights[:, low:high].T
                lowest[first:last] += plane.lowest * matrix.sum(axis=2)
                rows = slice(first * k_query, last * k_query)
                yield number, slice(low, high), rows, torch.from_numpy(matrix.reshape(-1, high - low))

    def scores(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n]: sum over query vectors of max(0, best position)."""
        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        chunks = [records[at : at + self._passages] for at in range(0, len(records), self._passages)]
        return np.concatenate(self._each(self._scored, chunks))

    def _scored(self, records: np.ndarray) -> np.ndarray:
        import torch

        n, (k, count) = len(records), self._directions.shape
        parts = [torch.from_numpy(plane.parts(records)).float().T for plane in self._codec.planes]
        inner = torch.zeros(count * self._k_query, n)
        for plane, some, rows, matrix in self._products:
            inner[rows].addmm_(matrix, parts[plane][some])
        similarities = (
            (self._directions @ inner.view(count, self._k_query * n)).view(k, self._k_query, n).add_(self._lowest)
        )
        there = self._codec.positions(records)
        if not there.all():
            similarities.masked_fill_(torch.from_numpy(~there).T[:, None], -torch.inf)
        return similarities.amax(dim=0).clamp_min_(0).sum(dim=0).numpy()

    def _each[T](self, function: Callable[[Any], T], values: Iterable[Any]) -> list[T]:
        if self._workers is None:
            return [function(value) for value in values]
        return self._workers.map(function, values, self._threads)
