"""MaxSim of a query with records, without decoding them: a few matrix products with the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...runtime.threads import Workers
from .codec import RecordCodec

# Bytes of records, and rows of the basis, per block; constant, so that no sum depends on the number of threads.
_CHUNK_BYTES, _BASIS_ROWS = 512 << 10, 512
_ROWS = 16  # of a product that coefficients share: more rows are mostly zeros, fewer give many small products


class QueryScorer:
    """Scores records for one query [K_q, H].

    With ``v_k = m_k + sum_j U_kj P' c_j`` the inner product at position k is ``q m_k + sum_j U_kj (P q) c_j``. A
    component of ``c_j`` is a sum of its code's parts, each ``(part + lowest) * step``. So if the query is multiplied by
    the steps, ``(P q) c_j`` is a matrix product with the parts as stored. The first coefficient has most of the parts
    and a separate product; the others share products, with zeros for components of other coefficients.
    At most ``threads`` of ``workers`` share the work; the scores are the same.
    """

    def __init__(
        self, codec: RecordCodec, query: np.ndarray, workers: Workers | None = None, threads: int | None = None
    ):
        import torch

        self._codec, self._workers, self._threads = codec, workers, threads
        query = query[query.any(axis=1)]  # zero vectors never score
        self._k_query = len(query)
        # By torch, as numpy would start its own threads.
        basis = torch.from_numpy(codec.basis).split(_BASIS_ROWS)
        columns = torch.from_numpy(np.ascontiguousarray(query.T))
        products = self._each(lambda block: block @ columns, basis)
        inner = torch.cat([torch.empty(0, self._k_query), *products]).T.numpy()
        self._directions = torch.from_numpy(codec.directions)  # [K, J]
        lowest = np.zeros((codec.directions.shape[1], self._k_query), np.float32)
        self._products = list(self._matrices(inner, lowest)) if self._k_query else []
        self._lowest = torch.from_numpy(codec.means @ query.T + codec.directions @ lowest)[:, :, None]  # [K, K_q, 1]
        self._passages = max(1, _CHUNK_BYTES // codec.stride)

    def _matrices(self, inner: np.ndarray, lowest: np.ndarray) -> Iterator[tuple[int, slice, slice, Any]]:
        """Yield the products: (number of the plane, slice of its parts, rows of the result, matrix [rows, parts]).

        ``inner`` [K_q, d] is ``P q``. Adds the inner products of a record of zeros to ``lowest`` [J, K_q].
        """
        import torch

        k_query, count = self._k_query, len(lowest)
        bounds = [0, *range(1, count, max(1, _ROWS // k_query)), count]
        for number, plane in enumerate(self._codec.planes):
            weights = inner[:, plane.components] * plane.steps  # [K_q, parts]
            offsets = np.searchsorted(plane.coefficients, bounds).tolist()
            for first, last, low, high in zip(bounds, bounds[1:], offsets, offsets[1:], strict=False):
                if low == high:
                    continue
                matrix = np.zeros((last - first, k_query, high - low), np.float32)
                matrix[plane.coefficients[low:high] - first, :, np.arange(high - low)] = weights[:, low:high].T
                lowest[first:last] += plane.lowest * matrix.sum(axis=2)
                rows = slice(first * k_query, last * k_query)
                yield number, slice(low, high), rows, torch.from_numpy(matrix.reshape(-1, high - low))

    def scores(self, records: np.ndarray) -> np.ndarray:
        """Return MaxSim, float32 [n], of ``records``, uint8 [n, stride]."""
        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        chunks = [records[start : start + self._passages] for start in range(0, len(records), self._passages)]
        return np.concatenate(self._each(self._scored, chunks))

    def _scored(self, records: np.ndarray) -> np.ndarray:
        import torch

        n, (k, count) = len(records), self._directions.shape
        parts = [torch.from_numpy(plane.parts(records)).float().T for plane in self._codec.planes]
        inner = torch.zeros(count * self._k_query, n)
        for plane, chosen, rows, matrix in self._products:
            inner[rows].addmm_(matrix, parts[plane][chosen])
        similarities = (
            (self._directions @ inner.view(count, self._k_query * n)).view(k, self._k_query, n).add_(self._lowest)
        )
        present = self._codec.positions(records)
        if not present.all():
            similarities.masked_fill_(torch.from_numpy(~present).T[:, None], -torch.inf)
        return similarities.amax(dim=0).clamp_min_(0).sum(dim=0).numpy()

    def _each[T](self, function: Callable[[Any], T], values: Iterable[Any]) -> list[T]:
        if self._workers is None:
            return [function(value) for value in values]
        return self._workers.map(function, values, self._threads)
