"""MUVERA (arXiv 2405.19504): sets of vectors as single vectors whose inner products approximate MaxSim."""

from __future__ import annotations

import numpy as np

_BATCH = 512  # passages at a time


class FixedEncodings:
    """Fixed dimensional encodings, section 2 of the paper; random numbers are the same in every run.

    Each repetition divides space into 2 ** ``bits`` buckets by the signs of random projections (SimHash). A query's
    vectors are summed per bucket, a passage's are averaged, and an empty bucket gets the passage's vector whose signs
    are nearest. Buckets are projected to ``inner`` components, concatenated and projected to ``final`` ones.

    Parameters
    ----------
    width : H.
    inner, final : None keeps all components.
    """

    def __init__(self, width: int, final: int | None, bits: int = 4, inner: int | None = 16, repetitions: int = 20):
        draw = np.random.default_rng(19504)
        self._shape = (repetitions, 1 << bits, inner or width)
        self._bits = bits
        self._planes = draw.standard_normal((width, repetitions * bits), dtype=np.float32)
        self._inner = (
            _signs(draw, width, repetitions * inner, inner)
            if inner
            else np.tile(np.eye(width, dtype=np.float32), repetitions)
        )
        total = int(np.prod(self._shape))
        self._final = _signs(draw, total, final, final) if final else None
        self.components = final or total

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, K_q, H] -> [n, final]."""
        return self._batches(vectors, filled=False)

    def passages(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, K, H], no zero vectors -> [n, final]."""
        return self._batches(vectors, filled=True)

    def _batches(self, vectors: np.ndarray, filled: bool) -> np.ndarray:
        parts = [self._encode(vectors[start : start + _BATCH], filled) for start in range(0, len(vectors), _BATCH)]
        return np.concatenate(parts)

    def _encode(self, vectors: np.ndarray, filled: bool) -> np.ndarray:
        n, k, _ = vectors.shape
        repetitions, buckets, inner = self._shape
        signs = (vectors @ self._planes > 0).reshape(n, k, repetitions, self._bits)
        bucket = (signs << np.arange(self._bits)).sum(axis=3)  # [n, K, R]
        inside = bucket[:, :, :, None] == np.arange(buckets)  # [n, K, R, B]
        values = (vectors @ self._inner).reshape(n, k, repetitions, inner).transpose(0, 2, 1, 3)  # [n, R, K, inner]
        sums = inside.transpose(0, 2, 3, 1).astype(np.float32) @ values  # [n, R, B, inner]
        if filled:
            counts = inside.sum(axis=1)  # [n, R, B]
            apart = np.bitwise_count(bucket.transpose(0, 2, 1)[:, :, None] ^ np.arange(buckets)[:, None])
            nearest = np.take_along_axis(values, apart.argmin(axis=3)[:, :, :, None], axis=2)
            sums = np.where(counts[..., None] > 0, sums / np.maximum(counts, 1)[..., None], nearest)
        encoded = sums.reshape(n, -1).astype(np.float32)
        return encoded if self._final is None else encoded @ self._final


def _signs(draw: np.random.Generator, rows: int, columns: int, norm: int) -> np.ndarray:
    """A random projection that preserves inner products in expectation over ``norm`` of its columns."""
    return (2 * draw.integers(2, size=(rows, columns)) - 1).astype(np.float32) / np.float32(norm**0.5)
