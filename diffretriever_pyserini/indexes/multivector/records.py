"""The files of all records and ids, which are memory-mapped."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import BUILD_AGAIN, InputError
from ...files.atomic import flush

RECORDS, DOCIDS, BOUNDS = "records.u8", "docids.utf8", "docid_bounds.i64"
VECTORS, SCALES = "vectors.i8", "scales.f32"


class Records:
    """Reads the files of ``count`` passages in ``folder`` through memory maps.

    Parameters
    ----------
    stride : bytes of a record.
    shape : (K, H) if vectors are stored in int8 beside the records, else None.

    Attributes
    ----------
    records : uint8 [count, stride].

    Raises
    ------
    InputError
        For a file that is missing, or whose size does not match the manifest.
    """

    def __init__(self, folder: Path, count: int, stride: int, shape: tuple[int, int] | None = None):
        self._folder = folder
        # All are opened here: maps stay valid when the index is replaced, so an open index can still be searched.
        self.records = _mapped(folder / RECORDS, np.uint8, (count, stride))
        self._bounds = _mapped(folder / BOUNDS, np.int64, (count + 1,))
        self._docids = _mapped(folder / DOCIDS, np.uint8, (int(self._bounds[-1]),))
        if shape is not None:
            self._vectors = _mapped(folder / VECTORS, np.int8, (count, *shape))
            self._scales = _mapped(folder / SCALES, np.float32, (count, shape[0]))

    def docids(self, rows: np.ndarray) -> list[str]:
        """Return the ids of ``rows``."""
        starts, ends = self._bounds[rows].tolist(), self._bounds[rows + 1].tolist()
        try:
            return [self._docids[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]
        except UnicodeDecodeError as error:
            raise InputError(f"{self._folder / DOCIDS}: damaged ({error}); {BUILD_AGAIN}.") from error

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the stored vectors of ``rows``, float32 [n, K, H]."""
        return self._vectors[rows].astype(np.float32) * self._scales[rows][:, :, None]


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return the file as a read-only plain array, as slicing numpy's memmap class takes several times as long."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        if path.stat().st_size == size:
            return np.asarray(np.memmap(path, dtype, "r", shape=shape)) if size else np.empty(shape, dtype)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    raise InputError(f"{path}: missing or damaged (expected {size:,} bytes); {BUILD_AGAIN}.")


class RecordsWriter:
    """Appends passages to the files in a folder.

    Parameters
    ----------
    written : sizes of the files on the disk, as :meth:`flush` returned them; bytes after them, left by a kill, are cut.
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
        """Append ids and ``arrays``, which are named like their files without the suffix."""
        names = [docid.encode() for docid in docids]
        bounds = self._end + np.cumsum([len(name) for name in names], dtype=np.int64)
        self._end = int(bounds[-1]) if names else self._end
        self._files[DOCIDS].write(b"".join(names))
        self._files[BOUNDS].write(bounds.tobytes())
        for name, file in self._files.items():
            if (stem := name.partition(".")[0]) in arrays:
                file.write(np.ascontiguousarray(arrays[stem]).data)

    def flush(self) -> dict[str, int]:
        """Flush everything to the disk and return the size of each file."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        for folder in (self._folder, self._folder.parent):
            flush(folder)
        return {name: file.tell() for name, file in self._files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
