"""Matrix products with the codes of records: of 8-bit integers where the processor has them, else of float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_DIGITS = 1 << np.arange(
    14, -1, -7
)  # of the three digits of a factor, the highest from -127 to 127, the others from -64 to 63
_LARGEST = 127 << 14
_LONGEST = 1 << 17  # codes of a product: the largest sum, 128 * 128 * _LONGEST, is 2^31


class Floats:
    """Products of float32 factors.

    Attributes
    ----------
    shared : the number of coefficients with a common product: more have more zeros, fewer give many small products.
    zero : the code that products take for 0.
    block : bytes of records whose scores are computed at once.
    """

    shared, zero, block = 2, 0, 512 << 10

    @staticmethod
    def split(factors: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split ``factors``, float32 [K_q, m], of which a run begins at each of ``starts``, int64 [s].

        Returns
        -------
        parts [p, K_q, m] and the scales of the runs, float32 [K_q, s].
        """
        return factors[None], np.ones((len(factors), len(starts)), np.float32)

    @staticmethod
    def sums(parts: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the sums, float32 [K_q, s], of the factors in each run."""
        return np.add.reduceat(parts[0], starts, axis=1)

    @staticmethod
    def codes(codes: np.ndarray) -> Any:
        """Return uint8 ``codes`` [passages, n] as the tensor [n, passages] that :meth:`product` takes."""
        import torch

        return torch.from_numpy(codes).float().T

    @staticmethod
    def product(parts: Any, codes: Any) -> Any:
        """Return float32 [rows, passages] of ``parts`` [p * rows, n] and ``codes`` [n, passages]."""
        return parts @ codes


class Integers(Floats):
    """Products of 8-bit integers with exact sums.

    A factor is rounded to an integer of 22 bits times the scale of its run, so it is nearly as exact as a float32. The
    integer has three digits of 8 bits, which are rows of one product.
    """

    shared, zero, block = 8, 128, 1 << 20

    @staticmethod
    def split(factors: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Floats.split`."""
        largest = np.maximum.reduceat(np.abs(factors), starts, axis=1)
        scales = np.where(largest > 0, largest, 1) / np.float32(_LARGEST)
        lengths = np.diff(starts, append=factors.shape[1])
        rest = np.rint(factors / scales.repeat(lengths, axis=1)).astype(np.int32)
        digits = np.empty((len(_DIGITS), *factors.shape), np.int8)
        for digit, unit in zip(digits, _DIGITS.tolist(), strict=True):
            digit[:] = (rest + unit // 2) // unit
            rest -= digit * np.int32(unit)
        return digits, scales

    @staticmethod
    def sums(parts: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """See :meth:`Floats.sums`."""
        return np.einsum(
            "pks,p->ks", np.add.reduceat(parts, starts, axis=2, dtype=np.float32), _DIGITS.astype(np.float32)
        )

    @staticmethod
    def codes(codes: np.ndarray) -> Any:
        """See :meth:`Floats.codes`."""
        import torch

        return torch.from_numpy(codes ^ np.uint8(128)).view(torch.int8).T

    @staticmethod
    def product(parts: Any, codes: Any) -> Any:
        """See :meth:`Floats.product`."""
        import torch

        high, middle, low = torch._int_mm(parts, codes).float().chunk(3)
        return low.add_(middle, alpha=1 << 7).add_(high, alpha=1 << 14)


def products_for(longest: int) -> type[Floats]:
    """Return how this processor multiplies fastest with up to ``longest`` codes."""
    return Integers if longest <= _LONGEST and _integers_are_fast() and integers_are_exact() else Floats


def _integers_are_fast() -> bool:
    """Return whether the processor has VNNI instructions; without them, products of float32 are faster."""
    import torch

    return bool(getattr(torch.cpu, "_is_vnni_supported", bool)())


@cache
def integers_are_exact() -> bool:
    """Return whether torch multiplies 8-bit integers here, and with sums that do not saturate."""
    import torch

    codes = torch.tensor([-128, 127, -127, 126], dtype=torch.int8).repeat(32, 64).T
    factors = torch.tensor([127, 127, -128, -128], dtype=torch.int8).repeat(32, 64)
    try:
        return torch.equal(torch._int_mm(factors, codes), factors.int() @ codes.int())
    except (AttributeError, RuntimeError):
        return False
