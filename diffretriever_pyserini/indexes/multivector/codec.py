"""The K vectors of a passage in a record of fixed size: two rotations, then a number of few bits for each component.

The K vectors that one forward pass gives are alike, so most of a passage is told by what they share. The mean over
passages is taken off each mask position, the K positions are rotated to the principal directions of their K x K Gram
matrix, and the components of all of these coefficients to principal ones. What results is uncorrelated and mostly near
zero: the few components that vary much get up to 12 bits, most get none (docs/multivector.md, "A record").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files.atomic import write_whole

_UNIFORM = {
    2: (0.9957, 0.11885),
    4: (0.3352, 0.01154),
    6: (0.1041, 0.00104),
    8: (0.03076, 8.77e-5),
    10: (0.008785, 7e-6),
    12: (0.002448, 5.36e-7),
}
"""By bits, of the best uniform quantiser of a Gaussian: its step over sigma, its squared error over sigma squared."""
_FINE = 1 << 10  # bytes of a record up to which bits go by two, else by four: fewer codes, so less to multiply
_WIDTHS = (8, 4, 2)  # a code's bits are a sum of these; 8 is a byte of its own, of 4 and 2 several share a byte
_RANGES = np.array([0.8, 0.9, 1, 1.15, 1.35, 1.6, 2])  # times the Gaussian's step, tried for each component
_BATCH = 512  # passages


@dataclass(frozen=True, eq=False)
class Plane:
    """Parts of codes that lie at the same bits of neighbouring bytes, one code in each byte.

    Attributes
    ----------
    columns : bytes of a record.
    shift, width : where in these bytes, and how many bits.
    codes : int64 [n], of which of the codec's codes each byte holds a part; ascending.
    coefficients, components : int64 [n], of these codes.
    below : int64 [n], how many bits of the code come after this part of it.
    steps : float32 [n], what one more in this part means.
    """

    columns: slice
    shift: int
    width: int
    codes: np.ndarray
    coefficients: np.ndarray
    components: np.ndarray
    below: np.ndarray
    steps: np.ndarray

    @property
    def lowest(self) -> np.float32:
        """What 0 means, in steps: values lie evenly around zero, those of a part as those of the whole code."""
        return np.float32(-_middle(self.width))

    def parts(self, records: np.ndarray) -> np.ndarray:
        """uint8 [passages, stride] -> uint8 [passages, n]."""
        parts = records[:, self.columns]
        if self.shift:
            parts = parts >> self.shift
        return parts & ((1 << self.width) - 1) if self.shift + self.width < 8 else parts


@dataclass(frozen=True)
class RecordCodec:
    """K vectors of width H <-> one record of ``stride`` bytes, which holds ``m`` codes.

    Attributes
    ----------
    means : float32 [K, H], taken off each mask position.
    directions : float32 [K, J], orthonormal columns: position k is the sum over j of ``directions[k, j] * c_j``.
    basis : float32 [d, H], orthonormal rows, shared by all coefficients.
    coefficients, components : int64 [m], of which component of which coefficient each code is; coefficients ascend.
    bits : int64 [m], of each code.
    steps : float32 [m], between two neighbouring values of a code.
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
        """Vectors of a passage."""
        return len(self.means)

    @property
    def mask_bytes(self) -> int:
        """Bytes at the end of a record that say which positions hold a vector."""
        return -(-self.k // 8)

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """Where a record holds what: parts of 8 bits, of 4 (the first half of them in the lower bits), and of 2."""
        found, start = [], 0
        for width in _WIDTHS:
            codes = np.flatnonzero(self.bits & width)
            size = _bytes(self.bits, width)
            for number, at in enumerate(range(0, len(codes), max(1, size))):
                some = codes[at : at + size]
                below = self.bits[some] & (width - 1)
                steps = np.ldexp(self.steps[some], below)
                columns, where = slice(start, start + len(some)), (self.coefficients[some], self.components[some])
                found.append(Plane(columns, number * width, width, some, *where, below, steps))
            start += size
        return tuple(found)

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return max((plane.columns.stop for plane in self.planes), default=0) + self.mask_bytes

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] -> uint8 [n, stride]."""
        records = np.zeros((len(vectors), self.stride), np.uint8)
        for some, record in zip(_batches(vectors), _batches(records), strict=True):
            filled, there = fill(some)
            values = rotate(filled - self.means, self.directions, self.basis)[:, self.coefficients, self.components]
            codes = _codes(values, self.bits, self.steps).astype(np.uint16)
            for plane in self.planes:
                parts = codes[:, plane.codes] >> plane.below.astype(np.uint16) & np.uint16((1 << plane.width) - 1)
                record[:, plane.columns] |= parts.astype(np.uint8) << plane.shift
            record[:, -self.mask_bytes :] = np.packbits(there, axis=1)
        return records

    def decode(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n, K, H]; positions without a vector are zero again."""
        values = np.zeros((len(records), len(self.bits)), np.float32)
        for plane in self.planes:
            values[:, plane.codes] += (plane.parts(records) + plane.lowest) * plane.steps
        coefficients = np.zeros((len(records), self.directions.shape[1], len(self.basis)), np.float32)
        coefficients[:, self.coefficients, self.components] = values
        vectors = np.einsum("kj,njd->nkd", self.directions, coefficients, optimize=True) @ self.basis + self.means
        return vectors * self.positions(records)[:, :, None]

    def positions(self, records: np.ndarray) -> np.ndarray:
        """Bool [n, K]: which mask positions hold a vector."""
        return np.unpackbits(records[:, -self.mask_bytes :], axis=1, count=self.k).astype(bool)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save

        write_whole(path, save({one.name: np.ascontiguousarray(getattr(self, one.name)) for one in fields(self)}))


def _codes(values: np.ndarray, bits: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The nearest codes of ``values`` [n, m], whole numbers in float32; c means ``(c - _middle(bits)) * steps``."""
    return np.rint(values / steps + _middle(bits)).clip(0, 2 * _middle(bits))


def _middle(bits: np.ndarray | int) -> np.ndarray:
    """What would mean zero, half way between two codes: float32 like ``bits``."""
    return (np.exp2(bits) / 2 - 0.5).astype(np.float32)


def digest(codec: bytes) -> str:
    """SHA-256 of a codec's file."""
    return hashlib.sha256(codec).hexdigest()


def read_codec(path: Path, told: str | None = None) -> RecordCodec:
    """The codec in ``path``; InputError where it is damaged, or its :func:`digest` is another than ``told``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        if told is not None and digest(content) != told:
            raise ValueError("another one than the index was made with")
        return RecordCodec(**load(content))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); build the index again.") from error


def train_codec(sample: np.ndarray, budget: int) -> RecordCodec:
    """A codec for passages like ``sample``, float32 [n, K, H]; a record takes ``budget`` bytes at most, mask included.

    Raises
    ------
    InputError
        For a budget in which nothing can be told.
    """
    _, k, width = sample.shape
    filled, _ = fill(sample)
    means = filled.mean(axis=0)
    over_positions, over_components = np.zeros((k, k)), np.zeros((width, width))
    for some in _batches(filled):
        centred = some - means
        over_positions += np.einsum("nkh,njh->kj", centred, centred, optimize=True)
        flat = centred.reshape(-1, width)
        over_components += flat.T @ flat
    directions, basis = principal(over_positions), np.ascontiguousarray(principal(over_components).T)
    variances = np.zeros((k, width))
    for some in _batches(filled):
        variances += np.square(rotate(some - means, directions, basis)).sum(axis=0) / len(sample)
    bits = allocate(variances, budget - -(-k // 8), 2 if budget <= _FINE else 4)
    if variances.any() and not bits.any():
        raise InputError(f"{budget} bytes a passage are too few for {k} vectors of {width} components: give more.")
    directions, basis = directions[:, bits.any(axis=1)], basis[bits.any(axis=0)]
    coefficients, components = np.nonzero(bits[np.ix_(bits.any(axis=1), bits.any(axis=0))])
    bits, sigmas = bits[bits > 0], np.sqrt(variances[bits > 0])
    usual = (np.array([_UNIFORM[size][0] for size in bits.tolist()]) * sigmas).astype(np.float32)
    errors = np.zeros((len(_RANGES), len(bits)))
    for some in _batches(filled):
        values = rotate(some - means, directions, basis)[:, coefficients, components]
        for error, steps in zip(errors, np.outer(_RANGES, usual).astype(np.float32), strict=True):
            error += np.square((_codes(values, bits, steps) - _middle(bits)) * steps - values).sum(axis=0)
    steps = (usual * _RANGES[errors.argmin(axis=0)]).astype(np.float32)
    return RecordCodec(means, directions, basis, coefficients, components, bits, steps)


def allocate(variances: np.ndarray, size: int, unit: int) -> np.ndarray:
    """Bits of each component, int64 like ``variances``, ``size`` bytes in all, by steps of ``unit``: water-filling.

    A component's squared error is its variance times what its number of bits leaves of it, so bits go where each of
    them takes away most (Cover and Thomas, Elements of Information Theory, 10.3.3). The first bits of a component gain
    more than its further ones, so the best steps up, in order, are the optimum.
    """
    sizes = np.array([0, *(bits for bits in _UNIFORM if bits % unit == 0)])
    gains = np.outer(-np.diff([1.0, *(_UNIFORM[bits][1] for bits in sizes[1:].tolist())]), variances)
    best = np.argsort(-gains, axis=None, kind="stable")
    best = best[gains.flat[best] > 0] % variances.size
    for count in range(8 * size // unit, -1, -1):  # the last byte of a width may be used in part
        bits = sizes[np.bincount(best[:count], minlength=variances.size)]
        if sum(_bytes(bits, width) for width in _WIDTHS) <= size:
            return bits.reshape(variances.shape)
    return np.zeros(variances.shape, np.int64)


def _bytes(bits: np.ndarray, width: int) -> int:
    """What the parts of ``width`` bits take of a record."""
    return -(-int(np.count_nonzero(bits & width)) * width // 8)


def principal(gram: np.ndarray) -> np.ndarray:
    """Principal directions of ``gram`` [n, n], float32 [n, n] in columns, strongest first.

    A direction's sign is fixed by its largest entry, so that the same sample gives the same bytes.
    """
    directions = np.linalg.eigh(gram)[1][:, ::-1]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(gram))])
    return (directions * signs).astype(np.float32)


def fill(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero vectors replaced by their passage's mean (float32 [n, K, H]), and which were not zero (bool [n, K])."""
    there = vectors.any(axis=2)
    if there.all():
        return vectors, there
    means = vectors.sum(axis=1) / np.maximum(there.sum(axis=1), 1)[:, None]
    return np.where(there[:, :, None], vectors, means[:, None]), there


def rotate(centred: np.ndarray, directions: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Coefficients float32 [n, J, d] of ``centred`` [n, K, H]."""
    return np.einsum("kj,nkh->njh", directions, centred, optimize=True) @ basis.T


def _batches(passages: np.ndarray) -> Iterator[np.ndarray]:
    return (passages[at : at + _BATCH] for at in range(0, len(passages), _BATCH))
