"""The K vectors of a passage in a record of fixed size: two rotations, then a code of a few bits per component.

The K vectors of one forward pass are similar, so they are coded together. The mean over passages is subtracted at each
mask position. The K positions are rotated to the principal directions of their K x K Gram matrix, and the components of
all these coefficients to their principal components. The results are uncorrelated and mostly near zero: bit allocation
gives up to 12 bits to the few components that vary much, and none to most (docs/multivector.md, "Records").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import BUILD_AGAIN, InputError
from ...files.atomic import write_whole
from .layout import WIDTHS, Group, Plane, Runs, bytes_of, groups_of, middle, planes_of, runs_of
from .products import Floats, products_for

_QUANTISERS = {
    2: (0.9957, 0.11885),
    4: (0.3352, 0.01154),
    6: (0.1041, 0.00104),
    8: (0.03076, 8.77e-5),
    10: (0.008785, 7e-6),
    12: (0.002448, 5.36e-7),
}
"""The best uniform scalar quantiser of a Gaussian, by bits: step / sigma and squared error / sigma squared."""
_FINE = 1 << 10  # bytes: smaller records allocate bits by two, larger by four, for fewer codes to multiply
_RANGES = np.array([0.8, 0.9, 1, 1.15, 1.35, 1.6, 2])  # of the Gaussian's step, tried for each component
_BATCH = 512  # passages


@dataclass(frozen=True)
class RecordCodec:
    """Encodes K vectors of H components as a record of ``stride`` bytes with ``m`` codes, and decodes it.

    Attributes
    ----------
    means : float32 [K, H], the mean at each mask position.
    directions : float32 [K, J], orthonormal columns: position k is the sum over j of ``directions[k, j] * c_j``.
    basis : float32 [d, H], orthonormal rows, shared by all coefficients.
    coefficients, components : int64 [m], the coefficient and component of each code; coefficients ascend.
    bits : int64 [m], number of bits of each code.
    steps : float32 [m], difference of adjacent values of a code.
    """

    means: np.ndarray
    directions: np.ndarray
    basis: np.ndarray
    coefficients: np.ndarray
    components: np.ndarray
    bits: np.ndarray
    steps: np.ndarray

    @property
    def k(self) -> int:
        """The number of vectors per passage."""
        return len(self.means)

    @property
    def mask_bytes(self) -> int:
        """The number of bytes at the end of a record that say which positions hold a vector."""
        return -(-self.k // 8)

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """The layout of a record."""
        return planes_of(self.bits, self.coefficients, self.components, self.steps)

    @cached_property
    def products(self) -> type[Floats]:
        """How codes are multiplied."""
        return products_for(self.stride)

    @cached_property
    def runs(self) -> Runs:
        """The codes of all planes."""
        return runs_of(self.planes)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The matrix products of a query."""
        return groups_of(self.runs, self.products.shared)

    @property
    def stride(self) -> int:
        """The number of bytes of a record."""
        return max((plane.columns.stop for plane in self.planes), default=0) + self.mask_bytes

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Return the records, uint8 [n, stride], of ``vectors``, float32 [n, K, H]."""
        records = np.zeros((len(vectors), self.stride), np.uint8)
        for batch, record in zip(_batches(vectors), _batches(records), strict=True):
            filled, present = fill(batch)
            values = rotate(filled - self.means, self.directions, self.basis)[:, self.coefficients, self.components]
            codes = _codes(values, self.bits, self.steps).astype(np.uint16)
            for plane in self.planes:
                parts = codes[:, plane.codes] >> plane.below.astype(np.uint16) & np.uint16((1 << plane.width) - 1)
                record[:, plane.columns] |= parts.astype(np.uint8) << plane.shift
            record[:, -self.mask_bytes :] = np.packbits(present, axis=1)
        return records

    def decode(self, records: np.ndarray) -> np.ndarray:
        """Return float32 [n, K, H] of ``records``, uint8 [n, stride]; positions without a vector are zero."""
        values = np.zeros((len(records), len(self.bits)), np.float32)
        for plane in self.planes:
            values[:, plane.codes] += (plane.parts(records) + plane.lowest) * plane.steps
        coefficients = np.zeros((len(records), self.directions.shape[1], len(self.basis)), np.float32)
        coefficients[:, self.coefficients, self.components] = values
        vectors = np.einsum("kj,njd->nkd", self.directions, coefficients, optimize=True) @ self.basis + self.means
        return vectors * self.positions(records)[:, :, None]

    def positions(self, records: np.ndarray) -> np.ndarray:
        """Return which mask positions hold a vector, bool [n, K]."""
        return np.unpackbits(records[:, -self.mask_bytes :], axis=1, count=self.k).astype(bool)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save

        write_whole(path, save({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}))


def _codes(values: np.ndarray, bits: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the nearest codes of ``values`` [n, m], integers in float32; c means ``(c - middle(bits)) * steps``."""
    return np.rint(values / steps + middle(bits)).clip(0, 2 * middle(bits))


def digest(codec: bytes) -> str:
    """Return the SHA-256 of a codec's file."""
    return hashlib.sha256(codec).hexdigest()


def read_codec(path: Path, expected: str | None = None) -> RecordCodec:
    """Return the codec in ``path``; InputError if it is damaged, or its :func:`digest` is not ``expected``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        if expected is not None and digest(content) != expected:
            raise ValueError("it is not the codec of this index")
        return RecordCodec(**load(content))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); {BUILD_AGAIN}.") from error


def train_codec(sample: np.ndarray, budget: int) -> RecordCodec:
    """Train a codec on ``sample``, float32 [n, K, H].

    Parameters
    ----------
    budget : bytes of a record at most, with the bits that say which positions hold a vector.

    Raises
    ------
    InputError
        For a budget that is too small for any code.
    """
    _, k, width = sample.shape
    filled, _ = fill(sample)
    means = filled.mean(axis=0)
    over_positions, over_components = np.zeros((k, k)), np.zeros((width, width))
    for batch in _batches(filled):
        centred = batch - means
        over_positions += np.einsum("nkh,njh->kj", centred, centred, optimize=True)
        flat = centred.reshape(-1, width)
        over_components += flat.T @ flat
    directions, basis = principal(over_positions), np.ascontiguousarray(principal(over_components).T)
    variances = np.zeros((k, width))
    for batch in _batches(filled):
        variances += np.square(rotate(batch - means, directions, basis)).sum(axis=0) / len(sample)
    bits = allocate(variances, budget - -(-k // 8), 2 if budget <= _FINE else 4)
    if variances.any() and not bits.any():
        raise InputError(f"{budget} bytes per passage are too few for {k} vectors of {width} components: allow more.")
    directions, basis = directions[:, bits.any(axis=1)], basis[bits.any(axis=0)]
    coefficients, components = np.nonzero(bits[np.ix_(bits.any(axis=1), bits.any(axis=0))])
    bits, sigmas = bits[bits > 0], np.sqrt(variances[bits > 0])
    gaussian = (np.array([_QUANTISERS[size][0] for size in bits.tolist()]) * sigmas).astype(np.float32)
    errors = np.zeros((len(_RANGES), len(bits)))
    for batch in _batches(filled):
        values = rotate(batch - means, directions, basis)[:, coefficients, components]
        for error, steps in zip(errors, np.outer(_RANGES, gaussian).astype(np.float32), strict=True):
            error += np.square((_codes(values, bits, steps) - middle(bits)) * steps - values).sum(axis=0)
    steps = (gaussian * _RANGES[errors.argmin(axis=0)]).astype(np.float32)
    return RecordCodec(means, directions, basis, coefficients, components, bits, steps)


def allocate(variances: np.ndarray, size: int, unit: int) -> np.ndarray:
    """Allocate ``size`` bytes to components, in steps of ``unit`` bits (reverse water-filling).

    The squared error of a component is its variance times the error of the quantiser with its number of bits, so each
    bit goes where it reduces the error most (Cover and Thomas, Elements of Information Theory, 10.3.3). The gain per
    step falls with the number of bits, so taking the best steps in order is optimal.

    Returns
    -------
    int64, shaped like ``variances``: the bits of each component.
    """
    sizes = np.array([0, *(bits for bits in _QUANTISERS if bits % unit == 0)])
    gains = np.outer(-np.diff([1.0, *(_QUANTISERS[bits][1] for bits in sizes[1:].tolist())]), variances)
    best = np.argsort(-gains, axis=None, kind="stable")
    best = best[gains.flat[best] > 0] % variances.size
    for count in range(8 * size // unit, -1, -1):  # the last byte of each width may be partly used
        bits = sizes[np.bincount(best[:count], minlength=variances.size)]
        if sum(bytes_of(bits, width) for width in WIDTHS) <= size:
            return bits.reshape(variances.shape)
    return np.zeros(variances.shape, np.int64)


def principal(gram: np.ndarray) -> np.ndarray:
    """Return the principal directions of ``gram`` [n, n], float32 [n, n] in columns, strongest first.

    The largest entry of a direction is positive, so that the same sample gives the same bytes.
    """
    directions = np.linalg.eigh(gram)[1][:, ::-1]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(gram))])
    return (directions * signs).astype(np.float32)


def fill(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [n, K, H] with the passage's mean for zero vectors, and bool [n, K]: which were not zero."""
    present = vectors.any(axis=2)
    if present.all():
        return vectors, present
    means = vectors.sum(axis=1) / np.maximum(present.sum(axis=1), 1)[:, None]
    return np.where(present[:, :, None], vectors, means[:, None]), present


def rotate(centred: np.ndarray, directions: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the coefficients, float32 [n, J, d], of ``centred`` [n, K, H]."""
    return np.einsum("kj,nkh->njh", directions, centred, optimize=True) @ basis.T


def _batches(passages: np.ndarray) -> Iterator[np.ndarray]:
    return (passages[start : start + _BATCH] for start in range(0, len(passages), _BATCH))
