"""MaxSim of one query with records, without decoding them: tables of inner products, summed up by code."""

from __future__ import annotations

from typing import Any

import numpy as np

from .codec import PlaceCodec

_CHUNK = 256  # records at a time, so that their table rows' numbers stay in the processor's cache


class QueryTables:
    """The inner products of one query [K_q, H] with everything that a record can say.

    With ``v_k = m_k + P' sum_j U_kj c_j`` the score of place k is ``q m_k + sum_j U_kj (P q) c_j``, and ``(P q) c_j``
    is a sum of one table row per code byte.
    """

    def __init__(self, codec: PlaceCodec, query: np.ndarray):
        import torch

        self._codec = codec
        query = query[query.any(axis=1)]  # a zero vector meets nothing
        self._k_query = len(query)
        inner = query @ codec.components.T  # [K_q, d]
        self._place = torch.from_numpy(codec.means @ query.T)  # [K, K_q]
        self._directions = torch.from_numpy(codec.directions)  # [K, J]
        self._tables: list[tuple[Any, Any]] = []
        for tier in codec.tiers if self._k_query else ():
            width = tier.centroids.shape[2]
            parts = inner[:, tier.order].reshape(self._k_query, tier.size, width).transpose(1, 2, 0)
            # [bytes, 256, K_q]; numpy multiplies many tiny matrices faster than torch, and columns faster than matmul
            table = tier.centroids * parts if parts.shape[1] == 1 else np.matmul(tier.centroids, parts)
            first = torch.arange(tier.size, dtype=torch.int32) * table.shape[1]
            self._tables.append((torch.from_numpy(table).view(-1, self._k_query), first))

    def scores(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n]: sum over query vectors of max(0, best place)."""
        if not self._k_query or not len(records):
            return np.zeros(len(records), np.float32)
        return np.concatenate([self._scores(records[at : at + _CHUNK]) for at in range(0, len(records), _CHUNK)])

    def _scores(self, records: np.ndarray) -> np.ndarray:
        import torch

        codec, n = self._codec, len(records)
        codes = torch.from_numpy(records)
        products = torch.zeros((n, self._directions.shape[1], self._k_query))
        at = 0
        for tier, (table, first) in zip(codec.tiers, self._tables, strict=True):
            width = len(tier.coefficients) * tier.size
            rows = codes[:, at : at + width].reshape(-1, tier.size).to(torch.int32) + first
            sums = torch.nn.functional.embedding_bag(rows, table, mode="sum")
            sums = sums.view(n, len(tier.coefficients), -1) * torch.from_numpy(tier.scales)[:, None]
            products[:, tier.coefficients] = sums
            at += width
        places = torch.matmul(self._directions, products) + self._place  # [n, K, K_q]
        there = codec.places(records)
        if not there.all():
            places.masked_fill_(torch.from_numpy(~there)[:, :, None], -torch.inf)
        return places.amax(dim=1).clamp_min_(0).sum(dim=1).numpy()
