"""FAISS index files of inverted lists, written in bounded memory.

FAISS itself keeps all lists in memory until it writes the file. Where a list begins is known only when the last vector
has been seen, so each vector's list and code go to a nameless file first, in the order of adding, and from there to
their places. What FAISS offers for lists on disk is a format of two files, which Pyserini does not open.

The file is a head, the lists' sizes, and each list's codes and ids. The head comes from FAISS's own writer; the rest is
checked against it with a few vectors each time.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from .codes import serialized, with_count

_BUFFER = 16 << 20  # bytes of memory for what is on its way to its list
_BLOCK = 1 << 15  # vectors encoded at once, as many as in FAISS's `add`: not even a rounding can differ
_ALL, _SPARSE = b"full", b"sprs"  # how the sizes are written: all of them, or the numbers and sizes of lists in use
_NONE = _SPARSE + bytes(8)


def lists_head(index: Any) -> bytes | None:
    """What FAISS writes of ``index`` (trained, empty) before the lists' sizes; None where this way does not fit."""
    import faiss

    empty = serialized(index)
    if not empty.endswith(_NONE):
        return None
    head = empty.removesuffix(_NONE)
    vectors = np.random.default_rng(1).standard_normal((index.nlist + 1, index.d), dtype=np.float32)
    every = np.arange(len(vectors), dtype=np.int64) % index.nlist
    for n, lists in ((1, None), (3, None), (len(vectors), every)):
        ours, theirs = ListedCodes(index, head, io.BytesIO()), faiss.clone_index(index)
        batch = np.resize(vectors, (n, index.d))
        ours.add(batch, lists)
        if lists is None:
            theirs.add(batch)
        else:
            theirs.add_core(n, faiss.swig_ptr(batch), None, faiss.swig_ptr(lists))  # type: ignore[attr-defined]
        file = io.BytesIO()
        ours.write(file)
        if file.getbuffer() != serialized(theirs):
            return None
    return head


class ListedCodes:
    """Codes in the order of adding, in the file ``scratch``, until they are written list by list."""

    def __init__(self, index: Any, head: bytes, scratch: IO[bytes]):
        self.count = 0
        self._index, self._head, self._scratch = index, head, scratch
        self._sizes = np.zeros(index.nlist, np.int64)
        self._record = np.dtype([("list", "<i4"), ("code", "u1", (index.code_size,))])

    def add(self, vectors: np.ndarray, lists: np.ndarray | None = None) -> None:
        """Append ``vectors``, float32 [n, H], to ``lists``, int64 [n]; None for those that FAISS chooses."""
        import faiss

        vectors = np.ascontiguousarray(vectors)
        if lists is None:
            lists = self._index.quantizer.assign(vectors, 1)[:, 0]
        records = np.empty(len(vectors), self._record)
        records["list"] = lists
        for start in range(0, len(vectors), _BLOCK):
            block, of = vectors[start : start + _BLOCK], np.ascontiguousarray(lists[start : start + _BLOCK])
            codes = np.empty((len(block), self._index.code_size), np.uint8)
            self._index.encode_vectors(len(block), faiss.swig_ptr(block), faiss.swig_ptr(of), faiss.swig_ptr(codes))
            records["code"][start : start + _BLOCK] = codes
        self._scratch.write(records.data)
        self._sizes += _sizes(records["list"], len(self._sizes))
        self.count += len(vectors)

    def write(self, file: IO[bytes]) -> None:
        """Write the whole index to ``file``, which is empty."""
        file.write(with_count(self._head, self.count) + _told(self._sizes))
        code_size = self._index.code_size
        codes_at = file.tell() + (np.cumsum(self._sizes) - self._sizes) * (code_size + 8)
        ids_at = codes_at + self._sizes * code_size
        rows = max(1, _BUFFER // (2 * self._record.itemsize + 24))
        self._scratch.seek(0)
        for first in range(0, self.count, rows):
            records = np.frombuffer(self._scratch.read(rows * self._record.itemsize), self._record)
            order = np.argsort(records["list"], kind="stable")  # within a list the order of adding stays
            codes, ids = records["code"][order], (order + first).astype("<i8")
            sizes = _sizes(records["list"], len(self._sizes))
            ends = len(records) - sizes.sum() + np.cumsum(sizes)
            for number in np.flatnonzero(sizes).tolist():
                some = slice(ends[number] - sizes[number], ends[number])
                for place, values in ((codes_at, codes[some]), (ids_at, ids[some])):
                    file.seek(place[number])
                    file.write(values.data)
                    place[number] += values.nbytes


def _sizes(lists: np.ndarray, count: int) -> np.ndarray:
    """How often each of ``count`` lists occurs, int64; -1, where FAISS found none for a vector, does not count."""
    return np.bincount(lists + 1, minlength=count + 1)[1:]


def _told(sizes: np.ndarray) -> bytes:
    """The lists' ``sizes`` as FAISS writes them."""
    used = np.flatnonzero(sizes)
    few = len(used) <= len(sizes) // 2
    numbers = np.stack([used, sizes[used]], axis=1).reshape(-1) if few else sizes
    return (_SPARSE if few else _ALL) + len(numbers).to_bytes(8, "little") + numbers.astype("<i8").tobytes()


class ListsFile:
    """The file of an index of ``count`` vectors in inverted lists that is being written."""

    def __init__(self, path: Path, index: Any, head: bytes, count: int):
        self._path, self._count = path, count
        # Without a name it goes with the process, however that ends.
        self._scratch = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self._codes = ListedCodes(index, head, self._scratch)

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors``, float32 [n, H]."""
        self._codes.add(vectors)

    def close(self) -> None:
        """Write the file."""
        assert self._codes.count == self._count, f"{self._count - self._codes.count} vectors are missing"
        with self._scratch, self._path.open("wb") as file:
            self._codes.write(file)
