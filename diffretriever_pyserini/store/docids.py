"""Ids must be unique over a whole store; found out with hashes, so that no process holds the ids themselves.

While a shard is encoded, each part is compared with the shard's own parts before it, by 16 bytes a passage. The last
shard to end compares all parts of the store once more, by 8 bytes a passage. With ``--on-error skip`` it removes the
parts that hold an id of an earlier part and encodes them again, this time compared with all parts before them, so that
the first passage of an id in the corpus's order is the one that stays.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from .part import Part

_TWO = struct.Struct("<QQ")

Hashes = np.ndarray
"""uint64 [2, n], 128 bits an id: that two ids share them by chance need not be expected of any corpus."""


class SeenIds:
    """The ids of some parts by their hashes, in sorted runs of which each is at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def add(self, some: Hashes) -> None:
        """Remember some ids."""
        while self._runs and self._runs[-1].shape[1] < 2 * some.shape[1]:
            some = np.concatenate([self._runs.pop(), some], axis=1)
        self._runs.append(some[:, np.argsort(some[0], kind="stable")])  # linear where two sorted runs are merged

    def known(self, some: Hashes) -> np.ndarray:
        """bool [n]: which of them were added before."""
        seen = np.zeros(some.shape[1], bool)
        for first, second in self._runs:
            starts, stops = np.searchsorted(first, some[0], "left"), np.searchsorted(first, some[0], "right")
            for i in np.flatnonzero(starts < stops).tolist():
                seen[i] |= some[1, i] in second[starts[i] : stops[i]]
        return seen


def repeats(parts: Sequence[Part]) -> Iterator[tuple[str, Part, Part]]:
    """(id, the part that has it first, a part that has it again), in the order of the latter; the same part perhaps.

    The ids are read twice where two hashes are equal, else once.
    """
    known = np.fromiter((_hash(docid)[0] for part in parts for docid in part.docids), np.uint64)
    known.sort()
    suspects = set(known[1:][known[1:] == known[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, Part] = {}
    for part in parts:
        for docid in part.docids:
            if _hash(docid)[0] not in suspects:  # else two ids may still share a hash by chance
                continue
            if docid in seen:
                yield docid, seen[docid], part
            else:
                seen[docid] = part


def hashes(docids: Sequence[str]) -> Hashes:
    """128 bits of each id."""
    return np.array([_hash(docid) for docid in docids], np.uint64).reshape(-1, 2).T.copy()


def _hash(docid: str) -> tuple[int, int]:
    return _TWO.unpack(hashlib.blake2b(docid.encode(), digest_size=16).digest())
