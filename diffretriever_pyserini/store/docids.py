"""Ids must be unique over a whole store; found out with a hash of eight bytes a passage."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .part import Part


class SeenIds:
    """The ids of some parts, remembered by hash, to find out which ids an earlier part holds already.

    Twelve bytes a passage: hash and part number, in sorted runs of which each is at least twice as long as the next.

    Parameters
    ----------
    docids_of : ids of a part by its number; asked where two hashes are equal, which two ids may have by chance.
    """

    def __init__(self, docids_of: Callable[[int], Sequence[str]]):
        self._docids_of = docids_of
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, number: int, docids: Sequence[str]) -> None:
        """Remember that part ``number`` holds ``docids``."""
        known, parts = np.sort(hashes(docids)), np.full(len(docids), number, np.uint32)
        while self._runs and len(self._runs[-1][0]) < 2 * len(known):
            longer = self._runs.pop()
            known, parts = np.concatenate([longer[0], known]), np.concatenate([longer[1], parts])
            order = np.argsort(known, kind="stable")  # two sorted runs are merged in linear time
            known, parts = known[order], parts[order]
        self._runs.append((known, parts))

    def before(self, number: int, docids: Sequence[str]) -> dict[str, int]:
        """Those of ``docids`` that a part before part ``number`` holds, and the first such part."""
        wanted = hashes(docids)
        suspects: defaultdict[int, set[str]] = defaultdict(set)
        for known, parts in self._runs:
            starts, stops = np.searchsorted(known, wanted, "left"), np.searchsorted(known, wanted, "right")
            for i in np.flatnonzero(starts < stops).tolist():
                for part in parts[starts[i] : stops[i]].tolist():
                    if part < number:
                        suspects[part].add(docids[i])
        found: dict[str, int] = {}
        for part in sorted(suspects, reverse=True):
            found |= dict.fromkeys(suspects[part].intersection(self._docids_of(part)), part)
        return found


def repeats(parts: Sequence[Part]) -> Iterator[tuple[str, Part, Part]]:
    """(id, the part that has it first, a part that has it again), in the order of the latter; the same part perhaps.

    The ids are read twice where two hashes are equal, else once.
    """
    known = np.fromiter((_hash(docid) for part in parts for docid in part.docids), np.uint64)
    known.sort()
    suspects = set(known[1:][known[1:] == known[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, Part] = {}
    for part in parts:
        for docid in part.docids:
            if _hash(docid) not in suspects:  # else two ids may still share a hash by chance
                continue
            if docid in seen:
                yield docid, seen[docid], part
            else:
                seen[docid] = part


def hashes(docids: Sequence[str]) -> np.ndarray:
    """uint64, one an id."""
    return np.fromiter((_hash(docid) for docid in docids), np.uint64, len(docids))


def _hash(docid: str) -> int:
    return int.from_bytes(hashlib.blake2b(docid.encode(), digest_size=8).digest(), "little")
