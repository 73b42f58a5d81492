"""FAISS index files of fixed-size codes, written batch by batch, so that only one batch is in memory.

FAISS itself keeps all codes in memory until it writes the file. The file is a head, the codes, and a tail. Head and
tail come from FAISS's own writer, and each time the layout is checked against it with a few vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_COUNT = slice(8, 16)  # after the four letters and the dimension: number of vectors, int64


@dataclass(frozen=True)
class FileLayout:
    """``head`` and ``tail`` around the codes, and how much each vector adds to the size field before the codes."""

    head: bytes
    tail: bytes
    unit: int

    def before(self, count: int) -> bytes:
        """Return the bytes before the codes of ``count`` vectors."""
        return with_count(self.head, count) + (count * self.unit).to_bytes(8, "little")


def with_count(head: bytes, count: int) -> bytes:
    """Return ``head`` of an empty index, changed to ``count`` vectors."""
    return head[: _COUNT.start] + count.to_bytes(8, "little") + head[_COUNT.stop :]


def file_layout(index: Any) -> FileLayout | None:
    """Return how FAISS writes ``index`` (trained, empty), or None if its file has another layout."""
    empty = serialized(index)
    vectors = np.random.default_rng(1).standard_normal((3, index.d), dtype=np.float32)
    real = {count: serialized(index, vectors[:count]) for count in (1, 3)}
    codes = index.sa_encode(vectors).tobytes()
    size = len(codes) // 3
    offset = real[1].find(codes[:size], _COUNT.stop)
    while offset >= 0:
        start = offset - 8
        layout = FileLayout(empty[:start], empty[offset:], int.from_bytes(real[1][start:offset], "little"))
        if all(layout.before(count) + codes[: count * size] + layout.tail == real[count] for count in real):
            return layout
        offset = real[1].find(codes[:size], offset + 1)
    return None


def serialized(index: Any, vectors: np.ndarray | None = None) -> bytes:
    """Return FAISS's file of a copy of ``index`` to which ``vectors``, float32 [n, H], are added."""
    import faiss

    copy = faiss.clone_index(index)
    if vectors is not None:
        copy.add(vectors)
    return faiss.serialize_index(copy).tobytes()


class CodesFile:
    """Writes the file of an index of ``count`` vectors."""

    def __init__(self, path: Path, index: Any, layout: FileLayout, count: int):
        self._index, self._layout = index, layout
        self._remaining = count
        self._file = path.open("wb")
        self._file.write(layout.before(count))

    def add(self, vectors: np.ndarray) -> None:
        """Append ``vectors``, float32 [n, H]."""
        self._file.write(self._index.sa_encode(vectors).data)
        self._remaining -= len(vectors)

    def close(self) -> None:
        """Write the end of the file."""
        assert self._remaining == 0, f"{self._remaining} vectors are missing"
        self._file.write(self._layout.tail)
        self._file.close()
