"""Compressed MaxSim: FAISS proposes passages by their pooled vectors, and their records are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..host.threads import Workers
from .candidates import propose
from .codec import read_codec
from .exact import Found, maxsim_block
from .manifest import CODEC, SEGMENTS, read_manifest
from .records import Segment
from .scorer import QueryTables

_SHARED_BYTES = 2 << 20  # of codes to look up; below, one thread has the answer before others are awake
_MORE_CANDIDATES, _PER_HIT = 400, 1.5  # what the first stage proposes beyond the hits, or for each hit


@dataclass(frozen=True)
class MultiOptions:
    """How far to look.

    Attributes
    ----------
    candidates : passages that the first stage proposes; None takes half as many again as the list is to hold, at least
        400 more.
    refine : passages that are scored once more by the vectors on disk, where they were kept.
    """

    candidates: int | None = None
    refine: int = 200

    def __post_init__(self) -> None:
        """Raise InputError for numbers that make no sense."""
        if self.candidates is not None and self.candidates < 1:
            raise InputError(f"candidates={self.candidates} must be at least 1.")
        if self.refine < 0:
            raise InputError(f"refine={self.refine} must be at least 0.")

    def wanted(self, depth: int) -> int:
        """Passages to propose for ``depth`` hits."""
        return max(depth, self.candidates or max(depth + _MORE_CANDIDATES, int(_PER_HIT * depth)))


class CompressedIndex:
    """A folder that ``diffretriever index --multi`` made, open for searching. Safe to use from several threads.

    Attributes
    ----------
    first : FAISS's index, the first stage.
    deleted : int64, numbers of the passages that must not be found, ascending.

    Raises
    ------
    InputError
        When the folder is no such index, or a file is missing or damaged.
    """

    def __init__(self, folder: str | Path, options: MultiOptions | None = None):
        self.folder = Path(folder)
        self.options = options or MultiOptions()
        while True:
            self.manifest = read_manifest(self.folder)
            try:
                self._open()
                break
            except (InputError, OSError):
                if read_manifest(self.folder) == self.manifest:
                    raise  # else a change came in between, and took away what the older manifest names
        self._threads = Workers()

    def _open(self) -> None:
        """Open or map every file that the manifest names."""
        manifest = self.manifest
        self.codec = read_codec(self.folder / CODEC)
        shape = (manifest.k_passage, manifest.dimension) if manifest.refine else None
        self.segments = [
            Segment(self.folder / SEGMENTS / name, count, manifest.stride, shape) for name, count in manifest.segments
        ]
        self._bounds = np.cumsum([0, *(segment.count for segment in self.segments)])
        self.deleted = self._read_deleted()
        self.first = self._read_first()

    @property
    def rows(self) -> int:
        """Passages, deleted ones counted; their numbers are below this."""
        return self.manifest.rows

    @property
    def passages(self) -> int:
        """Passages that can be found."""
        return self.manifest.passages

    def search(self, query: np.ndarray, depth: int, threads: int | None = None) -> Found:
        """The best ``depth`` passages for ``query``, float32 [K_q, H].

        Several threads share the work where it is much, at most ``threads`` (None: all processors); for a few
        milliseconds of it, waking more than one takes longer. The result is the same.
        """
        codes = min(self.options.wanted(depth), self.rows) * self.manifest.stride
        if codes < _SHARED_BYTES or threads == 1 or self._threads.count == 1:
            return self._threads.run(self._search, query, depth)
        rows = self._threads.run(self._proposed, query, depth)
        return self._ranked(query, rows, depth, self._threads, threads)

    def _search(self, query: np.ndarray, depth: int) -> Found:
        return self._ranked(query, self._proposed(query, depth), depth)

    def _proposed(self, query: np.ndarray, depth: int) -> np.ndarray:
        """Numbers of the passages that will be scored."""
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():  # all passages are equally far
            return np.setdiff1d(np.arange(min(self.rows, depth + len(self.deleted))), self.deleted)[:depth]
        return propose(self.first, query, self.options.wanted(depth), self.deleted)

    def _ranked(
        self,
        query: np.ndarray,
        rows: np.ndarray,
        depth: int,
        workers: Workers | None = None,
        threads: int | None = None,
    ) -> Found:
        query = np.ascontiguousarray(query, np.float32)
        if not query.any():
            return rows, np.zeros(len(rows), np.float32)
        scores = QueryTables(self.codec, query, workers, threads).scores(self.records(rows))
        if len(rows) and self.manifest.refine and self.options.refine:
            return self._refined(query, rows, scores, depth)
        order = np.lexsort((rows, -scores))[:depth]
        return rows[order], scores[order]

    def search_many(self, queries: Sequence[np.ndarray], depth: int, threads: int | None = None) -> list[Found]:
        """:meth:`search` for several queries, a thread each of ``threads``; the same results, whatever their number."""
        if threads is None or min(threads, len(queries)) <= 1:
            return [self.search(query, depth, threads) for query in queries]
        with Workers(min(threads, len(queries))) as workers:
            return workers.map(lambda query: self._search(query, depth), queries)

    def _refined(self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray, depth: int) -> Found:
        """The best rows scored by their vectors, before all others, whose order stays."""
        import torch

        order = np.lexsort((rows, -scores))
        chosen, rest = np.split(order, [self.options.refine])
        exact = maxsim_block(torch.from_numpy(query), torch.from_numpy(self.stored_vectors(rows[chosen])), 1)[0].numpy()
        chosen = rows[chosen]
        better = np.lexsort((chosen, -exact))
        # What was not refined stays below: two scales of error must not be mixed.
        below = np.minimum(scores[rest], exact.min(initial=np.inf))
        return (
            np.concatenate([chosen[better], rows[rest]])[:depth],
            np.concatenate([exact[better], below])[:depth].astype(np.float32),
        )

    def records(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] of passages by number."""
        if len(self.segments) == 1:
            return self.segments[0].records[rows]
        return self._gather(rows, lambda segment, own: segment.records[own], (self.manifest.stride,), np.uint8)

    def stored_vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] out of the vectors kept on disk."""
        shape = (self.manifest.k_passage, self.manifest.dimension)
        return self._gather(rows, lambda segment, own: segment.vectors(own), shape, np.float32)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] of passages by number: the kept ones, else what their records say."""
        return self.stored_vectors(rows) if self.manifest.refine else self.codec.decode(self.records(rows))

    def stored(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the files of a segment say of passages by number, by file name without its ending."""
        if not self.manifest.refine:
            return {"records": self.records(rows)}
        k, width = self.manifest.k_passage, self.manifest.dimension
        whole = self._gather(rows, lambda segment, own: segment.whole[own], (k, width), np.int8)
        scales = self._gather(rows, lambda segment, own: segment.scales[own], (k,), np.float32)
        return {"records": self.records(rows), "vectors": whole, "scales": scales}

    def docids(self, rows: np.ndarray) -> list[str]:
        """Ids of passages by number."""
        if len(self.segments) == 1:
            return self.segments[0].docids(rows)
        found: list[str] = [""] * len(rows)
        for segment, places, own in self._split(rows):
            for place, docid in zip(places.tolist(), segment.docids(own), strict=True):
                found[place] = docid
        return found

    def row_of(self, docid: str) -> int | None:
        """Number of the passage ``docid``, or None where it is not there or was deleted."""
        return self._rows.get(docid)

    @cached_property
    def _rows(self) -> dict[str, int]:
        gone = set(self.deleted.tolist())
        ids = (docid for segment in self.segments for docid in segment.all_docids())
        return {docid: row for row, docid in enumerate(ids) if row not in gone}

    def _split(self, rows: np.ndarray) -> list[tuple[Segment, np.ndarray, np.ndarray]]:
        """(segment, places in ``rows``, numbers in the segment)."""
        which = np.searchsorted(self._bounds, rows, side="right") - 1
        return [
            (self.segments[number], places, rows[places] - self._bounds[number])
            for number in np.unique(which).tolist()
            for places in (np.flatnonzero(which == number),)
        ]

    def _gather(self, rows: np.ndarray, read: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        found = np.empty((len(rows), *shape), dtype)
        for segment, places, own in self._split(rows):
            found[places] = read(segment, own)
        return found

    def _read_deleted(self) -> np.ndarray:
        if self.manifest.deleted is None:
            return np.empty(0, np.int64)
        path = self.folder / self.manifest.deleted
        try:
            deleted = np.fromfile(path, np.int64)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); build the index again.") from error
        if len(deleted) != self.manifest.deleted_count:
            raise InputError(f"{path}: damaged; build the index again.")
        return deleted

    def _read_first(self) -> Any:
        import faiss

        path = self.folder / self.manifest.candidates
        try:
            first = faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: FAISS cannot read it; build the index again. ({error})") from error
        if first.ntotal != self.rows or first.d != self.manifest.dimension:
            raise InputError(f"{path}: holds {first.ntotal:,} passages, {self.rows:,} expected; build the index again.")
        return first
