"""MaxSim of one query with records, without decoding them: tables of inner products, summed up by code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..host.threads import Workers
from .codec import PlaceCodec

_CHUNK = 1024  # records at a time
_COMPONENTS = 512  # of the query at a time; fixed, so that the sums do not depend on the number of threads
_BLOCK = 96  # bytes of a code at a time, so that their part of the table stays in a processor's own cache


class QueryTables:
    """The inner products of one query [K_q, H] with everything that a record can say.

    With ``v_k = m_k + P' sum_j U_kj c_j`` the score of place k is ``q m_k + sum_j U_kj (P q) c_j``, and ``(P q) c_j``
    is a sum of one table row per code byte. With ``workers`` several threads share the work; the scores are the same.
    """

    def __init__(self, codec: PlaceCodec, query: np.ndarray, workers: Workers | None = None):
        import torch

        self._codec, self._workers = codec, workers
        query = query[query.any(axis=1)]  # a zero vector meets nothing
        self._k_query = len(query)
        rows = torch.from_numpy(codec.components).split(_COMPONENTS)  # torch, as numpy would wake threads of its own
        asked = torch.from_numpy(np.ascontiguousarray(query))
        inner = torch.cat(self._each(lambda some: asked @ some.T, rows), dim=1).numpy()  # [K_q, d]
        self._place = torch.from_numpy(query @ codec.means.T)  # [K_q, K]
        self._directions = torch.from_numpy(codec.directions.T)  # [J, K]
        self._tables: list[list[Any]] = []
        for tier in codec.tiers if self._k_query else ():
            width = tier.centroids.shape[2]
            parts = inner[:, tier.order].reshape(self._k_query, tier.size, width).transpose(1, 2, 0)
            if width == 1:  # [bytes, 256, K_q]; each way is the faster one for its shapes
                table = torch.from_numpy(tier.centroids) * torch.from_numpy(parts)
            else:
                table = torch.from_numpy(np.matmul(tier.centroids, parts))
            self._tables.append([block.reshape(-1, self._k_query) for block in table.split(_BLOCK)])
        self._first = torch.arange(_BLOCK, dtype=torch.int32) * 256

    def scores(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n]: sum over query vectors of max(0, best place)."""
        import torch

        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        codes = torch.from_numpy(records)
        products = torch.empty((len(records), self._k_query, len(self._directions)))
        chunk = _CHUNK if self._workers is None else min(_CHUNK, -(-len(records) // self._workers.count))
        self._each(
            lambda at: self._products(codes[at : at + chunk], products[at : at + chunk]),
            range(0, len(records), chunk),
        )
        return self._each(lambda _: self._best_places(products, records), range(1))[0]

    def _best_places(self, products: Any, records: np.ndarray) -> np.ndarray:
        import torch

        places = torch.matmul(products, self._directions).add_(self._place)  # [n, K_q, K]
        there = self._codec.places(records)
        if not there.all():
            places.masked_fill_(torch.from_numpy(~there)[:, None], -torch.inf)
        return places.amax(dim=2).clamp_min_(0).sum(dim=1).numpy()

    def _each[T](self, function: Callable[[Any], T], values: Iterable[Any]) -> list[T]:
        return [function(value) for value in values] if self._workers is None else self._workers.map(function, values)

    def _products(self, codes: Any, products: Any) -> None:
        """Write ``(P q) c_j`` of each record and query vector: uint8 [n, stride] -> float32 [n, K_q, J]."""
        import torch

        at = 0
        for tier, tables in zip(self._codec.tiers, self._tables, strict=True):
            width = len(tier.coefficients) * tier.size
            own = codes[:, at : at + width].reshape(-1, tier.size)
            sums = torch.zeros((len(own), self._k_query))
            for number, table in enumerate(tables):
                block = own[:, number * _BLOCK : (number + 1) * _BLOCK]
                rows = block.to(torch.int32).add_(self._first[: block.shape[1]])
                sums += torch.nn.functional.embedding_bag(rows, table, mode="sum")
            sums = sums.view(len(codes), len(tier.coefficients), -1) * torch.from_numpy(tier.scales)[:, None]
            products[:, :, tier.coefficients] = sums.transpose(1, 2)
            at += width
