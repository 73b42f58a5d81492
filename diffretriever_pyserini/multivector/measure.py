"""How much of the exact ranking a compressed index finds, measured while it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .exact import Found, keep_best, maxsim_block

if TYPE_CHECKING:
    from .index import CompressedIndex


class RecallMeter:
    """Exact rankings of some passages taken as queries, gathered as the collection goes by.

    Parameters
    ----------
    passages : float32 [n, K, H]; each passage's K vectors are one query.
    """

    queries = 64
    depth = 100

    def __init__(self, passages: np.ndarray):
        import torch

        self._queries = passages
        self._flat = torch.from_numpy(np.ascontiguousarray(passages.reshape(-1, passages.shape[2])))
        self._best: list[Found] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(passages)
        self._seen = 0

    def add(self, vectors: np.ndarray) -> None:
        """The next passages of the collection, float32 [n, K, H]."""
        import torch

        scores = maxsim_block(self._flat, torch.from_numpy(vectors), len(self._queries)).numpy()
        for i, row in enumerate(scores):
            self._best[i] = keep_best(self._best[i], row, self._seen, self.depth)
        self._seen += len(vectors)

    def result(self, index: CompressedIndex) -> dict[str, Any]:
        """Shares of the exact top 10 and top 100 in the index's top 100."""
        found = [set(index.search(query, self.depth)[0].tolist()) for query in self._queries]
        shares = {
            f"top{n}_in_top{self.depth}": float(
                np.mean(
                    [
                        len(set(rows[:n].tolist()) & mine) / len(rows[:n])
                        for (rows, _), mine in zip(self._best, found, strict=True)
                    ]
                )
            )
            for n in (10, self.depth)
        }
        return {"queries": f"{len(found)} passages of the collection", **{k: round(v, 4) for k, v in shares.items()}}
