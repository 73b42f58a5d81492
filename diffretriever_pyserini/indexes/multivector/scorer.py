"""MaxSim of a query with records, without decoding them: a few matrix products with the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...runtime.threads import Workers
from .codec import RecordCodec
from .layout import Group

_BASIS_ROWS = 512  # of a block; constant, like the passages of a block, so that no sum depends on the number of threads


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
        vectors = torch.from_numpy(query)
        basis = torch.from_numpy(codec.basis).split(_BASIS_ROWS)
        inner = torch.cat(self._each(lambda block: vectors @ block.T, basis), dim=1).numpy()
        self._directions = torch.from_numpy(codec.directions)  # [K, J]
        lowest = np.zeros((codec.directions.shape[1], self._k_query), np.float32)
        self._matrices = list(self._factors(inner, lowest)) if inner.size else []
        self._lowest = torch.from_numpy(codec.means @ query.T + codec.directions @ lowest)[:, :, None]  # [K, K_q, 1]
        self._passages = max(1, codec.products.block // codec.stride)

    def _factors(self, inner: np.ndarray, lowest: np.ndarray) -> Iterator[tuple[Group, Any, Any]]:
        """Yield each group with factors [p * rows, n] and scales [rows, 1], for ``inner``, float32 [K_q, d]: ``P q``.

        A group's rows are its coefficients times K_q. Adds the inner products of codes of 0 to ``lowest`` [J, K_q].
        """
        import torch

        products, runs, k_query = self._codec.products, self._codec.runs, self._k_query
        parts, scales = products.split(inner[:, runs.components] * runs.steps, runs.starts)
        sums = scales * products.sums(parts, runs.starts) * (runs.lowest + np.float32(products.zero))
        np.add.at(lowest, runs.coefficients, sums.T)
        for group in self._codec.groups:
            size = len(group.rows)
            factors = np.zeros((len(parts), group.count, k_query, size), parts.dtype)
            factors[:, group.rows, :, np.arange(size)] = parts[:, :, group.parts].transpose(2, 0, 1)
            scaled = np.zeros((group.count, k_query), np.float32)
            scaled[runs.coefficients[group.runs] - group.first] = scales[:, group.runs].T
            yield group, torch.from_numpy(factors.reshape(-1, size)), torch.from_numpy(scaled.reshape(-1, 1))

    def scores(self, records: np.ndarray) -> np.ndarray:
        """Return MaxSim, float32 [n], of ``records``, uint8 [n, stride]."""
        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        chunks = [records[start : start + self._passages] for start in range(0, len(records), self._passages)]
        return np.concatenate(self._each(self._scored, chunks))

    def _scored(self, records: np.ndarray) -> np.ndarray:
        import torch

        n, (k, count), products = len(records), self._directions.shape, self._codec.products
        codes = [products.codes(plane.parts(records)) for plane in self._codec.planes]
        inner = torch.zeros(count * self._k_query, n)
        for group, factors, scales in self._matrices:
            product = products.product(factors, codes[group.plane][group.columns])
            start = group.first * self._k_query
            inner[start : start + len(scales)].addcmul_(product, scales)
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
