"""Finds ids that occur twice in a store by their hashes, so that no process holds the ids themselves.

While a shard is encoded, each part is compared with the earlier parts of that shard, by 16 bytes per passage. The last
shard to finish compares all parts of the store again, by 8 bytes per passage. With ``--on-error skip`` it removes the
parts that hold an id of an earlier part and encodes them again, now compared with all earlier parts. So the first
passage of an id, in the order of the corpus, stays.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from .part import Part

_TWO = struct.Struct("<QQ")

Hashes = np.ndarray
"""uint64 [2, n]: 128 bits per id, so many that no two ids of a corpus share them by chance."""


class SeenIds:
    """The hashes of the ids of some parts, in sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def add(self, new: Hashes) -> None:
        """Add ids."""
        while self._runs and self._runs[-1].shape[1] < 2 * new.shape[1]:
            new = np.concatenate([self._runs.pop(), new], axis=1)
        self._runs.append(new[:, np.argsort(new[0], kind="stable")])  # takes linear time for two sorted runs

    def known(self, new: Hashes) -> np.ndarray:
        """Return which of the ids were added before, bool [n]."""
        seen = np.zeros(new.shape[1], bool)
        for first, second in self._runs:
            starts, stops = np.searchsorted(first, new[0], "left"), np.searchsorted(first, new[0], "right")
            for i in np.flatnonzero(starts < stops).tolist():
                seen[i] |= new[1, i] in second[starts[i] : stops[i]]
        return seen


def repeats(parts: Sequence[Part]) -> Iterator[tuple[str, Part, Part]]:
    """Yield (id, first part that holds it, part that holds it again) in the order of the latter; the two may be equal.

    The ids are read once, and again only if two hashes are equal.
    """
    known = np.fromiter((_hash(docid)[0] for part in parts for docid in part.docids), np.uint64)
    known.sort()
    suspects = set(known[1:][known[1:] == known[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, Part] = {}
    for part in parts:
        for docid in part.docids:
            if _hash(docid)[0] not in suspects:  # among the suspects, two ids may share 64 bits by chance
                continue
            if docid in seen:
                yield docid, seen[docid], part
            else:
                seen[docid] = part


def hashes(docids: Sequence[str]) -> Hashes:
    """Return 128 bits of each id."""
    return np.array([_hash(docid) for docid in docids], np.uint64).reshape(-1, 2).T.copy()


def _hash(docid: str) -> tuple[int, int]:
    return _TWO.unpack(hashlib.blake2b(docid.encode(), digest_size=16).digest())
