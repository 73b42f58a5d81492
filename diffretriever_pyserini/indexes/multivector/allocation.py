"""How many bytes each coefficient of a passage gets: most to those that vary most, none where it would not pay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_COARSEST = 64  # components of one byte; coarser codes are noise, and each size costs a search one more table


def code_sizes(dimension: int) -> list[int]:
    """Bytes that a quantiser of 8 bits can take for ``dimension`` components: its larger divisors, ascending."""
    return [size for size in range(1, dimension + 1) if dimension % size == 0 and size * _COARSEST >= dimension]


def share_out(energies: Sequence[float], dimension: int, budget: int) -> list[int]:
    """Bytes of each coefficient, at most ``budget`` in all.

    A quantiser of ``m`` bytes leaves about ``energy * 2 ** (-16 * m / dimension)`` of a coefficient's energy (a bit a
    component quarters it; Cover and Thomas, Elements of Information Theory, 10.3). Whoever gains most by a byte gets
    the next step.

    Parameters
    ----------
    energies : mean squared length of each coefficient, not negative.
    dimension : H, components of each coefficient.
    budget : bytes.

    Returns
    -------
    Sizes out of :func:`code_sizes`, or 0 for a coefficient that is left out.
    """
    steps = [0, *code_sizes(dimension)]
    left = [[energy * 2.0 ** (-16 * size / dimension) for size in steps] for energy in energies]
    place = [0] * len(energies)
    spent = 0
    while True:
        best, gain = None, 0.0
        for i, at in enumerate(place):
            for to in range(at + 1, len(steps)):
                cost = steps[to] - steps[at]
                if spent + cost > budget:
                    break
                if (left[i][at] - left[i][to]) / cost > gain:
                    best, gain = (i, to), (left[i][at] - left[i][to]) / cost
        if best is None:
            return [steps[at] for at in place]
        i, to = best
        spent += steps[to] - steps[place[i]]
        place[i] = to


def axes(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions over the K places, float32 [K, K] in columns, and their energies [K], largest first.

    ``gram`` [K, K] is the mean over passages of ``X @ X.T``. A direction's sign is fixed by its largest entry, so that
    the same sample gives the same bytes.
    """
    energies, directions = np.linalg.eigh(gram.astype(np.float64))
    energies, directions = energies[::-1].clip(0), directions[:, ::-1]
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return (directions * signs).astype(np.float32), energies


def balanced(variances: np.ndarray, bins: int) -> np.ndarray:
    """An order of the d components in which ``bins`` runs of equal length have nearly equal products of variances.

    So each sub-quantiser has as much to tell as the next (Ge et al., Optimized Product Quantization, section 4.2).
    ``variances`` [d], d a multiple of ``bins`` -> int64 [d].
    """
    room = len(variances) // bins
    members: list[list[int]] = [[] for _ in range(bins)]
    loads = np.zeros(bins)
    logs = np.log(np.maximum(variances, 1e-12))
    for component in np.argsort(-variances, kind="stable").tolist():
        # Before all bins have as many members, a smaller load may only mean that there were fewer factors below 1.
        fewest = min(map(len, members))
        open_bins = [b for b in range(bins) if len(members[b]) == fewest]
        b = min(open_bins, key=lambda one: loads[one])
        members[b].append(component)
        loads[b] += logs[component]
    assert all(len(one) == room for one in members)
    return np.concatenate([np.sort(one) for one in members]).astype(np.int64)
