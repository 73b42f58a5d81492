"""MaxSim of one query with records, without decoding them: tables of inner products, summed up by code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...runtime.threads import Workers
from .codec import PlaceCodec, Tier

# Records, and components of the query, at a time; fixed, so that no sum depends on the number of threads.
_CHUNK, _COMPONENTS = 512, 512
_BLOCK = 96  # bytes of a code at a time, so that their part of the table stays in a processor's own cache


class QueryTables:
    """The inner products of one query [K_q, H] with everything that a record can say.

    With ``v_k = m_k + P' sum_j U_kj c_j`` the score of place k is ``q m_k + sum_j U_kj (P q) c_j``, and ``(P q) c_j``
    is a sum of one table row per code byte. With ``workers`` several threads (at most ``threads``) share the work; the
    scores are the same.
    """

    def __init__(
        self, codec: PlaceCodec, query: np.ndarray, workers: Workers | None = None, threads: int | None = None
    ):
        import torch

        self._codec, self._workers, self._threads = codec, workers, threads
        query = query[query.any(axis=1)]  # a zero vector meets nothing
        self._k_query = len(query)
        components = torch.from_numpy(codec.components).split(
            _COMPONENTS
        )  # torch, as numpy would wake threads of its own
        asked = torch.from_numpy(np.ascontiguousarray(query))
        inner = torch.cat(self._each(lambda some: asked @ some.T, components), dim=1).numpy()  # [K_q, d]
        self._place = torch.from_numpy(query @ codec.means.T)  # [K_q, K]
        # Rows in the tiers' order, their scales taken in, so that sums of codes need neither.
        rows = [codec.directions.T[tier.coefficients] * tier.scales[:, None] for tier in codec.tiers]
        self._directions = torch.from_numpy(np.concatenate(rows))  # [J, K]
        self._sums = [self._summing(tier, inner[:, tier.order]) for tier in codec.tiers if self._k_query]
        self._first = torch.arange(_BLOCK, dtype=torch.int32) * 256

    def scores(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n]: sum over query vectors of max(0, best place)."""
        import torch

        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        products = torch.cat(self._each(self._products, torch.from_numpy(records).split(_CHUNK)))
        if self._workers is None:
            return self._best_places(products, records)
        return self._workers.run(self._best_places, products, records)

    def _best_places(self, products: Any, records: np.ndarray) -> np.ndarray:
        import torch

        rows = products.transpose(1, 2).reshape(-1, products.shape[1])  # one product: many small ones take longer
        places = (rows @ self._directions).view(len(records), self._k_query, -1).add_(self._place)  # [n, K_q, K]
        there = self._codec.places(records)
        if not there.all():
            places.masked_fill_(torch.from_numpy(~there)[:, None], -torch.inf)
        return places.amax(dim=2).clamp_min_(0).sum(dim=1).numpy()

    def _each[T](self, function: Callable[[Any], T], values: Iterable[Any]) -> list[T]:
        if self._workers is None:
            return [function(value) for value in values]
        return self._workers.map(function, values, self._threads)

    def _products(self, codes: Any) -> Any:
        """``(P q) c_j`` without its scale, by record and query vector: uint8 [n, stride] -> float32 [n, J, K_q]."""
        import torch

        found, at = [], 0
        for tier, sums_of in zip(self._codec.tiers, self._sums, strict=True):
            width = len(tier.coefficients) * tier.size
            sums = sums_of(codes[:, at : at + width].reshape(-1, tier.size))
            found.append(sums.view(len(codes), len(tier.coefficients), self._k_query))
            at += width
        return torch.cat(found, dim=1)

    def _summing(self, tier: Tier, inner: np.ndarray) -> Callable[[Any], Any]:
        """From a tier's codes uint8 [m, bytes] to their inner products [m, K_q] with the query's ``inner`` [K_q, d]."""
        import torch

        if tier.scale_and_start is not None:  # codes are numbers, so this is a matrix product
            scale, start = tier.scale_and_start
            factors = torch.from_numpy(np.ascontiguousarray((inner * scale).T))
            constant = torch.from_numpy(inner @ start)
            return lambda codes: torch.addmm(constant, codes.float(), factors)
        parts = inner.reshape(self._k_query, tier.size, -1).transpose(1, 2, 0)
        tables = torch.from_numpy(np.matmul(tier.centroids, parts)).split(_BLOCK)  # [bytes, 256, K_q]
        flat = [table.reshape(-1, self._k_query) for table in tables]
        return lambda codes: self._looked_up(codes, flat)

    def _looked_up(self, codes: Any, tables: list[Any]) -> Any:
        import torch

        sums = torch.zeros((len(codes), self._k_query))
        for number, table in enumerate(tables):
            block = codes[:, number * _BLOCK : (number + 1) * _BLOCK]
            rows = block.to(torch.int32).add_(self._first[: block.shape[1]])
            sums += torch.nn.functional.embedding_bag(rows, table, mode="sum")
        return sums
