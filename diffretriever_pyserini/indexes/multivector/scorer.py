"""MaxSim of one query with records, without decoding them: a few matrix products with the codes themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...runtime.threads import Workers
from .codec import Plane, RecordCodec

# Of records, and of components of the query, at a time; fixed, so that no sum depends on the number of threads.
_CHUNK_BYTES, _COMPONENTS = 512 << 10, 512
_COLUMNS = 16  # of a product: more are mostly zeros, fewer leave a processor's registers empty


class QueryScorer:
    """The inner products of one query [K_q, H] with everything that a record can say.

    With ``v_k = m_k + sum_j U_kj P' c_j`` the score of position k is ``q m_k + sum_j U_kj (P q) c_j``. A component of
    ``c_j`` is ``step * (code + lowest)``, so the steps are taken into the query and ``(P q) c_j`` is a product of codes
    and a matrix. Coefficients share a product; each has columns of its own, zero where a component is another's.
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
        basis = torch.from_numpy(codec.basis).split(_COMPONENTS)
        asked = torch.from_numpy(np.ascontiguousarray(query.T))
        inner = torch.cat([torch.empty(0, self._k_query), *self._each(lambda some: some @ asked, basis)]).numpy()
        self._products, lowest_codes = self._matrices(inner)
        self._means = torch.from_numpy(query @ codec.means.T + lowest_codes.T @ codec.directions.T)  # [K_q, K]
        self._directions = torch.from_numpy(np.ascontiguousarray(codec.directions.T))  # [J, K]
        self._rows = max(1, _CHUNK_BYTES // codec.stride)

    def _matrices(self, inner: np.ndarray) -> tuple[list[tuple[Plane, slice, slice, Any]], np.ndarray]:
        """What to multiply a plane's codes by: (plane, its codes, columns of the result, matrix); and what code 0 says.

        ``inner`` [d, K_q] is ``P q``. The second result, float32 [J, K_q], sums up each coefficient's lowest levels.
        """
        import torch

        codec = self._codec
        count, k_query = codec.directions.shape[1], self._k_query
        together = max(1, _COLUMNS // max(1, k_query))  # coefficients
        base, products = np.zeros((count, k_query), np.float32), []
        for plane in codec.planes:
            coefficients = codec.coefficients[plane.codes]
            weights = plane.steps[:, None] * inner[codec.components[plane.codes]]  # [n, K_q]
            for first in range(0, count, together):
                last = min(first + together, count)
                some = slice(*np.searchsorted(coefficients, (first, last)).tolist())
                matrix = np.zeros((some.stop - some.start, last - first, k_query), np.float32)
                matrix[np.arange(len(matrix)), coefficients[some] - first] = weights[some]
                base[first:last] += plane.lowest * matrix.sum(axis=0)
                if len(matrix):
                    columns = slice(first * k_query, last * k_query)
                    products.append((plane, some, columns, torch.from_numpy(matrix.reshape(len(matrix), -1))))
        return products, base

    def scores(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n]: sum over query vectors of max(0, best position)."""
        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        chunks = [records[at : at + self._rows] for at in range(0, len(records), self._rows)]
        return np.concatenate(self._each(self._scored, chunks))

    def _scored(self, records: np.ndarray) -> np.ndarray:
        import torch

        n, k_query, count = len(records), self._k_query, len(self._directions)
        codes = {plane: torch.from_numpy(plane.parts(records)).float() for plane in self._codec.planes}
        products = torch.zeros(n, count * k_query)
        for plane, some, columns, matrix in self._products:
            products[:, columns].addmm_(codes[plane][:, some], matrix)
        by_vector = products.view(n, count, k_query).transpose(1, 2).reshape(n * k_query, count)
        similarities = (by_vector @ self._directions).view(n, k_query, -1).add_(self._means)
        there = self._codec.positions(records)
        if not there.all():
            similarities.masked_fill_(torch.from_numpy(~there)[:, None], -torch.inf)
        return similarities.amax(dim=2).clamp_min_(0).sum(dim=1).numpy()

    def _each[T](self, function: Callable[[Any], T], values: Iterable[Any]) -> list[T]:
        if self._workers is None:
            return [function(value) for value in values]
        return self._workers.map(function, values, self._threads)
