"""FAISS index files of inverted lists, written in bounded memory.

FAISS itself keeps all lists in memory until it writes the file. The offset of a list is known only after the last
vector, so each vector's list and code first go to a file without a name, in the order of adding, and from there to
their offsets. FAISS's own lists on disk are a format of two files, which Pyserini does not open.

The file is a head, the lists' sizes, and each list's codes and ids. The head comes from FAISS's own writer, and each
time the layout is checked against it with a few vectors.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from .codes import serialized, with_count

_BUFFER = 16 << 20  # bytes of memory for the codes that are being sorted into lists
_BLOCK = 1 << 15  # vectors encoded at once, as many as in FAISS's `add`, so that even roundings are equal
_FULL, _SPARSE = b"full", b"sprs"  # formats of the sizes: all of them, or the numbers and sizes of lists in use
_NO_LISTS = _SPARSE + bytes(8)


def lists_head(index: Any) -> bytes | None:
    """Return FAISS's file of ``index`` (trained, empty) up to the lists' sizes; None if it has another layout."""
    import faiss

    empty = serialized(index)
    if not empty.endswith(_NO_LISTS):
        return None
    head = empty.removesuffix(_NO_LISTS)
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
    """Collects codes in the file ``scratch``, in the order of adding, and then writes them list by list."""

    def __init__(self, index: Any, head: bytes, scratch: IO[bytes]):
        self.count = 0
        self._index, self._head, self._scratch = index, head, scratch
        self._sizes = np.zeros(index.nlist, np.int64)
        self._record = np.dtype([("list", "<i4"), ("code", "u1", (index.code_size,))])

    def add(self, vectors: np.ndarray, lists: np.ndarray | None = None) -> None:
        """Append ``vectors``, float32 [n, H], to ``lists``, int64 [n]; by default FAISS chooses the lists."""
        import faiss

        vectors = np.ascontiguousarray(vectors)
        if lists is None:
            lists = self._index.quantizer.assign(vectors, 1)[:, 0]
        records = np.empty(len(vectors), self._record)
        records["list"] = lists
        for start in range(0, len(vectors), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block, numbers = vectors[rows], np.ascontiguousarray(lists[rows])
            codes = np.empty((len(block), self._index.code_size), np.uint8)
            pointers = (faiss.swig_ptr(array) for array in (block, numbers, codes))
            self._index.encode_vectors(len(block), *pointers)
            records["code"][rows] = codes
        self._scratch.write(records.data)
        self._sizes += _sizes(records["list"], len(self._sizes))
        self.count += len(vectors)

    def write(self, file: IO[bytes]) -> None:
        """Write the whole index to the empty ``file``."""
        file.write(with_count(self._head, self.count) + _written_sizes(self._sizes))
        code_size = self._index.code_size
        codes_at = file.tell() + (np.cumsum(self._sizes) - self._sizes) * (code_size + 8)
        ids_at = codes_at + self._sizes * code_size
        rows = max(1, _BUFFER // (2 * self._record.itemsize + 24))
        self._scratch.seek(0)
        for first in range(0, self.count, rows):
            records = np.frombuffer(self._scratch.read(rows * self._record.itemsize), self._record)
            order = np.argsort(records["list"], kind="stable")  # keeps the order of adding within a list
            codes, ids = records["code"][order], (order + first).astype("<i8")
            sizes = _sizes(records["list"], len(self._sizes))
            ends = len(records) - sizes.sum() + np.cumsum(sizes)
            for number in np.flatnonzero(sizes).tolist():
                members = slice(ends[number] - sizes[number], ends[number])
                for offsets, values in ((codes_at, codes[members]), (ids_at, ids[members])):
                    file.seek(offsets[number])
                    file.write(values.data)
                    offsets[number] += values.nbytes


def _sizes(lists: np.ndarray, count: int) -> np.ndarray:
    """Return how often each of ``count`` lists occurs, int64; -1 (no list for a vector) is not counted."""
    return np.bincount(lists + 1, minlength=count + 1)[1:]


def _written_sizes(sizes: np.ndarray) -> bytes:
    """Return the lists' ``sizes`` as FAISS writes them."""
    used = np.flatnonzero(sizes)
    few = len(used) <= len(sizes) // 2
    numbers = np.stack([used, sizes[used]], axis=1).reshape(-1) if few else sizes
    return (_SPARSE if few else _FULL) + len(numbers).to_bytes(8, "little") + numbers.astype("<i8").tobytes()


class ListsFile:
    """Writes the file of an index of ``count`` vectors in inverted lists."""

    def __init__(self, path: Path, index: Any, head: bytes, count: int):
        self._path, self._count = path, count
        # A file without a name disappears with the process, however that ends.
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
