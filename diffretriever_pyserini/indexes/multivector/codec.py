"""The K vectors of a passage in a record of fixed size: two rotations, then a number of few bits for each component.

The K vectors that one forward pass gives are alike, so most of a passage is told by what they share. The mean over
passages is taken off each mask position, the K positions are rotated to the principal directions of their K x K Gram
matrix, and the components of all of these coefficients to principal ones. What results is uncorrelated and mostly near
zero: a few components that vary much get 8 bits, more get 4, most get none (docs/multivector.md, "How it works").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files.atomic import write_whole

_UNIFORM = {2: (0.9957, 0.1188), 4: (0.3352, 0.0115), 8: (0.0308, 0.00012)}
"""By bits, of the best uniform quantiser of a Gaussian: its step over sigma, its squared error over sigma squared."""
_BATCH = 512  # passages


@dataclass(frozen=True, eq=False)
class Plane:
    """Codes that lie at the same bits of neighbouring bytes, one component in each byte.

    Attributes
    ----------
    columns : bytes of a record.
    shift, bits : where in these bytes, and how many.
    coefficients, components : int64 [n], of which component each byte tells; coefficients ascend.
    steps : float32 [n], of the components.
    """

    columns: slice
    shift: int
    bits: int
    coefficients: np.ndarray
    components: np.ndarray
    steps: np.ndarray

    @property
    def lowest(self) -> float:
        """What code 0 says, in steps; each further code says one more. The levels lie evenly around zero."""
        return 0.5 - (1 << self.bits - 1)

    def codes(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> uint8 [n, components]."""
        codes = records[:, self.columns]
        if self.shift:
            codes = codes >> self.shift
        return codes & ((1 << self.bits) - 1) if self.shift + self.bits < 8 else codes


@dataclass(frozen=True)
class RecordCodec:
    """K vectors of width H <-> one record of ``stride`` bytes.

    Attributes
    ----------
    means : float32 [K, H], taken off each mask position.
    directions : float32 [K, J], orthonormal columns: position k is the sum over j of ``directions[k, j] * c_j``.
    components : float32 [d, H], orthonormal rows, shared by all coefficients.
    bits : uint8 [J, d], of each component's code; 0 where it is left out.
    steps : float32 [J, d], between two neighbouring levels.
    """

    means: np.ndarray
    directions: np.ndarray
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
        """Where a record holds what: codes of 8 bits, then of 4, the first half of them in the lower bits."""
        found, start = [], 0
        for bits in sorted({int(some) for some in self.bits.flat} - {0}, reverse=True):
            coefficients, components = np.nonzero(self.bits == bits)
            width = -(-len(coefficients) * bits // 8)
            for number, at in enumerate(range(0, len(coefficients), width)):
                where = coefficients[at : at + width], components[at : at + width]
                columns = slice(start, start + len(where[0]))
                found.append(Plane(columns, number * bits, bits, *where, self.steps[where]))
            start += width
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
            coefficients = rotate(filled - self.means, self.directions, self.components)
            for plane in self.planes:
                values = coefficients[:, plane.coefficients, plane.components] / plane.steps
                codes = np.rint(values - plane.lowest).clip(0, (1 << plane.bits) - 1).astype(np.uint8)
                record[:, plane.columns] |= codes << plane.shift
            record[:, -self.mask_bytes :] = np.packbits(there, axis=1)
        return records

    def decode(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n, K, H]; positions without a vector are zero again."""
        coefficients = np.zeros((len(records), *self.bits.shape), np.float32)
        for plane in self.planes:
            values = (plane.codes(records) + np.float32(plane.lowest)) * plane.steps
            coefficients[:, plane.coefficients, plane.components] = values
        vectors = np.einsum("kj,njd->nkd", self.directions, coefficients, optimize=True) @ self.components + self.means
        return vectors * self.positions(records)[:, :, None]

    def positions(self, records: np.ndarray) -> np.ndarray:
        """Bool [n, K]: which mask positions hold a vector."""
        return np.unpackbits(records[:, -self.mask_bytes :], axis=1, count=self.k).astype(bool)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save

        write_whole(path, save({one.name: np.ascontiguousarray(getattr(self, one.name)) for one in fields(self)}))


def read_codec(path: Path) -> RecordCodec:
    """The codec in ``path``; InputError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return RecordCodec(**load_file(path))
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
    directions, components = principal(over_positions), np.ascontiguousarray(principal(over_components).T)
    energies = np.zeros((k, width))
    for some in _batches(filled):
        energies += np.square(rotate(some - means, directions, components)).sum(axis=0)
    variances = energies / len(sample)
    bits = allocate(variances, 8 * (budget - -(-k // 8)))
    if variances.any() and not bits.any():
        raise InputError(f"{budget} bytes a passage are too few for {k} vectors of {width} components: give more.")
    steps = np.select([bits == size for size in _UNIFORM], [step for step, _ in _UNIFORM.values()]) * variances**0.5
    used = np.ix_(bits.any(axis=1), bits.any(axis=0))  # of coefficients and components
    return RecordCodec(
        means,
        directions[:, bits.any(axis=1)],
        components[bits.any(axis=0)],
        bits[used],
        steps[used].astype(np.float32),
    )


def allocate(variances: np.ndarray, budget: int, sizes: tuple[int, ...] = (4, 8)) -> np.ndarray:
    """Bits of each component, uint8 like ``variances``, ``budget`` in all: reverse water-filling.

    A component's squared error is its variance times what its number of bits leaves of it, so bits go where each of
    them takes away most (Cover and Thomas, Elements of Information Theory, 10.3.3). The first bits of a component gain
    more than its further ones, so the best steps up, in order, are the optimum.
    """
    levels = [(0, 1.0), *((size, _UNIFORM[size][1]) for size in sizes)]
    costs = np.diff([size for size, _ in levels])
    gains = np.outer(-np.diff([left for _, left in levels]) / costs, variances)  # a bit
    best = np.argsort(-gains, axis=None, kind="stable")
    step, component = np.divmod(best[gains.flat[best] > 0], variances.size)
    chosen = np.cumsum(costs[step]) <= budget
    bits = np.zeros(variances.size, np.uint8)
    np.add.at(bits, component[chosen], costs[step[chosen]].astype(np.uint8))
    return bits.reshape(variances.shape)


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


def rotate(centred: np.ndarray, directions: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Coefficients float32 [n, J, d] of ``centred`` [n, K, H]."""
    return np.einsum("kj,nkh->njh", directions, centred, optimize=True) @ components.T


def _batches(passages: np.ndarray) -> Iterator[np.ndarray]:
    return (passages[at : at + _BATCH] for at in range(0, len(passages), _BATCH))
