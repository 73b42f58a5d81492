"""What lies where in a record, and which of its codes share a matrix product (docs/multivector.md, "Records")."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

WIDTHS = (8, 4, 2)  # the bits of a code are a sum of these; parts of 4 and 2 bits share bytes


@dataclass(frozen=True, eq=False)
class Plane:
    """Parts of codes at the same bits of adjacent bytes, one code per byte.

    Attributes
    ----------
    columns : the bytes in a record.
    shift, width : the first bit in these bytes, and the number of bits.
    codes : int64 [n], index of the code of which each byte holds a part; ascending.
    coefficients, components : int64 [n], of these codes.
    below : int64 [n], number of bits of the code below this part.
    steps : float32 [n], the value of 1 in this part.
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
        """The value of 0 in steps: the values of a part, like those of a whole code, are centred around zero."""
        return np.float32(-middle(self.width))

    def parts(self, records: np.ndarray) -> np.ndarray:
        """Return the parts, uint8 [passages, n], of ``records``, uint8 [passages, stride]."""
        parts = records[:, self.columns]
        if self.shift:
            parts = parts >> self.shift
        return parts & ((1 << self.width) - 1) if self.shift + self.width < 8 else parts


@dataclass(frozen=True, eq=False)
class Runs:
    """The codes of all planes, one plane after another; a run is those of a coefficient in a plane.

    Attributes
    ----------
    components, steps : int64 and float32 [m], of the codes.
    starts : int64 [s], the first code of each run.
    planes, coefficients, lowest : int64, int64 and float32 [s], of the runs.
    """

    components: np.ndarray
    steps: np.ndarray
    starts: np.ndarray
    planes: np.ndarray
    coefficients: np.ndarray
    lowest: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """Adjacent runs of a plane that share a matrix product.

    Attributes
    ----------
    plane : the number of the plane.
    columns : the codes in the plane.
    parts, runs : the codes and the runs in :class:`Runs`.
    first, count : the coefficients of the product.
    rows : int64 [n], of each code, its coefficient less ``first``.
    """

    plane: int
    columns: slice
    parts: slice
    runs: slice
    first: int
    count: int
    rows: np.ndarray


def planes_of(
    bits: np.ndarray, coefficients: np.ndarray, components: np.ndarray, steps: np.ndarray
) -> tuple[Plane, ...]:
    """Return the planes of a record with these codes: parts of 8 bits, of 4 (the first half of them low), and of 2."""
    planes, start = [], 0
    for width in WIDTHS:
        codes = np.flatnonzero(bits & width)
        size = bytes_of(bits, width)
        for number, first in enumerate(range(0, len(codes), max(1, size))):
            chosen = codes[first : first + size]
            below = bits[chosen] & (width - 1)
            columns = slice(start, start + len(chosen))
            scaled = np.ldexp(steps[chosen], below)
            planes.append(
                Plane(columns, number * width, width, chosen, coefficients[chosen], components[chosen], below, scaled)
            )
        start += size
    return tuple(planes)


def runs_of(planes: tuple[Plane, ...]) -> Runs:
    """Return the codes of ``planes``, at least one."""
    numbers = np.concatenate([np.full(len(plane.codes), number) for number, plane in enumerate(planes)])
    coefficients, components, steps = (
        np.concatenate([getattr(plane, name) for plane in planes]) for name in ("coefficients", "components", "steps")
    )
    starts = np.flatnonzero(np.diff(numbers, prepend=-1) | np.diff(coefficients, prepend=-1))
    lowest = np.array([plane.lowest for plane in planes])[numbers[starts]]
    return Runs(components, steps, starts, numbers[starts], coefficients[starts], lowest)


def groups_of(runs: Runs, shared: int) -> tuple[Group, ...]:
    """Return groups of up to ``shared`` adjacent coefficients of a plane; the first coefficient has its own."""
    groups = []
    ends = np.append(runs.starts, len(runs.components)).tolist()
    for plane in np.unique(runs.planes).tolist():
        start, stop = np.searchsorted(runs.planes, [plane, plane + 1]).tolist()
        number = -(-runs.coefficients[start:stop] // shared)
        bounds = start + np.flatnonzero(np.diff(number, prepend=-1, append=-1))
        for first, last in itertools.pairwise(bounds.tolist()):
            coefficients, parts = runs.coefficients[first:last], slice(ends[first], ends[last])
            columns = slice(parts.start - ends[start], parts.stop - ends[start])
            rows = (coefficients - coefficients[0]).repeat(np.diff(ends[first : last + 1]))
            groups.append(
                Group(plane, columns, parts, slice(first, last), int(coefficients[0]), int(rows[-1]) + 1, rows)
            )
    return tuple(groups)


def middle(bits: np.ndarray | int) -> np.ndarray:
    """Return the code of zero, half way between two integers: float32, shaped like ``bits``."""
    return (np.exp2(bits) / 2 - 0.5).astype(np.float32)


def bytes_of(bits: np.ndarray, width: int) -> int:
    """Return the bytes of a record that the parts of ``width`` bits take."""
    return -(-int(np.count_nonzero(bits & width)) * width // 8)
