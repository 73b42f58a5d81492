"""FAISS index files of fixed-size codes, written one batch at a time: only the batch is in memory.

FAISS itself keeps all codes in memory until it writes the file. The file is a head, the codes, and a tail; head and
tail come from FAISS's own writer, and they are checked against it with a few vectors each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_COUNT = slice(8, 16)  # after the four letters and the dimension: number of vectors, int64


@dataclass(frozen=True)
class FileLayout:
    """``head`` and ``tail`` around the codes, and what a vector adds to the number that stands before the codes."""

    head: bytes
    tail: bytes
    unit: int

    def before(self, count: int) -> bytes:
        """Everything before the codes of ``count`` vectors."""
        return with_count(self.head, count) + (count * self.unit).to_bytes(8, "little")


def with_count(head: bytes, count: int) -> bytes:
    """``head`` of an empty index, for ``count`` vectors."""
    return head[: _COUNT.start] + count.to_bytes(8, "little") + head[_COUNT.stop :]


def file_layout(index: Any) -> FileLayout | None:
    """How FAISS writes ``index`` (trained, empty), or None where this way of writing does not fit."""
    empty = serialized(index)
    vectors = np.random.default_rng(1).standard_normal((3, index.d), dtype=np.float32)
    real = {count: serialized(index, vectors[:count]) for count in (1, 3)}
    codes = index.sa_encode(vectors).tobytes()
    size = len(codes) // 3
    place = real[1].find(codes[:size], _COUNT.stop)
    while place >= 0:
        start = place - 8
        layout = FileLayout(empty[:start], empty[place:], int.from_bytes(real[1][start:place], "little"))
        if all(layout.before(count) + codes[: count * size] + layout.tail == real[count] for count in real):
            return layout
        place = real[1].find(codes[:size], place + 1)
    return None


def serialized(index: Any, vectors: np.ndarray | None = None) -> bytes:
    """The file that FAISS writes of a copy of ``index`` with ``vectors``, float32 [n, H], added."""
    import faiss

    copy = faiss.clone_index(index)
    if vectors is not None:
        copy.add(vectors)
    return faiss.serialize_index(copy).tobytes()


class CodesFile:
    """The file of an index of ``count`` vectors that is being written."""

    def __init__(self, path: Path, index: Any, layout: FileLayout, count: int):
        self._index, self._layout = index, layout
        self._left = count
        self._file = path.open("wb")
        self._file.write(layout.before(count))

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors``, float32 [n, H]."""
        self._file.write(self._index.sa_encode(vectors).data)
        self._left -= len(vectors)

    def close(self) -> None:
        """Write the end of the file."""
        assert self._left == 0, f"{self._left} vectors are missing"
        self._file.write(self._layout.tail)
        self._file.close()
