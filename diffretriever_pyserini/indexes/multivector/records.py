"""The records of all passages and their ids, in files that are read through memory maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files.atomic import flush_folder

RECORDS, DOCIDS, BOUNDS = "records.u8", "docids.utf8", "docid_bounds.i64"
VECTORS, SCALES = "vectors.i8", "scales.f32"


@dataclass(frozen=True)
class Records:
    """``count`` passages in ``folder``; sizes are checked when it is opened.

    Attributes
    ----------
    stride : bytes of a record.
    shape : (K, H) where vectors are kept in int8 beside the records, else None.
    """

    folder: Path
    count: int
    stride: int
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a file that is missing or has another size than the manifest says."""
        sizes = {RECORDS: self.count * self.stride, BOUNDS: 8 * (self.count + 1)}
        if self.shape is not None:
            k, width = self.shape
            sizes |= {VECTORS: self.count * k * width, SCALES: 4 * self.count * k}
        for name, size in sizes.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise InputError(f"{path}: missing or damaged (expected {size:,} bytes); build the index again.")
        try:  # a map outlives its file: whoever has an index open goes on when it is replaced
            _ = (self.records, self._docids, *((self.whole, self.scales) if self.shape else ()))
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be read ({error.strerror or error}).") from error

    @cached_property
    def records(self) -> np.ndarray:
        """uint8 [count, stride]."""
        return _mapped(self.folder / RECORDS, np.uint8, (self.count, self.stride))

    @cached_property
    def _bounds(self) -> np.ndarray:
        return _mapped(self.folder / BOUNDS, np.int64, (self.count + 1,))

    @cached_property
    def _docids(self) -> np.ndarray:
        path, size = self.folder / DOCIDS, int(self._bounds[-1])
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"{path}: missing or damaged (expected {size:,} bytes); build the index again.")
        return _mapped(path, np.uint8, (size,))

    def docids(self, rows: np.ndarray) -> list[str]:
        """Ids of ``rows``."""
        starts, ends = self._bounds[rows].tolist(), self._bounds[rows + 1].tolist()
        text = self._docids
        return [text[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]

    def all_docids(self) -> list[str]:
        """Every id, in order."""
        return self.docids(np.arange(self.count))

    @cached_property
    def whole(self) -> np.ndarray:
        """int8 [count, K, H]; InputError where no vectors were kept."""
        if self.shape is None:
            raise InputError(f"{self.folder}: no vectors were kept beside the codes (--refine int8 keeps them).")
        return _mapped(self.folder / VECTORS, np.int8, (self.count, *self.shape))

    @cached_property
    def scales(self) -> np.ndarray:
        """float32 [count, K]: what one step of ``whole`` is."""
        assert self.shape is not None
        return _mapped(self.folder / SCALES, np.float32, (self.count, self.shape[0]))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] of ``rows`` out of the int8 ones."""
        return self.whole[rows].astype(np.float32) * self.scales[rows][:, :, None]


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The file as a read-only array; a plain one, as slices of numpy's own memmap class take several times as long."""
    return np.asarray(np.memmap(path, dtype, "r", shape=shape)) if 0 not in shape else np.empty(shape, dtype)


class RecordsWriter:
    """Appends passages to the files in a folder. ``written`` is what is on the disk for certain after :meth:`flush`.

    Parameters
    ----------
    written : sizes that :meth:`flush` returned; what lies behind them, from before a kill, is cut off.
    """

    def __init__(self, folder: Path, names: Sequence[str], written: dict[str, int] | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._files = folder, {}
        for name in names:
            file = (folder / name).open("r+b" if (folder / name).exists() else "w+b")
            file.truncate((written or {}).get(name, 0))
            file.seek(0, os.SEEK_END)
            self._files[name] = file
        if BOUNDS in self._files and self._files[BOUNDS].tell() == 0:
            self._files[BOUNDS].write(np.zeros(1, np.int64).tobytes())
        self._end = (written or {}).get(DOCIDS, 0)

    def add(self, docids: Sequence[str], **arrays: np.ndarray) -> None:
        """Append ids and arrays, by file name without its ending."""
        names = [docid.encode() for docid in docids]
        bounds = self._end + np.cumsum([len(name) for name in names], dtype=np.int64)
        self._end = int(bounds[-1]) if names else self._end
        self._files[DOCIDS].write(b"".join(names))
        self._files[BOUNDS].write(bounds.tobytes())
        for name, file in self._files.items():
            if (stem := name.partition(".")[0]) in arrays:
                file.write(np.ascontiguousarray(arrays[stem]).data)

    def flush(self) -> dict[str, int]:
        """Bring everything to the disk; the size of each file."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        for folder in (self._folder, self._folder.parent):
            flush_folder(folder)
        return {name: file.tell() for name, file in self._files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
